"""Files named relative to a folder, in a run that may be resumed from another one."""

from pathlib import Path

import pytest

from bptt.runs.resumed_command import absolute_paths


def test_files_of_a_task_are_named_by_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it's a log.csv").touch()
    (tmp_path / "test.txt").touch()
    words = ["task=text", "task.path=it's a log.csv", "task.test_path=test.txt"]
    log = str(tmp_path / "it's a log.csv").replace("'", "\\'")
    assert absolute_paths(words) == ["task=text", f"task.path='{log}'", f"task.test_path='{tmp_path}/test.txt'"]
    others = ["task.path=null", "task.path=/dev/null", "task.path=~/x", "task.path=nosuch", "task.inputs=test.txt"]
    assert absolute_paths(others) == others
    assert absolute_paths([f"task.path={tmp_path}/it's a log.csv"]) == [f"task.path='{log}'"]
    assert absolute_paths([*words, "-m"]) == [*words, "-m"]
