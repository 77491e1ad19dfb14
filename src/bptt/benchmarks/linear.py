"""Diagonal linear recurrences: the scan against a loop over timesteps and against torch's GRU; RTRL against BPTT.

An LRU of H complex units, that is 2 H numbers a timestep, forward and backward.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from bptt.benchmarks.exact import megabytes
from bptt.benchmarks.measure import DEVICE, Found, curve, interleaved, now, row
from bptt.estimators import RTRL, Estimator, Full
from bptt.layers import LRU, Layer
from bptt.model import SequenceModel
from bptt.tasks.base import Batch

LENGTH, BATCH_SIZE, INPUT_SIZE, UNITS = 1000, 16, 16, 96
STRIDES: dict[int, float | None] = {1000: 1.5, 100: None, 10: None}  # of RTRL, and what it may cost
LENGTHS = (1000, 10_000, 100_000, 1_000_000)  # of one sequence and 8 complex units


def rows(repetitions: int) -> Found:
    inputs = torch.randn(LENGTH, BATCH_SIZE, INPUT_SIZE, device=DEVICE)
    layer, gru = LRU(INPUT_SIZE, 2 * UNITS).to(DEVICE), nn.GRU(INPUT_SIZE, 2 * UNITS).to(DEVICE)
    state = layer.initial_state(BATCH_SIZE)
    variants = {
        "scan": partial(seconds, layer, lambda: layer(inputs, state)[0]),
        "loop": partial(seconds, layer, lambda: Layer.forward(layer, inputs, state)[0]),
        "GRU": partial(seconds, gru, lambda: gru(inputs)[0]),
    }
    timings = interleaved(variants, repetitions)
    yield row("linear, LRU: scan / loop over its step", timings["scan"], timings["loop"], target=0.1)
    yield row(f"linear, LRU: scan / torch's GRU({2 * UNITS})", timings["scan"], timings["GRU"], target=0.33)

    model, batch = one_layer(LENGTH, BATCH_SIZE, UNITS)
    estimators: dict[str, Estimator] = {"BPTT": Full()}
    estimators |= {f"stride {stride}": RTRL(stride, update="sequence") for stride in STRIDES}
    times = interleaved({name: partial(updating, model, batch, each) for name, each in estimators.items()}, repetitions)
    for stride, target in STRIDES.items():
        yield row(
            f"linear, LRU: RTRL in strides of {stride} / BPTT", times[f"stride {stride}"], times["BPTT"], target=target
        )

    lengths = {length: one_layer(length, 1, 8) for length in LENGTHS}
    taken = {
        length: min(updating(*each, Full(length)) for _ in range(min(2, repetitions)))
        for length, each in lengths.items()
    }
    yield curve("linear, LRU of 8 complex units: exact gradient", "T", taken)
    saved = {length: megabytes(partial(updating, *each, Full(length))) for length, each in lengths.items()}
    yield curve("linear, LRU of 8 complex units: exact gradient", "T", saved, unit="MB")


def one_layer(length: int, batch_size: int, units: int) -> tuple[SequenceModel, Batch]:
    model = SequenceModel(LRU, input_size=INPUT_SIZE, output_size=INPUT_SIZE, hidden_size=2 * units).to(DEVICE)
    inputs, targets = torch.randn(2, length, batch_size, INPUT_SIZE, device=DEVICE)
    return model, Batch(inputs, targets)


def seconds(module: nn.Module, forward: Callable[[], Tensor]) -> float:
    """Forward and backward."""
    began = now()
    outputs = forward()
    outputs.backward(torch.ones_like(outputs))
    module.zero_grad()
    return now() - began


def updating(model: SequenceModel, batch: Batch, estimator: Estimator) -> float:
    """All gradients of a batch."""
    began = now()
    for _ in estimator.updates(model, squared_error, batch, model.initial_state(batch.batch_size)):
        model.zero_grad()
    return now() - began


def squared_error(predictions: Tensor, batch: Batch) -> Tensor:
    return (predictions - batch.targets).square().mean()
