"""The recommended chunk size of a task, beside the smallest chunk size that learns it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bptt import chunk_size
from bptt.chunk_size.advice import smallest_below
from bptt.lightning.module import BPTTModule

DELTA = 0.1  # largest relative bias of a recommended chunk size
DELTAS = (0.05, DELTA, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # for which recommendations are compared
NUM_BATCHES = 3  # on which bias is measured, as with batches=3 of choose_chunk_size.py


class Advice(NamedTuple):
    """Recommendations for one setting of a task with one cell.

    length: timesteps T of a sequence. recommended: the chunk size for each seed; T is the whole sequence.
    smallest: the smallest of the compared chunk sizes that solves the setting before both budgets, of timesteps and of
        processor time, are used up, for each seed; None if none does.
    worst: the largest relative bias of each chunk size over training, for each seed; sizes are keys as in JSON.
    slower: timesteps until `smallest` solves the setting, divided by those of the exact gradient, for each seed; None
        if the exact gradient does not solve it. Empty in earlier results.
    """

    task: str
    cell: str
    lag: int
    length: int
    recommended: tuple[int, ...]
    smallest: tuple[int | None, ...]
    worst: tuple[Mapping[str, float], ...]
    slower: tuple[float | None, ...] = ()

    def pairs(self, delta: float = DELTA) -> list[tuple[int, int]]:
        """The size with a bias below delta, and the smallest that learns, of the seeds with a size that learns.

        Seeds with the same biases are one case: nothing in such a task is drawn.
        """
        cases = {tuple(biases.items()): (biases, least) for biases, least in zip(self.worst, self.smallest)}
        return [(self._recommended(biases, delta), least) for biases, least in cases.values() if least is not None]

    def _recommended(self, biases: Mapping[str, float], delta: float) -> int:
        size = smallest_below(sorted(map(int, biases), reverse=True), lambda size: biases[str(size)], delta=delta)
        return self.length if size is None else size


def recommended(module: BPTTModule, *, num_updates: int) -> dict[str, Any]:
    """The chunk size that `scripts/choose_chunk_size.py train=UPDATES batches=3` recommends, and what it rests on.

    Also the length of a sequence, the horizon after training, and the largest bias of each size, as in `Advice`.
    """
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
    worst = chunk_size.worst_bias(moments)
    return {
        "recommended": length if best is None else best.size,
        "length": length,
        "horizon": str(moments[-1].horizon),
        "worst": {str(each.size): worst[each.overrides][0] for each in chunk_size.plain_chunks(moments[-1])},
    }


def smallest_that_learns(sizes: Iterable[tuple[int | None, int]], seeds: Sequence[int]) -> tuple[int | None, ...]:
    """The smallest chunk size that learns, for each seed; None if none does.

    sizes: those of runs that learnt, each with its seed.
    """
    learnt = list(sizes)
    return tuple(min((size for size, own in learnt if own == seed and size), default=None) for seed in seeds)


def shares(advice: Iterable[Advice], delta: float = DELTA) -> tuple[int, int, int]:
    """Counts of recommendations: all, those not below the smallest size that learns, and of these those up to twice it.

    Without those for settings that no chunk size solves.
    """
    pairs = [pair for each in advice for pair in each.pairs(delta)]
    enough = [(size, least) for size, least in pairs if size >= least]
    return len(pairs), len(enough), sum(size <= 2 * least for size, least in enough)
