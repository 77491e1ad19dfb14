"""Early stopping of the runs of a sweep that score worse than the others."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning import LightningModule, Trainer

from bptt.atomic_files import replace_text
from bptt.contracts import at_least, one_of
from bptt.lightning.callbacks.base import TrainingCallback, monitored, run_folder
from bptt.lightning.module import BPTTModule, Ending
from bptt.lightning.processes import any_of
from bptt.lightning.terminal import say
from bptt.run_folder import RunFolder, RunStatus

Scores = Mapping[int, float]  # by the timesteps that each sequence stream has advanced; smaller is better


class Pruning(TrainingCallback):
    """Stops a run whose best score so far is worse than the median of the others' mean scores so far.

    This is the median stopping rule of Golovin et al. (2017), *Google Vizier*, with running runs among the others.

    The other runs are those of the same task and metric in the sibling folders of this run's folder. A sweep creates
    such folders with any launcher. Each run writes its scores to `validations.json`. Runs are compared at the same
    number of timesteps: other runs count only if they have reached it, with their scores up to there.

    num_others: smallest number of such runs for which the rule applies. num_validations: smallest number of validations
    of this run.
    """

    def __init__(
        self,
        monitor: str = "validation/loss",
        mode: Literal["min", "max"] = "min",
        *,
        num_others: int = 4,
        num_validations: int = 2,
    ):
        one_of(("min", "max"), mode=mode)
        at_least(1, num_others=num_others, num_validations=num_validations)
        self.monitor = monitor
        self.mode = mode
        self.num_others = num_others
        self.num_validations = num_validations
        self.scores: dict[int, float] = {}
        self.pruned = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.pruned:  # it was killed after its last checkpoint, or is to become longer
            assert isinstance(pl_module, BPTTModule)
            self.stop(trainer, pl_module)
            if trainer.is_global_zero and trainer.fit_loop._can_stop_early:  # not before min_epochs
                say("the run had been pruned: it does not become longer")

    def after_validation(self, trainer: Trainer, module: BPTTModule) -> None:
        value = monitored(trainer, self.monitor)
        self.scores[module.step_axis] = math.inf if math.isnan(value) else value if self.mode == "min" else -value
        behind = False
        if trainer.is_global_zero:
            folder, of = run_folder(trainer), f"{type(module.task).__name__}: {self.monitor}"
            replace_text(folder.validations, json.dumps({"of": of, "scores": self.scores}))
            behind = len(self.scores) >= self.num_validations and is_behind(
                self.scores, others(folder.path, of=of), num_others=self.num_others
            )
        if not trainer.should_stop and any_of(behind, module.device):  # should_stop: the run is complete anyway
            self.stop(trainer, module)

    def stop(self, trainer: Trainer, module: BPTTModule) -> None:
        self.pruned = trainer.should_stop = True
        module.ending = Ending(RunStatus.PRUNED, "behind the median of the other runs")

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self.scores, "pruned": self.pruned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scores, self.pruned = dict(state_dict["scores"]), state_dict.get("pruned", False)


def is_behind(own: Scores, others: Sequence[Scores], *, num_others: int) -> bool:
    """True if the best score is worse than the median of the other runs' mean scores up to the same timestep."""
    now = max(own)
    far = [scores for scores in others if max(scores) >= now]
    means = [statistics.fmean(score for at, score in scores.items() if at <= now) for scores in far]
    return len(means) >= num_others and min(own.values()) > statistics.median(means)


def others(run: Path, *, of: str) -> list[Scores]:
    """Scores `of` the same task and metric in the sibling folders of a run. Prints a line for each unreadable file."""
    found: list[Scores] = []
    for folder in sorted(path for path in run.parent.iterdir() if path.name != run.name):
        path = RunFolder(folder).validations
        try:
            if path.is_file():
                content = json.loads(path.read_text(encoding="utf-8"))
                scores = {int(at): float(score) for at, score in content["scores"].items()}
                found += [scores] if content["of"] == of and scores else []
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, OSError) as error:
            say(f"pruning ignores {path}: {' '.join(str(error).split())}")
    return found
