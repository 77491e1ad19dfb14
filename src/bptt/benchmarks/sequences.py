"""Sequences of a batch apart: resets inside it, against none; each sequence's gradient, against that of their sum.

Forward and backward of one layer between encoder and readout, without an optimizer.
"""

from dataclasses import replace
from functools import partial

import torch

from bptt.benchmarks.exact import Passes, mean_loss
from bptt.benchmarks.measure import DEVICE, Found, interleaved, now, row
from bptt.estimators import Chunked
from bptt.layers import GRU, LRU, LSTM, Elman, Layer
from bptt.measures.per_sequence import per_sequence_gradients

LAYERS: tuple[type[Layer], ...] = (Elman, GRU, LSTM, LRU)
LENGTH, CHUNK_SIZE = 1000, 100
BATCH_SIZE, HIDDEN_SIZE = 32, 128
RATE = 0.01  # resets per timestep and sequence
SHORT = 100  # timesteps of the batch whose sequences' gradients are measured


def rows(repetitions: int) -> Found:
    for layer in LAYERS:
        without = passes_of(layer, LENGTH)
        mask = torch.rand(LENGTH, BATCH_SIZE, device=DEVICE) < RATE
        reset = without._replace(batch=replace(without.batch, reset=mask))
        chunks = Chunked(CHUNK_SIZE)
        timings = interleaved(
            {"none": partial(without.seconds, chunks), "resets": partial(reset.seconds, chunks)}, repetitions
        )
        title = f"sequences, {layer.__name__}: 1 reset in {1 / RATE:g} timesteps / none"
        yield row(title, timings["resets"], timings["none"], target=1.3)
    for layer in LAYERS:
        passes = passes_of(layer, SHORT)
        timings = interleaved(
            {"sum": partial(passes.seconds, Chunked(SHORT)), "each": partial(seconds_of_each, passes)}, repetitions
        )
        title = f"sequences, {layer.__name__}: gradient of each / of their sum"
        yield row(title, timings["each"], timings["sum"], target=1.5)


def passes_of(layer: type[Layer], length: int) -> Passes:
    return Passes.of(layer, num_timesteps=length, batch_size=BATCH_SIZE, hidden_size=HIDDEN_SIZE)


def seconds_of_each(passes: Passes) -> float:
    """Seconds for the gradients of all sequences apart."""
    began = now()
    state = passes.model.initial_state(passes.batch.batch_size)
    per_sequence_gradients(passes.model, mean_loss, passes.batch, state)
    return now() - began
