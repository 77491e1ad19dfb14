"""Recurrent layers. Each states its equations once. Torch's kernels run them, or a loop or scan that is faster."""

from bptt.layers.adapter import Adapter
from bptt.layers.base import Layer
from bptt.layers.bidirectional import Bidirectional
from bptt.layers.diagonal import DiagonalLayer
from bptt.layers.elman import Elman
from bptt.layers.gru import GRU
from bptt.layers.influence import Influence
from bptt.layers.lru import LRU
from bptt.layers.lstm import LSTM, LSTMState
from bptt.layers.mingru import MinGRU
from bptt.layers.minlstm import MinLSTM
from bptt.layers.record import LayerGradients, Record, StateGradients
from bptt.layers.rg_lru import RGLRU

__all__ = [
    "GRU",
    "LRU",
    "LSTM",
    "RGLRU",
    "Adapter",
    "Bidirectional",
    "DiagonalLayer",
    "Elman",
    "Influence",
    "LSTMState",
    "Layer",
    "LayerGradients",
    "MinGRU",
    "MinLSTM",
    "Record",
    "StateGradients",
]
