"""Recurrent layers: one set of equations each, run by torch's kernels, or a loop of their own where that is faster."""

from bptt.layers.base import Layer, LayerGradients, Record, StateGradients
from bptt.layers.elman import Elman
from bptt.layers.gru import GRU
from bptt.layers.influence import Influence
from bptt.layers.lstm import LSTM, LSTMState

__all__ = ["GRU", "LSTM", "Elman", "Influence", "LSTMState", "Layer", "LayerGradients", "Record", "StateGradients"]
