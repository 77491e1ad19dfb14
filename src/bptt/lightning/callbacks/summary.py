"""Summary of a run: status, metrics, counters, versions."""

import json
import math
import platform
import time
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from lightning import LightningModule, Trainer

from bptt.atomic_files import replace_text
from bptt.lightning.callbacks.base import TrainingCallback, run_folder
from bptt.lightning.endings import ending_of, warning_of
from bptt.lightning.loggers import write_scalar
from bptt.lightning.module import BPTTModule, Ending
from bptt.lightning.stop_signals import requeues
from bptt.lightning.terminal import say
from bptt.run_folder import RunStatus

PACKAGES = ("bptt", "lightning", "hydra-core", "torchmetrics")


class RunSummary(TrainingCallback):
    """Writes the summary file of the run folder: status, last metrics, counters, wall seconds, versions.

    status: a `RunStatus`. A run that `diverged` or `failed` also has the exception's first line as `error`; a run that
        ended early has a `reason`. A run that diverged and yet went on has a `warning`.
    """

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.metrics: dict[str, float] = {}
        self.remarks: dict[str, str] = {}
        self.started = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        threads = torch.get_num_threads()
        checkpoint["summary"] = {
            "threads": threads,
            "seconds": time.monotonic() - self.began,
            "metrics": self._newest_metrics(trainer),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.began = time.monotonic() - checkpoint["summary"]["seconds"]
        self.metrics = checkpoint["summary"]["metrics"]
        before, now = checkpoint["summary"].get("threads"), torch.get_num_threads()
        if before not in (None, now) and trainer.is_global_zero:  # early checkpoints of format 1 have no such entry
            say(f"resumed with {now} threads instead of {before}: results differ by rounding", error=True)

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None:
        self.started = True
        if trainer.ckpt_path is None:
            self.began = time.monotonic()
        self._write(trainer, module, RunStatus.RUNNING)

    def after_validation(self, trainer: Trainer, module: BPTTModule) -> None:
        self._write(trainer, module, RunStatus.RUNNING)
        write_scalar(trainer, "cost/wall_seconds", time.monotonic() - self.began, module.step_axis)

    def at_end(self, trainer: Trainer, module: BPTTModule, exception: BaseException | None) -> None:
        if exception is None:
            for logger in trainer.loggers:
                logger.save()  # a run that is killed after its status is `completed` must lack nothing
            ending = ending_of(trainer, module)
            warning = warning_of(module, self._newest_metrics(trainer))
            remarks = {"reason": ending.reason, "warning": warning}
            self.remarks = {name: text for name, text in remarks.items() if text is not None}
            self._write(trainer, module, ending.status)
            self._report(trainer, module, ending)
        elif isinstance(exception, KeyboardInterrupt) or requeues(exception):
            self._write(trainer, module, RunStatus.INTERRUPTED)
        else:
            self.remarks = {"error": f"{type(exception).__name__}: {exception}".splitlines()[0]}
            self._write(trainer, module, getattr(exception, "status", RunStatus.FAILED))

    def _report(self, trainer: Trainer, module: BPTTModule, ending: Ending) -> None:
        """Print the reason of an early end, and the warning."""
        if not trainer.is_global_zero:
            return
        if ending.status == RunStatus.STOPPED:
            done, updates, epochs = module.counters.batches, module.counters.updates, trainer.max_epochs or 0
            total = epochs * trainer.num_training_batches  # infinite if training had no batch
            batches = f"{done:,} of {total:,}" if epochs > 0 and math.isfinite(total) else f"{done:,}"
            say(f"stopped: {ending.reason}; {updates:,} updates, {batches} batches")
        if "warning" in self.remarks:
            say(f"warning: {self.remarks['warning']}", error=True)

    def _newest_metrics(self, trainer: Trainer) -> dict[str, float]:
        self.metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        return self.metrics

    def _write(self, trainer: Trainer, module: BPTTModule, status: RunStatus) -> None:
        if not trainer.is_global_zero:
            return
        self.check_folder(trainer)
        metrics = sorted(self._newest_metrics(trainer).items())
        content: dict[str, Any] = {
            "status": status,
            "metrics": {name: value if math.isfinite(value) else None for name, value in metrics},
            "counters": asdict(module.counters),
            "wall_seconds": round(time.monotonic() - self.began, 3),
            "parameters": sum(parameter.numel() for parameter in module.model.parameters()),
            "threads": torch.get_num_threads(),
            **({"data": module.task.identity} if module.task.identity else {}),
            "versions": versions(),
            **self.remarks,
        }
        if not self.started:  # an error came before the checkpoint was loaded
            with suppress(ValueError):
                former = run_folder(trainer).read_summary()
                content |= {name: former[name] for name in ("metrics", "counters", "wall_seconds") if name in former}
        replace_text(run_folder(trainer).summary, json.dumps(content, indent=2) + "\n")


@cache
def versions() -> dict[str, str]:
    """Versions of Python and the libraries. torch's version includes its build, such as 2.13.0+cpu."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{name: version(name) for name in PACKAGES},
    }
