"""Training step through Lightning, against a bare loop and against pytorch-ignite, with the same kernel and data.

The bare loop is measured as users write it, and with the fused optimizer that this project chooses by itself.
"""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from bptt.benchmarks.measure import Found, interleaved, row
from bptt.benchmarks.training import MODELS, UNWATCHED, bare_loop, ignite, through_lightning


class Size(NamedTuple):
    """T, B, D, H and the chunk size.

    num_batches: batches that take one or two seconds. target, fused_target: for the ratio to the bare loop, and to that
    with the fused optimizer.
    """

    length: int
    batch_size: int
    embedding_size: int
    hidden_size: int
    chunk_size: int
    num_batches: int
    target: float | None = None
    fused_target: float | None = None

    @property
    def words(self) -> tuple[str, ...]:
        task = (f"task.{name}={getattr(self, name)}" for name in ("length", "batch_size"))
        model = (f"model.{name}={getattr(self, name)}" for name in ("embedding_size", "hidden_size"))
        return *task, *model, f"estimator.chunk_size={self.chunk_size}"


SIZES = {
    "small": Size(100, 16, 16, 32, 20, 40, fused_target=1.1),
    "typical": Size(500, 32, 64, 128, 100, 15, target=1.03, fused_target=1.0),
    "large": Size(200, 64, 128, 256, 100, 4),
}


def rows(repetitions: int) -> Found:
    for name, size in SIZES.items():
        for model in MODELS:
            words = (*UNWATCHED, f"model={model}", *size.words)
            counts = size.num_batches, max(1, size.num_batches // 5)  # with those to warm up
            loop = partial(bare_loop, words, *counts, chunk=size.chunk_size)
            variants: dict[str, Callable[[], float]] = {
                "bare loop": loop,
                "fused": partial(loop, fused=True),
                "Lightning": partial(through_lightning, words, *counts),
            }
            if importlib.util.find_spec("ignite"):
                variants["ignite"] = partial(ignite, words, *counts, chunk=size.chunk_size)
            seconds = interleaved(variants, repetitions)
            title = f"step, {name}, {model}: Lightning"
            yield row(f"{title} / bare loop", seconds["Lightning"], seconds["bare loop"], target=size.target)
            fused_title = f"{title} / bare loop with fused optimizer"
            yield row(fused_title, seconds["Lightning"], seconds["fused"], target=size.fused_target)
            if "ignite" in seconds:
                yield row(f"{title} / ignite", seconds["Lightning"], seconds["ignite"])
