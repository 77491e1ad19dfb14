"""Runs as processes: signals stop them all, whenever they arrive."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bptt.reproduction import processes

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def test_a_signal_stops_a_run_that_is_just_being_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers are put back, so that Ctrl-C works while results are collected."""
    started: list[subprocess.Popen[Any]] = []

    def start(*_: Any, **__: Any) -> subprocess.Popen[Any]:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[-1]

    monkeypatch.setattr(processes, "start", start)
    before, began = [signal.getsignal(number) for number in NUMBERS], time.monotonic()
    folders = [tmp_path / f"seed_{seed}" for seed in (1, 2)]
    unfinished = processes.run_all({folder: ["train.py"] for folder in folders}, jobs=1)
    assert sorted(unfinished) == folders
    assert time.monotonic() - began < 30
    assert [process.returncode for process in started] == [-signal.SIGTERM]
    assert [signal.getsignal(number) for number in NUMBERS] == before
