"""The estimators that are measured, and the words that choose each on the command line."""

import inspect
from typing import NamedTuple

from bptt.estimators import Chunked, Estimator, Full, Randomized, Sliding
from bptt.measures.truncation_bias import chunk_sizes
from bptt.tasks.base import Batch


class Candidate(NamedTuple):
    """An estimator to measure. words: how to choose it on the command line. size: its place on the x-axis, if any."""

    name: str
    words: str
    size: int | None
    estimator: Estimator


def candidates(batch: Batch, *, longest: int, own: Estimator | None = None) -> list[Candidate]:
    """Chunks of every power of 2 and of the whole batch, sliding windows of twice the stride, one randomized, and full.

    longest: sizes above it are left out, because no more timesteps are measured. own: an estimator to measure as well.
    """
    sizes = chunk_sizes(batch.num_timesteps, longest=longest)
    middle = max(2, sizes[len(sizes) // 2])
    estimators: list[Estimator] = [Chunked(size, update="sequence") for size in sizes]
    estimators += [Sliding(size, 2 * size) for size in sizes if 4 <= size < batch.num_timesteps / 2]
    estimators += [Randomized(middle, block=min(8, middle // 2), update="sequence"), Full()]
    found = [candidate(estimator) for estimator in estimators]
    if own is not None and (mine := candidate(own)).words not in {each.words for each in found}:
        found.append(mine)
    return found


def candidate(estimator: Estimator) -> Candidate:
    """An estimator with the words that choose it: those of its arguments that are not the default."""
    name = type(estimator).__module__.rpartition(".")[2]
    settings = {}
    for key, parameter in inspect.signature(type(estimator)).parameters.items():
        value = getattr(estimator, key, parameter.default)
        if value != parameter.default and key != "update":  # how often to step does not change the gradient's bias
            settings[key] = value
    words = " ".join([f"estimator={name}", *(f"estimator.{key}={value}" for key, value in settings.items())])
    sizes = (getattr(estimator, key, None) for key in ("chunk_size", "stride", "mean_length"))
    size = next((size for size in sizes if isinstance(size, int)), None)
    return Candidate(name, words, size, estimator)
