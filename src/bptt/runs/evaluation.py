"""Scores of a finished run on one split."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bptt.configuration.build import build_trainer
from bptt.contracts import one_of, refusal
from bptt.runs.loading import load_run, say_how_divided, trusted_config

if TYPE_CHECKING:
    from bptt.tasks.base import Split


def evaluate(
    run: Path,
    *,
    input: Path | None = None,
    split: str = "test",
    checkpoint: str = "best",
    trust: Sequence[str] = (),
    other_data: bool = False,
) -> dict[str, float]:
    """Loss and metrics of a run's checkpoint on one split, or on another file, all of which is its test split.

    ValueError if the task has no such split, or the file no targets.
    """
    from bptt.lightning.data import TaskData
    from bptt.runs.prediction import load_for_input

    one_of(("validation", "test"), split=split)
    part: Split = "test" if split == "test" else "validation"
    if input is None:
        module = load_run(run, checkpoint=checkpoint, trust=trust, other_data=other_data)
        say_how_divided(module, run, checkpoint)
    else:
        one_of(["test"], split=split, remedy="a file of its own has no other")
        module = load_for_input(run, input, checkpoint=checkpoint, trust=trust)
    if input is not None or other_data:
        batches = (module.task.batch(part, index) for index in range(module.task.num_batches(part)))
        scored = any(sum(batch.weights()) for batch in batches)
        if not scored and (input is not None or module.task.num_batches(part)):
            remedy = "use predict.py for one without"
            if input is None:
                raise ValueError(f"the changed data must have targets, got none in the {split} part; {remedy}")
            raise ValueError(refusal("input", "a file with targets", str(input), remedy))
    if not module.task.num_batches(part):
        other = "validation" if split == "test" else "test"
        raise ValueError(f"split must be one that the task has, got {split}, which is empty; use split={other}")
    config = trusted_config(run, trust=trust)
    config.callbacks, config.regulariser = {}, {"_target_": None}
    # The run may have been trained on another machine, with other devices.
    this_machine: dict[str, Any] = {"accelerator": "auto", "devices": 1, "num_nodes": 1, "strategy": "auto"}
    trainer = build_trainer(config, run, logger=False, enable_progress_bar=False, **this_machine)
    action = trainer.test if split == "test" else trainer.validate
    action(module, datamodule=TaskData(module), verbose=False)
    if not trainer.callback_metrics:
        limit = f"trainer.limit_{'test' if split == 'test' else 'val'}_batches"
        raise ValueError(refusal("split", f"one of which the run scores batches ({limit})", split))
    return {name: float(score) for name, score in trainer.callback_metrics.items()}
