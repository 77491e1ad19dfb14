"""The estimators that are measured, and the overrides that choose each on the command line."""

import inspect
from typing import NamedTuple

from bptt.contracts import plain_name
from bptt.estimators import Chunked, Estimator, Full, Randomized, Sliding
from bptt.measures.truncation_bias import chunk_sizes
from bptt.tasks.base import Batch


class Candidate(NamedTuple):
    """An estimator to measure, the overrides that choose it, and its size on the x-axis of figures, if it has one."""

    name: str
    overrides: str
    size: int | None
    estimator: Estimator


def candidates(batch: Batch, *, longest: int, own: Estimator | None = None) -> list[Candidate]:
    """Chunks of every power of 2 and of the whole batch, sliding windows of twice the stride, one randomized, and full.

    longest: number of timesteps that are measured; larger sizes are left out. own: another estimator to measure.
    """
    sizes = chunk_sizes(batch.num_timesteps, longest=longest)
    middle = max(2, sizes[len(sizes) // 2])
    estimators: list[Estimator] = [Chunked(size, update="sequence") for size in sizes]
    estimators += [Sliding(size, 2 * size) for size in sizes if 4 <= size < batch.num_timesteps / 2]
    estimators += [Randomized(middle, block=min(8, middle // 2), update="sequence"), Full()]
    all_candidates = [candidate(estimator) for estimator in estimators]
    if own is not None and candidate(own).overrides not in {each.overrides for each in all_candidates}:
        all_candidates.append(candidate(own))
    return all_candidates


def candidate(estimator: Estimator) -> Candidate:
    """An estimator with the overrides that choose it: its arguments without those that have their default.

    The choice is taken to have the name of the class, as comparisons of runs show it.
    """
    name = plain_name(type(estimator).__name__)
    settings = {}
    for key, parameter in inspect.signature(type(estimator)).parameters.items():
        value = getattr(estimator, key, parameter.default)
        if value != parameter.default and key != "update":  # the number of updates per batch does not change the bias
            settings[key] = value
    overrides = " ".join([f"estimator={name}", *(f"estimator.{key}={value}" for key, value in settings.items())])
    sizes = (getattr(estimator, key, None) for key in ("chunk_size", "stride", "mean_length"))
    size = next((size for size in sizes if isinstance(size, int)), None)
    return Candidate(name, overrides, size, estimator)
