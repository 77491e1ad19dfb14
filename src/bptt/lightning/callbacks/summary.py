"""What a run was and how it ended, as a file."""

import json
import math
import os
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from bptt.lightning.callbacks.divergence import DivergenceError
from bptt.lightning.callbacks.pruning import Pruning
from bptt.lightning.checkpoint import validated_in_training
from bptt.lightning.module import BPTTModule

PACKAGES = ("bptt", "torch", "lightning", "hydra-core", "torchmetrics")


class RunSummary(Callback):
    """Keeps `summary.json` in the run folder: status, last metrics, counters, wall seconds, versions.

    status: `running`, then `completed`, `pruned`, `interrupted` (by hand or by a signal), `diverged` or `failed`, these
    two with the error's line.
    """

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.metrics: dict[str, float] = {}
        self.error: str | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["summary"] = {"seconds": time.monotonic() - self.began, "metrics": self._newest_metrics(trainer)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.began = time.monotonic() - checkpoint["summary"]["seconds"]
        self.metrics = checkpoint["summary"]["metrics"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path is None:
            self.began = time.monotonic()
        self._write(trainer, pl_module, "running")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if validated_in_training(trainer):
            self._write(trainer, pl_module, "running")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "interrupted" if trainer.interrupted else ended(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.error = f"{type(exception).__name__}: {exception}".splitlines()[0]
        statuses = {KeyboardInterrupt: "interrupted", DivergenceError: "diverged"}
        self._write(trainer, pl_module, statuses.get(type(exception), "failed"))

    def _newest_metrics(self, trainer: Trainer) -> dict[str, float]:
        self.metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        return self.metrics

    def _write(self, trainer: Trainer, module: LightningModule, status: str) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(module, BPTTModule)
        metrics = sorted(self._newest_metrics(trainer).items())
        content: dict[str, Any] = {
            "status": status,
            "metrics": {name: value if math.isfinite(value) else None for name, value in metrics},
            "counters": asdict(module.counters),
            "wall_seconds": round(time.monotonic() - self.began, 3),
            "parameters": sum(parameter.numel() for parameter in module.model.parameters()),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        }
        if self.error is not None:
            content["error"] = self.error
        path = Path(trainer.default_root_dir) / "summary.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(partial, path)


def ended(trainer: Trainer) -> str:
    """How a run ended that nobody interrupted."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set behind its annotations
    return "pruned" if any(isinstance(each, Pruning) and each.pruned for each in callbacks) else "completed"
