"""An early end for the runs of a sweep that are behind the others."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning import Trainer

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

    That is the median stopping rule of Golovin et al. (2017), *Google Vizier*, with running runs among the others. The
    others are the runs of the same task in the folders beside this one, which is what a sweep makes, whatever launcher
    started them: each run keeps its scores in `validations.json`. Runs compare at equal data: of the others count those
    that have come as far as this one, with what they had scored by then.

    num_others: how many of them there must be. num_validations: how many this run has in any case.
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
        if not trainer.should_stop and any_of(behind, module.device):  # at its end, a run is complete anyway
            trainer.should_stop = True
            module.ending = Ending(RunStatus.PRUNED, "behind the median of the other runs")

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self.scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scores = dict(state_dict["scores"])


def is_behind(own: Scores, others: Sequence[Scores], *, num_others: int) -> bool:
    """True if the best score is worse than the median of the others' means up to the same timestep."""
    now = max(own)
    far = [scores for scores in others if max(scores) >= now]
    means = [statistics.fmean(score for at, score in scores.items() if at <= now) for scores in far]
    return len(means) >= num_others and min(own.values()) > statistics.median(means)


def others(run: Path, *, of: str) -> list[Scores]:
    """The scores `of` the same task and metric, in the folders beside a run's own; what cannot be read is named."""
    found: list[Scores] = []
    for folder in sorted(path for path in run.parent.iterdir() if path.name != run.name):
        path = RunFolder(folder).validations
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                scores = {int(at): float(score) for at, score in content["scores"].items()}
                found += [scores] if content["of"] == of and scores else []
            except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
                say(f"pruning passes over {path}: {' '.join(str(error).split())}")
    return found
