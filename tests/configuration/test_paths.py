"""A run's data are found again from any folder."""

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from bptt.configuration.arguments import RUN, chosen_run
from bptt.configuration.paths import with_absolute_paths
from bptt.runs.reading import read_run


def test_relative_paths_of_the_task_become_absolute(tmp_path: Path) -> None:
    config = OmegaConf.create(
        {
            "task": {"path": "a/b.txt", "test_path": str(tmp_path / "c"), "validation_path": None, "unit": "byte"},
            "other": {"path": "stays"},
        }
    )
    found = with_absolute_paths(config, tmp_path)
    assert found.task == {
        "path": str(tmp_path / "a" / "b.txt"),
        "test_path": str(tmp_path / "c"),
        "validation_path": None,
        "unit": "byte",
    }
    assert found.other.path == "stays"
    assert config.task.path == "a/b.txt", "the given configuration stays as it is"


def test_home_is_expanded(tmp_path: Path) -> None:
    found = with_absolute_paths(OmegaConf.create({"task": {"path": "~/text"}}), tmp_path)
    assert found.task.path == str(Path.home() / "text")


def test_a_configuration_without_a_task(tmp_path: Path) -> None:
    assert with_absolute_paths(OmegaConf.create({"task": {"_target_": "a.b"}}), tmp_path) == {
        "task": {"_target_": "a.b"}
    }


def test_the_name_of_a_run_is_utf8(tmp_path: Path) -> None:
    """Figures, tables and pages could not hold it; a comparison passes over the run."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/run\xff"))
    with pytest.raises(ValueError, match=r"run must be a path in UTF-8, got '.*/run�'; rename it"):
        chosen_run({**RUN, "run": str(folder)}, [])
    with pytest.raises(ValueError, match="its folder must be a path in UTF-8"):
        read_run(folder, metric="validation/loss")
