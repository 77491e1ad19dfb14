"""Checkpoint files: written atomically, validated when read."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from bptt.atomic_files import replacing
from bptt.lightning import checkpoint_content
from bptt.lightning.data_identity import USE_CHANGED, other_encoding, same_data
from bptt.lightning.module import BPTTModule
from bptt.lightning.terminal import say
from bptt.run_folder import RunFolder

CALLBACK = "Checkpoint"  # key of that callback's state in a checkpoint
LIGHTNING_ENTRIES = {  # entries of a checkpoint that Lightning needs to resume, with their types
    "state_dict": dict,
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes directly to the given path. Lightning's class first makes a copy in memory and a second one in $TMPDIR."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        try:
            with open(path, "wb") as file:  # torch.save(…, path) would not raise the OSError of a full disk at all
                torch.save(checkpoint, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch closes its archive, which fails once more
                raise error.__context__ from None
            raise


def write(trainer: Trainer, path: Path, *, keep: Path | None = None) -> None:
    """Write a checkpoint of the trainer's module. Collective: every process must call it.

    keep: new path of an existing file at `path`; by default it is overwritten.
    """
    for logger in trainer.loggers:
        logger.save()  # so that the curves on disk reach at least as far as the checkpoint
    if not trainer.is_global_zero:
        trainer.save_checkpoint(path)
        return
    with replacing(path, keep=keep) as partial:
        trainer.save_checkpoint(partial)


def newest_checkpoint(run: Path) -> tuple[Path | None, list[str]]:
    """The newest valid checkpoint of a run, or None, and one line for each newer file that is invalid."""
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
    """Content of a checkpoint. ValueError if the file is missing, damaged, of another format, or of another program."""
    if not path.exists():
        raise ValueError(f"a run must have the checkpoint {path}, which is missing; has it finished a validation?")
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            raise ValueError("it is no file")
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} does not match")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        holds_code = isinstance(error, pickle.UnpicklingError)  # torch's own message advises weights_only=False
        reason = "it holds more than tensors and plain containers" if holds_code else " ".join(str(error).split())
        raise ValueError(f"a checkpoint must be a whole file written by training, got {path}: {reason}") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ValueError(f"a checkpoint must be as training writes it, got {path} that holds a {kind}; train again")
    entry = content.get(checkpoint_content.KEY)
    entry = entry if isinstance(entry, dict) else {}
    version = entry.get("format")
    if version != checkpoint_content.FORMAT:
        raise ValueError(
            f"a checkpoint must be of format {checkpoint_content.FORMAT}, got {path} of format {version}; train again"
        )
    wrong = [name for name, kind in LIGHTNING_ENTRIES.items() if not isinstance(content.get(name), kind)]
    wrong += [
        f"{checkpoint_content.KEY}.{name}"
        for name, kind in checkpoint_content.ENTRIES.items()
        if not isinstance(entry.get(name), kind)
    ]
    if not wrong and not all(isinstance(weight, Tensor) for weight in content["state_dict"].values()):
        wrong = ["state_dict"]
    if wrong:
        raise ValueError(f"a checkpoint must be as training writes it, got {path} with a wrong {wrong[0]}; train again")
    return dict(content)


def check_fits(module: BPTTModule, content: dict[str, Any], path: Path) -> None:
    """Raise ValueError if the checkpoint to resume from belongs to other data or another model."""
    before, now = content[checkpoint_content.KEY].get("data"), module.task.identity
    if not same_data(before, now):
        wanted = f"a run must be resumed with the data it began with, {before or 'drawn from its seed'}"
        raise ValueError(f"{wanted}, got {now or 'data drawn from a seed'}; begin another run")
    if other := other_encoding(content[checkpoint_content.KEY].get("encoding"), module.task.encoding):
        raise ValueError(f"a run must be resumed with the data it began with, got {other[0]}; begin another run")
    check_same_model(module, content["state_dict"], path)


def best_metric(run: Path) -> float | None:
    """Best value of the metric that a run monitored, or None if it has no checkpoint or was never validated."""
    path, _ = newest_checkpoint(run)
    callbacks = read(path)["callbacks"] if path is not None else {}
    return callbacks.get(CALLBACK, {}).get("best")


def load_weights(module: BPTTModule, path: Path, *, other_data: bool = False) -> None:
    """Load the weights of a checkpoint into a module, and say what other data hold that training lacked.

    ValueError if the model differs, or if the data differ and `other_data` is False.
    """
    content, task = read(path), module.task
    before, encoding = (content[checkpoint_content.KEY].get(name) for name in ("data", "encoding"))
    if not other_data:
        now = task.identity
        other, remedy = other_encoding(encoding, task.encoding) or ("", USE_CHANGED)
        if remedy == USE_CHANGED and not same_data(before, now):
            raise ValueError(f"the data must be those of training, {before}, got {now}; {remedy}")
        if other:
            raise ValueError(f"the data must be those of training, got {other}; {remedy}")
    check_same_model(module, content["state_dict"], path)
    if other_data and task.unseen:
        say(task.unseen, error=True)
    module.load_state_dict(content["state_dict"])


def check_same_model(module: LightningModule, weights: dict[str, Any], path: Path) -> None:
    """Raise ValueError if names or shapes of the weights differ from the module's."""
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
