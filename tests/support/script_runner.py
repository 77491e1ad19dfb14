"""The scripts, as a user runs them: in a process of their own, or quicker in this one."""

import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
TESTS = Path(__file__).resolve().parents[1]


class FinishedRun(NamedTuple):
    """A small run that all tests may look at."""

    folder: Path
    words: tuple[str, ...]  # of its command line
    output: str


def program(name: str) -> ModuleType:
    """A script as a module, for tests of its functions."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_a_process(script: str, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script run from the folder `cwd`, on one thread; the result has its exit code, stdout and stderr."""
    command = [sys.executable, str(SCRIPTS / script), *words]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=600)


def refusal(monkeypatch: pytest.MonkeyPatch, script: str, *words: str) -> str:
    """What a script that must refuse its arguments says on its way out. Runs `__main__` itself, but in this process."""
    state = Singleton.get_state()
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # the script sets it; put back afterwards
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / script), *words])
    try:
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    finally:
        GlobalHydra.instance().clear()
        Singleton.set_state(state)
    # A string is what Python prints on stderr, with exit code 1.
    assert isinstance(left.value.code, str)
    return left.value.code
