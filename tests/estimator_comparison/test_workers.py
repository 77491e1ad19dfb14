"""Parts in several processes stop when their caller does."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from support.script_runner import is_alive

PROGRAM = """
import os, time
from functools import partial
from pathlib import Path
from bptt.configuration.arguments import run_script
from bptt.estimator_comparison.workers import finished

def work(folder, part):
    (folder / f"{part}.begun").write_text(str(os.getpid()))
    time.sleep(600)

def main():
    for part, error in finished(partial(work, Path("parts")), range(12), jobs=2):
        print(part, error)

if __name__ == "__main__":
    run_script(main, "")
"""


def test_an_interruption_stops_running_parts_and_begins_no_others(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "program.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while sum(bool(path.read_text()) for path in parts.iterdir()) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        try:
            output, error = process.communicate(timeout=30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert (output, error) == ("", "interrupted by Ctrl-C; the same command starts again\n")
    assert process.returncode == 128 + signal.SIGINT
    assert len(list(parts.iterdir())) == 2
    assert not any(is_alive(int(path.read_text())) for path in parts.iterdir())
