"""Recurrent layers. Each states its equations once; Torch's kernels run them, or a loop that is faster."""

from bptt.layers.base import Layer, LayerGradients, Record, StateGradients
from bptt.layers.elman import Elman
from bptt.layers.gru import GRU
from bptt.layers.influence import Influence
from bptt.layers.lstm import LSTM, LSTMState

__all__ = ["GRU", "LSTM", "Elman", "Influence", "LSTMState", "Layer", "LayerGradients", "Record", "StateGradients"]
