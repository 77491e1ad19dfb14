"""The recommended chunk size of a task, beside the smallest chunk size that learns it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bptt import chunk_size
from bptt.lightning.module import BPTTModule

DELTA = 0.1  # largest relative bias of a recommended chunk size
NUM_BATCHES = 3  # on which bias is measured


class Advice(NamedTuple):
    """Recommendations for one setting of a task with one cell.

    length: timesteps T of a sequence. recommended: the chunk size for each seed; T is the whole sequence.
    smallest: the smallest chunk size that solves the setting, for each seed; None if not even the exact gradient does.
    """

    task: str
    cell: str
    lag: int
    length: int
    recommended: tuple[int, ...]
    smallest: tuple[int | None, ...]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The recommended and the smallest chunk size of the seeds with a chunk size that learns."""
        return [(size, least) for size, least in zip(self.recommended, self.smallest) if least is not None]


def recommended(module: BPTTModule, *, num_updates: int) -> dict[str, Any]:
    """The chunk size that `scripts/choose_chunk_size.py train=UPDATES` recommends, and the horizon after training."""
    moments = chunk_size.measure_training(
        module.model,
        module.task,
        module.new_optimizer(),
        num_updates=num_updates,
        before_step=module.scale_and_clip,
        num_batches=NUM_BATCHES,
        with_cost=False,
    )
    best = chunk_size.recommend(moments, delta=DELTA)
    length = module.task.batch("train", 0).num_timesteps
    return {
        "recommended": length if best is None else best.size,
        "length": length,
        "horizon": str(moments[-1].horizon),
    }


def smallest_that_learns(
    sizes: Mapping[str, int | None], solved: Mapping[tuple[str, int], bool], seeds: Sequence[int]
) -> tuple[int | None, ...]:
    """The smallest chunk size that learns, for each seed.

    sizes: chunk size of each estimator by name, None for estimators without chunks. solved: true for an estimator and
        a seed if the training run solved the setting.
    """

    def smallest(seed: int) -> int | None:
        learnt = (size for name, size in sizes.items() if size is not None and solved.get((name, seed)))
        return min(learnt, default=None)

    return tuple(smallest(seed) for seed in seeds)


def shares(advice: Iterable[Advice]) -> tuple[int, int, int]:
    """Counts of recommendations: all, the sufficient ones, and the sufficient ones at most twice too large.

    Without those for settings that no chunk size solves.
    """
    pairs = [pair for each in advice for pair in each.pairs]
    enough = [(size, least) for size, least in pairs if size >= least]
    return len(pairs), len(enough), sum(size <= 2 * least for size, least in enough)
