"""Score a finished run: python scripts/evaluate.py run=FOLDER [split=test] [checkpoint=best]"""

from pathlib import Path
from typing import Any

from composition import build_trainer, load_config, load_run, no_overrides, run_folder, run_script, script_arguments


def evaluate(run: Path, *, split: str = "test", checkpoint: str = "best") -> dict[str, float]:
    """Loss and metrics of a run's checkpoint on one split."""
    from bptt.contracts import one_of
    from bptt.lightning.data import TaskData

    one_of(("validation", "test"), split=split)
    module = load_run(run, checkpoint=checkpoint)
    if not module.task.num_batches("test" if split == "test" else "validation"):
        other = "validation" if split == "test" else "test"
        raise ValueError(f"split must be one that the task has, got {split}, which is empty; use split={other}")
    config = load_config(run)
    config.callbacks, config.regulariser = {}, {"_target_": None}  # nobody watches
    # On this machine, wherever the run was trained.
    here: dict[str, Any] = {"accelerator": "auto", "devices": 1, "num_nodes": 1, "strategy": "auto"}
    trainer = build_trainer(config, run, logger=False, enable_progress_bar=False, **here)
    action = trainer.test if split == "test" else trainer.validate
    action(module, datamodule=TaskData(module), verbose=False)
    return {name: float(score) for name, score in trainer.callback_metrics.items()}


def main() -> None:
    arguments, overrides = script_arguments({"run": None, "split": "test", "checkpoint": "best"})
    no_overrides(overrides)
    for name, score in evaluate(run_folder(arguments.pop("run")), **arguments).items():
        print(f"{name} {score:.6g}")


if __name__ == "__main__":
    run_script(main, __doc__)
