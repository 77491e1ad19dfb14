"""Trained weights of another run to start from."""

from pathlib import Path

from bptt.contracts import refusal
from bptt.lightning import checkpoint_content
from bptt.lightning.checkpoint_files import check_same_model, read
from bptt.lightning.module import BPTTModule
from bptt.run_folder import RunFolder


def load_initial_weights(module: BPTTModule, source: Path) -> None:
    """Set the model's weights to trained ones; optimizer, counters and random numbers start as usual.

    source: a checkpoint, or the folder of a run: its best checkpoint, or its last one if it was never validated.

    ValueError if there is no checkpoint, its weights have other names or shapes, or its token ids stand for others.
    """
    run = RunFolder(source)
    candidates = [source] if source.is_file() else [run.best_checkpoint, run.last_checkpoint]
    path = next((each for each in candidates if each.is_file()), None)
    if path is None:
        raise ValueError(refusal("model.init_from", "a checkpoint, or the folder of a run that has one", str(source)))
    content = read(path)
    check_same_model(module, content["state_dict"], path)
    before, now = (
        each.get("vocabulary") for each in (content[checkpoint_content.KEY].get("encoding", {}), module.task.encoding)
    )
    if before is not None and before != now:
        raise ValueError(
            f"model.init_from must be a run with the task's vocabulary of {len(now or [])} tokens, got {path} with "
            f"{len(before)}, not all the same; use texts in which the same ones occur"
        )
    module.load_state_dict(content["state_dict"])
