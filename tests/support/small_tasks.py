"""Every task that the configuration names, in sizes that take no time."""

from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate

from bptt.configuration.build import without
from bptt.configuration.compose import CONF, compose_config
from bptt.tasks import Task

TASKS = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))

# What keeps a batch small, by the names that tasks use; a task takes those it has, and what its `example` says.
SIZES: dict[str, Any] = {
    "length": 12,
    "delay": 5,
    "batch_size": 4,
    "train_batches": 3,
    "validation_batches": 2,
    "test_batches": 2,
    "train_steps": 36,
    "validation_steps": 24,
    "test_steps": 24,
    "size": 8,
}


def small_overrides(task: str, folder: Path) -> list[str]:
    """Hydra overrides that make a task small; the files of its example are written into `folder`."""
    section = compose_config([f"task={task}"]).task
    sizes = {name: size for name, size in SIZES.items() if name in section}
    files = folder / task
    files.mkdir(exist_ok=True)
    task_class: Any = get_class(section._target_)
    sizes |= task_class.example(files)
    return [f"task={task}", *(f"task.{name}={size}" for name, size in sizes.items())]


def small_task(task: str, folder: Path, *overrides: str) -> Task:
    config = compose_config([*small_overrides(task, folder), *overrides])
    instance: Task = instantiate(without(config.task, "reduction"), _convert_="all")
    return instance
