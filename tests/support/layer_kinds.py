"""The layers that generic tests run on, by name."""

from functools import partial
from typing import Any

from bptt.layers import GRU, LRU, LSTM, RGLRU, Elman, MinGRU, MinLSTM

STOCK: dict[str, Any] = {"elman": Elman, "irnn": partial(Elman, nonlinearity="relu"), "gru": GRU, "lstm": LSTM}
KINDS: dict[str, Any] = {**STOCK, "lru": LRU, "mingru": MinGRU}
ALL: dict[str, Any] = {**KINDS, "minlstm": MinLSTM, "rg_lru": RGLRU}
"""For tests of milliseconds: MinLSTM and RGLRU differ from MinGRU in their coefficients alone."""
ANY_SIZE: dict[str, Any] = {**ALL, "lru": lambda input_size, hidden_size: LRU(input_size, 2 * hidden_size)}
"""The same for every H; that of an LRU is doubled, because it must be even."""
