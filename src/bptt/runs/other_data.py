"""Comparison of the data on which runs were scored."""

from collections.abc import Sequence

from bptt.runs.groups import differing
from bptt.runs.reading import Run

SAME_DATA = ("task.batch_size", "task.train_batches", "task.train_steps", "task.inputs", "task.calendar")


def of_other_data(runs: Sequence[Run]) -> list[str]:
    """Settings in which runs of one task differ, without those that leave the scored data as they are.

    If there are none: the path of data that have changed from run to run.
    """
    tasks = dict.fromkeys(run.settings.get("task") for run in runs)
    alike = ([run for run in runs if run.settings.get("task") == task] for task in tasks)
    keys = dict.fromkeys(key for same_task in alike for key in differing(same_task))
    found = [key for key in keys if key.startswith("task.") and key not in SAME_DATA]
    if found:
        return found
    contents: dict[str, set[str]] = {}  # by the settings of which they are a function beside the file
    for run in runs:
        if run.data:
            read = [run.settings.get(key) for key in ("task", "task.inputs", "task.calendar")]
            contents.setdefault(str(read), set()).add(run.data)
    return ["the contents of task.path"] if any(len(each) > 1 for each in contents.values()) else []
