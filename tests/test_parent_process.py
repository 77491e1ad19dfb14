"""A process ends if its announced parent has died, and only then."""

import os
import signal
import subprocess
import sys

import pytest

from bptt.parent_process import PARENT, has_ended

COMMAND = [sys.executable, "-c", "from bptt.parent_process import stop_with_parent; stop_with_parent()"]


def exit_code(parent: int) -> int:
    return subprocess.run(COMMAND, env={**os.environ, PARENT: str(parent)}, timeout=60, check=False).returncode


def test_the_announced_parent_lives() -> None:
    """It may be the direct parent or, with torchrun in between, a process above it."""
    assert exit_code(os.getpid()) == 0
    assert exit_code(os.getppid()) == 0


@pytest.mark.parametrize("waited_for", [True, False])
def test_the_announced_parent_has_died(waited_for: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()  # until it ends
        if waited_for:
            process.wait()
        while not has_ended(process.pid):
            pass
        assert exit_code(process.pid) == -signal.SIGTERM
