"""--help of every script: there at once, and with all groups."""

from pathlib import Path

import pytest
from support.script_runner import SCRIPTS, in_a_new_interpreter, in_a_process

RUNNABLE = sorted(path.name for path in SCRIPTS.glob("*.py") if 'if __name__ == "__main__"' in path.read_text())


def test_scripts_are_found() -> None:
    assert {"train.py", "evaluate.py"} <= set(RUNNABLE)


@pytest.mark.parametrize("script", RUNNABLE)
def test_help_says_how_and_does_not_wait_for_torch(script: str, tmp_path: Path) -> None:
    done = in_a_new_interpreter(script, "--help", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert f"python scripts/{script}" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pathlib" in imported, "the list of imports is there"
    assert not imported & {"torch", "lightning", "matplotlib", "torchmetrics"}
    assert list(tmp_path.iterdir()) == []


def test_help_of_training_names_groups_and_keys(tmp_path: Path) -> None:
    shown = in_a_process("train.py", "--help", cwd=tmp_path).stdout
    conf = SCRIPTS.parent / "conf"
    for group in ("task", "model", "estimator", "optimizer", "scheduler", "clipping", "initialisation", "logger"):
        choices = ", ".join(sorted(path.stem for path in (conf / group).glob("*.yaml")))
        assert f"{group}: {choices}" in shown
    for key in ("seed=", "trainer.", "hydra.run.dir="):
        assert key in shown


@pytest.mark.parametrize(("typed", "found"), [("model=ls", ["model=lstm"]), ("task=adding task.le", ["task.length="])])
def test_the_tab_key_completes_settings(typed: str, found: list[str], tmp_path: Path) -> None:
    line = f"python {SCRIPTS / 'train.py'} {typed}"
    words = ("-sc", "query=bash")
    done = in_a_process("train.py", *words, cwd=tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert done.stdout.split() == found
