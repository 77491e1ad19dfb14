"""Every task that the configuration names, in sizes that take no time."""

from pathlib import Path
from typing import Any

import composition
from hydra.utils import instantiate
from tasks.idx import write_images

from bptt.tasks import Task

CONF = Path(composition.CONF)
TASKS = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))

# What keeps a batch small, by the names that tasks use; a task takes those it has.
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
    "validation_images": 6,
}

# Long enough for 4 streams in each part, with a ragged last batch in each.
TEXT = "".join(f"{number} squared is {number**2}.\n" for number in range(200))


def small_overrides(task: str, folder: Path) -> list[str]:
    """Hydra overrides that make a task small; a text or images are written into `folder`."""
    keys = composition.compose_config([f"task={task}"]).task
    sizes = {name: size for name, size in SIZES.items() if name in keys}
    if task == "pixels":
        write_images(folder / "images", 18, 6)
        sizes["path"] = folder / "images"
    elif "path" in keys:
        text = folder / "text.txt"
        if not text.exists():  # a text in use must stay as it is
            text.write_text(TEXT)
        sizes["path"] = text
    return [f"task={task}", *(f"task.{name}={size}" for name, size in sizes.items())]


def small_task(task: str, folder: Path, *overrides: str) -> Task:
    config = composition.compose_config([*small_overrides(task, folder), *overrides])
    built: Task = instantiate(config.task, _convert_="all")
    return built
