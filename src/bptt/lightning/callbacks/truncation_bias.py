"""Bias of truncated gradients during training."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer

from bptt.contracts import at_least
from bptt.estimators import Chunked
from bptt.lightning.callbacks.base import TrainingCallback, run_title
from bptt.lightning.callbacks.look_schedule import power_of
from bptt.lightning.curve_log import CurveLog
from bptt.lightning.loggers import write_image
from bptt.lightning.module import BPTTModule
from bptt.lightning.terminal import say
from bptt.measures.segments import last_timesteps_with_loss
from bptt.measures.truncation_bias import Bias, chunk_sizes, truncation_bias
from bptt.tasks.base import Batch
from bptt.tensorboard_tab.curve import Curve, Fact

QUANTITIES = ("relative", "cosine", "norm_ratio")


class TruncationBias(TrainingCallback):
    """Compares gradients ĝ of disjoint chunks of 1, 2, 4, … timesteps, and of the size in use, with the exact one, g.

    It measures the estimator `Chunked`, whichever estimator trains, and prints a line if that is another one.
    Measured at the start of every `every_n_batches`-th batch on that batch (`max_timesteps` up to its last loss), from
    the state carried into it, at the current weights, without dropout. It works on a copy: training is unchanged.

    Logged under `truncation_bias/`:
    - cosine, relative (‖ĝ − g‖ / ‖g‖) and norm_ratio (‖ĝ‖ / ‖g‖) over all parameters, for the chunk size in use. Only
      for estimators that have a chunk size.
    - figure/QUANTITY (images): each of the three against the chunk size, one line for each look.
    The tab "Gradient flow" shows cosine and relative by chunk size; its CSV and the file `curves/truncation_bias.npz`
    hold all three.
    Each look costs about log₂ T times as much as training on the batch.
    """

    one_direction = True

    def __init__(self, *, every_n_batches: int = 100, max_timesteps: int = 1000):
        at_least(1, every_n_batches=every_n_batches)
        at_least(2, max_timesteps=max_timesteps)
        self.every_n_batches = every_n_batches
        self.max_timesteps = max_timesteps
        self.looked_at: int | None = None
        self.progress: list[int] = []
        self.curves: list[dict[int, tuple[float, float, float]]] = []
        self.curve_log = CurveLog("truncation_bias")

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None:
        self.curve_log.start(trainer, module)
        if not isinstance(module.estimator, Chunked) and trainer.is_global_zero:
            own = type(module.estimator).__name__
            say(f"truncation_bias is that of estimator=chunked, not of the {own} that trains")

    def before_batch(self, trainer: Trainer, module: BPTTModule, batch: Batch) -> None:
        if module.counters.batches % self.every_n_batches or module.counters.batches == self.looked_at:
            return
        self.looked_at = module.counters.batches  # so that a run resumed between two batches does not look again
        state = module.carry.state_for(module.model, batch)
        looked_at, state, start = last_timesteps_with_loss(module.model, batch, state, self.max_timesteps)
        if not any(looked_at.weights()):
            return
        own = in_use(module)
        sizes = chunk_sizes(batch.num_timesteps, longest=self.max_timesteps, also=own)
        truncated = {size: Chunked(size, update="sequence") for size in sizes}
        biases = truncation_bias(module.model, module.task.loss, looked_at, state, truncated, start=start, whole=batch)
        self.progress.append(module.step_axis)
        self.curves.append({size: (each.cosine, each.relative, each.norm_ratio) for size, each in biases.items()})
        facts = {"update": module.counters.updates, "chunk_size": own}
        self.curve_log.add(trainer, module, {"truncation_bias": curve(biases, facts)})
        if own is not None:
            module.write({f"truncation_bias/{name}": value for name, value in scalars(biases[own]).items()})
        if power_of(4, len(self.curves)):
            self.draw(trainer, module, module.step_axis)

    def at_end(self, trainer: Trainer, module: BPTTModule, exception: BaseException | None) -> None:
        self.curve_log.save(trainer)
        if exception is None and self.curves and not power_of(4, len(self.curves)):
            self.draw(trainer, module, module.step_axis + 1)  # so that resuming discards it

    def draw(self, trainer: Trainer, module: BPTTModule, step: int) -> None:
        from bptt import figures

        options: dict[str, Any] = {"in_use": in_use(module), "title": run_title(module)}
        for quantity in QUANTITIES:
            drawing = partial(figures.bias_by_chunk_size, self.curves, self.progress, quantity, **options)
            write_image(trainer, f"truncation_bias/figure/{quantity}", drawing, step)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.curve_log.save(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"looked_at": self.looked_at, "progress": self.progress, "curves": self.curves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.looked_at = state_dict["looked_at"]
        self.progress = list(state_dict["progress"])
        self.curves = list(state_dict["curves"])


def in_use(module: BPTTModule) -> int | None:
    """The estimator's chunk size, or None if it has none."""
    size: int | None = getattr(module.estimator, "chunk_size", None)
    return size


def curve(biases: Mapping[int, Bias], facts: Mapping[str, Fact]) -> Curve:
    """Curves of one look against the chunk size."""
    columns = {name: np.array([getattr(each, name) for each in biases.values()]) for name in QUANTITIES}
    return Curve(np.array(list(biases)), columns, facts, logarithmic=False)


def scalars(bias: Bias) -> dict[str, float]:
    values = {"cosine": bias.cosine, "relative": bias.relative, "norm_ratio": bias.norm_ratio}
    return {name: value for name, value in values.items() if math.isfinite(value)}
