"""Checkpoints of a run."""

import math
import os
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from bptt.contracts import one_of


class Checkpoint(Callback):
    """Writes `checkpoints/last.ckpt` after each validation and at the end, and `best.ckpt` by the monitored metric.

    Each file appears whole or not at all.
    """

    def __init__(self, monitor: str = "validation/loss", mode: Literal["min", "max"] = "min"):
        one_of(("min", "max"), mode=mode)
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not validated_in_training(trainer):
            return
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise ValueError(f"the monitored metric must be one of {', '.join(sorted(metrics))}; got {self.monitor}")
        value = float(metrics[self.monitor])
        if self.best is None or math.isnan(self.best) or self._better(value, self.best):
            self.best = value
            self._save(trainer, "best.ckpt")
        self._save(trainer, "last.ckpt")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, "last.ckpt")

    def _better(self, value: float, other: float) -> bool:
        return value < other if self.mode == "min" else value > other

    def _save(self, trainer: Trainer, name: str) -> None:
        path = checkpoint_folder(Path(trainer.default_root_dir)) / name
        partial = path.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            os.replace(partial, path)


def validated_in_training(trainer: Trainer) -> bool:
    """Whether the validation that just ended belongs to a training run."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def checkpoint_folder(run: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run / "checkpoints"


def load_weights(module: LightningModule, path: Path) -> None:
    """Put the weights of a checkpoint into a module; ValueError where it is of another model."""
    if not path.is_file():
        raise ValueError(f"a run must have the checkpoint {path}, which is not there; has it finished a validation?")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:
        raise ValueError(f"a checkpoint must be a file written by training, got {path}: {error}") from error
    own = module.state_dict()
    differing = [name for name in sorted(own | weights) if name not in own or name not in weights]
    differing += [name for name in own if name not in differing and own[name].shape != weights[name].shape]
    if differing:
        name = differing[0]
        shapes = [tuple(side[name].shape) if name in side else "nothing" for side in (own, weights)]
        raise ValueError(
            f"the checkpoint must be of the same model, got {path} where {name} is {shapes[1]} instead of {shapes[0]}; "
            "use the model and task it was trained with"
        )
    module.load_state_dict(weights)
