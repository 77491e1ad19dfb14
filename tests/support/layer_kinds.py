"""The layers that generic tests run on, by name."""

from functools import partial
from typing import Any

from bptt.layers import GRU, LRU, LSTM, RGLRU, Elman, MinGRU, MinLSTM

KINDS: dict[str, Any] = {
    "elman": Elman,
    "irnn": partial(Elman, nonlinearity="relu"),
    "gru": GRU,
    "lstm": LSTM,
    "lru": LRU,
    "mingru": MinGRU,
}
ALL: dict[str, Any] = {**KINDS, "minlstm": MinLSTM, "rg_lru": RGLRU}
"""For tests of milliseconds: MinLSTM and RGLRU differ from MinGRU in their coefficients alone."""
