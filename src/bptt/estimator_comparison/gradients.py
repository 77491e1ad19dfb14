"""Bias, noise, alignment and cost of an estimator, at weights that were trained with the exact gradient."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bptt.chunk_size.measurement import batches_with_state
from bptt.estimator_comparison.allocations import peak_bytes
from bptt.estimator_comparison.training import BatchTraining
from bptt.estimators import Estimator, Full
from bptt.lightning.module import BPTTModule
from bptt.measures.truncation_bias import (
    bias,
    bias_and_noise,
    estimated_gradient,
    flat_vector,
    gradient_noise,
    is_stochastic,
)
from bptt.model import SequenceModel
from bptt.shapes import State, detach
from bptt.tasks.base import Batch, Task

MEASURES = 2  # version of the measures: files of another version are measured again
REPETITIONS = 5  # number of times that a batch is timed

Gradient = Mapping[str, Tensor]


def gradient_quality(
    module: BPTTModule, *, moments: Sequence[int], num_batches: int, num_draws: int
) -> list[dict[str, Any]]:
    """Compare the module's estimator with the exact gradient after each of several numbers of batches.

    All estimators are measured at the same weights, because training between the moments uses the exact gradient.
    """
    estimator, module.estimator = module.estimator, Full()
    training, measured = BatchTraining(module), []
    for due in sorted(moments):
        while training.batches < due:
            training.step()
        measured.append({"batches": due, **compare(estimator, module.model, module.task, num_batches, num_draws)})
    module.estimator = estimator
    return measured


def compare(
    estimator: Estimator, model: SequenceModel, task: Task, num_batches: int, num_draws: int
) -> dict[str, float | None]:
    """An estimator's gradients ĝ on several batches, compared with the exact ones g.

    All numbers but the last are means over batches.

    bias: ‖E ĝ − g‖ / ‖g‖ with the mean over draws; see `bias_and_noise`.
    noise: the root mean square of ‖ĝ − E ĝ‖ / ‖g‖ over draws; 0 without random numbers.
    cosine: of a single ĝ and g.
    batch_noise: deviation of a single ĝ over batches and draws, relative to its root mean square; see `gradient_noise`.
    """
    twin, before = model.without_dropout(), estimator.state_dict()
    repeats = num_draws if is_stochastic(estimator) else 1
    drawn = estimator.drawing_anew() if repeats > 1 else estimator
    biases, noises, cosines, all_draws = [], [], [], []
    for batch, state in batches_with_state(model, task, num_batches):
        if not any(batch.weights()):
            continue
        exact = estimated_gradient(Full(), twin, task.loss, batch, state)
        draws = [estimated_gradient(drawn, twin, task.loss, batch, state) for _ in range(repeats)]
        error = bias_and_noise(draws, exact) if len(draws) > 1 else bias(draws[0], exact)
        biases.append(error.relative)
        noises.append(error.noise)
        cosines += [cosine(each, exact) for each in draws]
        all_draws.append(draws)
    estimator.load_state_dict(before)
    measured = {
        "bias": statistics.fmean(biases),
        "noise": statistics.fmean(noises),
        "cosine": statistics.fmean(cosines),
        "batch_noise": gradient_noise(all_draws),
    }
    return {name: value if math.isfinite(value) else None for name, value in measured.items()}


def cosine(estimate: Gradient, exact: Gradient) -> float:
    """ĝ·g / ‖ĝ‖‖g‖ over all parameters; 0 if ĝ = 0."""
    first, second = flat_vector(estimate), flat_vector(exact)
    return float(first @ second / (first.norm() * second.norm()).clamp(min=torch.finfo(first.dtype).tiny))


def cost(module: BPTTModule) -> dict[str, float]:
    """Microseconds of processor time and peak bytes for the gradient of one batch, each divided by its T timesteps."""
    batch, state = next(batches_with_state(module.model, module.task, 1))
    twin, estimator, before = module.model.without_dropout(), module.estimator, module.estimator.state_dict()

    def run() -> float:
        return seconds(estimator, twin, module.task, batch, state)

    run()
    times = [run() for _ in range(REPETITIONS)]
    peak = peak_bytes(run)
    estimator.load_state_dict(before)
    length = batch.num_timesteps
    return {"microseconds": round(statistics.median(times) / length * 1e6, 3), "bytes": round(peak / length, 1)}


def seconds(estimator: Estimator, model: SequenceModel, task: Task, batch: Batch, state: State) -> float:
    """Processor time for the gradient of one batch."""
    started = time.process_time()
    for _ in estimator.updates(model, task.loss, batch, detach(state)):
        model.zero_grad()
    return time.process_time() - started
