"""Checks of the Trainer's settings that Lightning makes late, unclearly or not at all."""

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from bptt.contracts import at_least, between, one_of, refusal

if TYPE_CHECKING:  # imported in the functions: --help and refused arguments need not wait for torch
    from bptt.tasks.base import Split, Task

# Environment variables by which launchers tell a process of the others; without them it would wait for ever.
CLUSTER = {"MASTER_ADDR", "SLURM_NTASKS", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE"}

REPLACED = {  # callbacks of Lightning that cannot be used, and a remedy or the reason
    "BackboneFinetuning": "see optimizer.groups, and model.init_from",
    "BatchSizeFinder": "say task.batch_size=…",
    "GradientAccumulationScheduler": "say estimator.update=sequence",
    "LearningRateFinder": "try several: -m optimizer.lr=…",
    "ModelCheckpoint": "see callbacks.checkpoint: monitor, mode, every_n_updates, every_n_minutes",
    "ModelPruning": "its masks are in no checkpoint, so that a resumed run would differ",
    "StochasticWeightAveraging": "use scheduler=cosine; it replaces the schedule",
    **dict.fromkeys(("WeightAveraging", "EMAWeightAveraging"), "a run could not resume from within a validation"),
    "OnExceptionCheckpoint": "checkpoints are written when a run is interrupted",
}


def check_trainer_settings(trainer: Mapping[str, Any]) -> None:
    """Raise ValueError for settings with which this machine cannot train."""
    # Deleted settings, as by ~trainer.max_steps, are the Trainer's own defaults.
    trainer = defaultdict(lambda: None, {"check_val_every_n_epoch": 1, **trainer})
    if trainer["log_every_n_steps"] is not None:
        at_least(1, **{"trainer.log_every_n_steps": trainer["log_every_n_steps"]})
    for limit, none in (("max_epochs", "-1 or null"), ("max_steps", "-1")):
        if trainer[limit] is not None and trainer[limit] != -1:
            at_least(1, **{f"trainer.{limit}": trainer[limit]}, remedy=f"{none} is no limit")
    if trainer.get("limit_train_batches") == 0:
        raise ValueError(refusal("trainer.limit_train_batches", "above 0", 0, "evaluate.py scores without training"))
    if trainer["val_check_interval"] is not None:
        between(0, math.inf, **{"trainer.val_check_interval": trainer["val_check_interval"]}, open_low=True)
    if trainer["check_val_every_n_epoch"] is not None:
        at_least(1, **{"trainer.check_val_every_n_epoch": trainer["check_val_every_n_epoch"]})
    elif isinstance(trainer["val_check_interval"], float):
        wanted = "a whole number of batches with trainer.check_val_every_n_epoch=null"
        raise ValueError(refusal("trainer.val_check_interval", wanted, trainer["val_check_interval"]))
    one_of((True, False, None, "warn"), **{"trainer.deterministic": trainer["deterministic"]})
    one_of((None, "simple", "advanced", "pytorch"), **{"trainer.profiler": trainer["profiler"]})
    least, most = trainer.get("min_epochs"), trainer["max_epochs"]
    if isinstance(least, int) and isinstance(most, int) and 0 < most < least:
        raise ValueError(refusal("trainer.min_epochs", f"at most trainer.max_epochs = {most}", least))
    nodes = trainer.get("num_nodes", 1)
    at_least(1, **{"trainer.num_nodes": nodes})
    if nodes > 1 and not CLUSTER & set(os.environ):
        remedy = "start it on each machine by torchrun, or by hydra/launcher=slurm"
        raise ValueError(refusal("trainer.num_nodes", "1 without the other machines' addresses", nodes, remedy))
    if any(trainer.get(name) is not None for name in ("gradient_clip_val", "accumulate_grad_batches")):
        raise ValueError(
            "trainer.gradient_clip_val and trainer.accumulate_grad_batches must stay unset, as the estimator decides "
            "when to update; use clipping=norm clipping.max=1, or estimator=chunked estimator.update=sequence"
        )
    if trainer.get("enable_checkpointing"):
        remedy = "see callbacks.checkpoint: monitor, mode, every_n_updates, every_n_minutes"
        raise ValueError(refusal("trainer.enable_checkpointing", "false", True, remedy))
    if trainer.get("barebones"):
        remedy = "say logger=none trainer.limit_val_batches=0"
        raise ValueError(refusal("trainer.barebones", "unset, as runs keep checkpoints and a summary", True, remedy))
    if "truncated_bptt_steps" in trainer:
        raise ValueError(
            "trainer.truncated_bptt_steps must stay unset, as the estimator truncates; say estimator.chunk_size=…"
        )
    if isinstance(trainer["accelerator"], str):
        one_of(("auto", *accelerators()), **{"trainer.accelerator": trainer["accelerator"]})
    strategy = trainer.get("strategy")
    if isinstance(strategy, str) and strategy.endswith(("_spawn", "_fork", "_notebook")):
        raise ValueError(refusal("trainer.strategy", "one that starts the script again", strategy, "say ddp"))
    if isinstance(trainer["max_time"], int | float):
        remedy = "say '00:00:05:00' for 5 minutes"
        raise ValueError(refusal("trainer.max_time", "a text DD:HH:MM:SS", trainer["max_time"], remedy))


def check_callbacks(sections: Iterable[Mapping[str, Any]]) -> None:
    """ValueError for Lightning's callbacks that need automatic optimization, or that this project replaces.

    So are those whose state is in no checkpoint.
    """
    for section in sections:
        library, _, name = section["_target_"].rpartition(".")
        if name in REPLACED and library.startswith(("lightning.", "pytorch_lightning.")):
            raise ValueError(
                refusal("callbacks", "those that fit manual optimization and resumption", name, REPLACED[name])
            )


def accelerators() -> list[str]:
    """Names of the accelerators of this machine."""
    from lightning.pytorch.accelerators import AcceleratorRegistry

    names = AcceleratorRegistry.available_accelerators()
    present = [name for name in names if AcceleratorRegistry[name]["accelerator"].is_available()]
    return [*present, *(["gpu"] if {"cuda", "mps"} & set(present) else [])]


def check_limits(config: DictConfig, task: "Task") -> None:
    """Refuse a share of a split's batches that is less than one batch, and batches that do not fit the task's sizes."""
    from bptt.tasks.batch_checks import check_task

    check_task(task)
    names: dict[Split, str] = {"train": "train", "validation": "val", "test": "test"}
    for split, name in names.items():
        limit, count = config.trainer.get(f"limit_{name}_batches"), task.num_batches(split)
        if isinstance(limit, float) and count and 0 < limit * count < 1:
            key = f"trainer.limit_{name}_batches"
            raise ValueError(refusal(key, f"a share of {count} batches with one or more of them", limit))
    check_validation_interval(config.trainer, num_batches=task.num_batches("train"))


def check_validation_interval(trainer: DictConfig, *, num_batches: int) -> None:
    """Refuse to validate after more batches than an epoch has, which Lightning refuses when training starts."""
    limit, interval = trainer.get("limit_train_batches"), trainer.get("val_check_interval")
    if limit is not None:
        num_batches = int(num_batches * limit) if isinstance(limit, float) else min(num_batches, limit)
    validates = trainer.get("limit_val_batches") != 0 and trainer.get("check_val_every_n_epoch", 1) is not None
    if isinstance(interval, int) and validates and interval > num_batches > 0:
        wanted = f"at most {num_batches}, the batches of an epoch, or a share of them"
        raise ValueError(refusal("trainer.val_check_interval", wanted, interval))
