"""The scripts, as a user runs them: in a process of their own, or quicker in this one."""

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
import weakref
from functools import cache
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from pkgutil import walk_packages
from tempfile import mkdtemp
from types import ModuleType
from typing import NamedTuple

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton

import bptt

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


class ScriptProcess:
    """A script running in a process of its own, with the methods of `subprocess.Popen`.

    It is a fork of a server that has imported the package already, which saves several seconds of start.
    """

    def __init__(self, script: str, *words: str, cwd: Path, stdout: str = "", **environment: str):
        """stdout: a device to write to, by default a file that `communicate` reads."""
        self.args = [str(SCRIPTS / script), *words]
        folder = mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder)
        self.streams = [Path(stdout or f"{folder}/stdout"), Path(folder) / "stderr"]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self.process = fork_server().Process(target=run_script, args=(self.args, cwd, variables, self.streams))
        self.process.start()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Wait for its end. Returns stdout and stderr."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        output, errors = (path.read_text(encoding="utf-8") if path.is_file() else "" for path in self.streams)
        return output, errors


def in_a_process(script: str, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script from the folder `cwd` on one thread. The result has its exit code, stdout and stderr."""
    process = ScriptProcess(script, *words, cwd=cwd, **environment)
    try:
        output, errors = process.communicate()
    finally:
        process.kill()
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def in_a_new_interpreter(script: str, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`in_a_process` with a start of Python, for variables that it reads when it starts."""
    command = [sys.executable, str(SCRIPTS / script), *words]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=600)


def is_alive(pid: int) -> bool:
    """True if a process runs; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


@cache
def fork_server() -> ForkServerContext:
    """Server process that has imported the package. Its OpenMP has one thread."""
    context = get_context("forkserver")
    names = [name for _, name, _ in walk_packages(bptt.__path__, "bptt.")]
    names.remove("bptt.sweeps.sweeper")  # Hydra loads its base class again at every start, which must come first
    context.set_forkserver_preload(["hydra.main", *names])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        ensure_running()
    return context


def run_script(words: list[str], cwd: Path, variables: dict[str, str], streams: list[Path]) -> None:
    """Run a script as `__main__` in this process, with its output in files."""
    for descriptor, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[1:1] = [folder for folder in variables.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


def refusal(monkeypatch: pytest.MonkeyPatch, script: str, *words: str) -> str:
    """Error line of a script that must reject its arguments. Runs its `__main__` block in this process."""
    Plugins.instance()  # now, so that the resolvers that plugins register are in the state that is put back
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
