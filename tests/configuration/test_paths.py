"""A run's data are found again from any folder."""

from pathlib import Path

from omegaconf import OmegaConf

from bptt.configuration.paths import with_absolute_paths


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
