"""Checkpoint files: written whole, and read only if they can be trusted."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from bptt.atomic_files import replacing
from bptt.lightning import snapshot
from bptt.lightning.module import BPTTModule
from bptt.run_folder import RunFolder

CALLBACK = "Checkpoint"  # key of that callback's state in a checkpoint
KEPT = {  # what Lightning keeps in a checkpoint and needs to resume
    "state_dict": dict,
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes straight to the given path. Lightning's own class writes a copy in memory and a second one in $TMPDIR."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with open(path, "wb") as file:  # given a path, torch turns a full disk into a RuntimeError
            torch.save(checkpoint, file)


def write(trainer: Trainer, path: Path, *, keep: Path | None = None) -> None:
    """Write a checkpoint of the trainer's module. Collective: every process must call it.

    keep: the name that an existing file at `path` takes.
    """
    for logger in trainer.loggers:
        logger.save()  # curves never end before the checkpoint that they lead to
    if not trainer.is_global_zero:
        trainer.save_checkpoint(path)
        return
    with replacing(path, keep=keep) as partial:
        trainer.save_checkpoint(partial)


def newest_checkpoint(run: Path) -> tuple[Path | None, list[str]]:
    """The newest complete checkpoint of a run, if there is one, and a line for each newer one that is faulty."""
    faults = []
    folder = RunFolder(run)
    for path in (folder.last_checkpoint, folder.previous_checkpoint):
        if path.exists():
            try:
                read(path)
            except ValueError as error:
                faults.append(str(error))
            else:
                return path, faults
    return None, faults


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; ValueError if it is torn, of another format, or not a checkpoint of this project."""
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()
        if torn is not None:
            raise ValueError(f"the checksum of {torn} does not match")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        holds_code = isinstance(error, pickle.UnpicklingError)  # torch's advice is to trust the file
        reason = "it holds more than tensors and plain containers" if holds_code else " ".join(str(error).split())
        raise ValueError(f"a checkpoint must be a whole file written by training, got {path}: {reason}") from error
    own = content.get(snapshot.KEY) if isinstance(content, dict) else None
    own = own if isinstance(own, dict) else {}
    found = own.get("format")
    if found != snapshot.FORMAT:
        raise ValueError(f"a checkpoint must be of format {snapshot.FORMAT}, got {path} of format {found}; train again")
    wrong = [name for name, kind in KEPT.items() if not isinstance(content.get(name), kind)]
    wrong += [f"{snapshot.KEY}.{name}" for name, kind in snapshot.KEPT.items() if not isinstance(own.get(name), kind)]
    if not wrong and not all(isinstance(weight, Tensor) for weight in content["state_dict"].values()):
        wrong = ["state_dict"]
    if wrong:
        raise ValueError(f"a checkpoint must be as training writes it, got {path} with a wrong {wrong[0]}; train again")
    return dict(content)


def check_fits(module: BPTTModule, content: dict[str, Any], path: Path) -> None:
    """Refuse to resume from a checkpoint with other data than before, or with another model."""
    before, now = content[snapshot.KEY].get("data"), module.task.identity
    if before not in (None, now):  # the first checkpoints of format 1 have no such entry
        raise ValueError(f"a run must go on with the data it began with, {before}, got {now}; begin another run")
    check_same_model(module, content["state_dict"], path)


def best_metric(run: Path) -> float | None:
    """The best value of the metric that a run monitored; None if it has no checkpoint or was never validated."""
    path, _ = newest_checkpoint(run)
    callbacks = read(path)["callbacks"] if path is not None else {}
    return callbacks.get(CALLBACK, {}).get("best")


def load_weights(module: BPTTModule, path: Path, *, other_data: bool = False) -> None:
    """Load the weights of a checkpoint into a module.

    ValueError if it is of another model, or of other data than the module's task unless `other_data` allows that.
    """
    if not path.is_file():
        raise ValueError(f"a run must have the checkpoint {path}, which is missing; has it finished a validation?")
    content = read(path)
    check_same_model(module, content["state_dict"], path)
    before, now = content["bptt"].get("data"), module.task.identity
    if not other_data and before not in (None, now):
        raise ValueError(
            f"the data must be those of training, {before}, got {now}; say other_data=true to take them all the same"
        )
    module.load_state_dict(content["state_dict"])


def check_same_model(module: LightningModule, weights: dict[str, Any], path: Path) -> None:
    """Refuse weights that have other names or shapes than the module's."""
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
