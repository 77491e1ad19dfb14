"""The scripts in a terminal, as a person runs them."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from support.script_runner import SCRIPTS, fork_server, run_script

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class PseudoTerminal:
    """A script whose input and output are a terminal of 24 lines.

    screen: everything that was printed, without control sequences.
    """

    def __init__(self, script: str, *words: str, cwd: Path, columns: int = 80):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            variables.pop(name, None)
        arguments = ([str(SCRIPTS / script), *words], cwd, variables, os.ttyname(slave))
        self.process = fork_server().Process(target=run_in_terminal, args=arguments)
        self.process.start()
        self.slave = slave  # stays open: what the script prints last can then be read after its end
        self.printed = b""

    @property
    def screen(self) -> str:
        return CONTROL.sub("", self.printed.decode("utf-8", errors="replace")).replace("\r\n", "\n")

    def lines(self) -> list[str]:
        """Printed lines; a line that is drawn again counts each time."""
        return re.split(r"[\r\n]+", self.screen)

    def press(self, key: str) -> None:
        os.write(self.master, key.encode())

    def hang_up(self) -> None:
        """Close the terminal, as a lost connection does."""
        os.close(self.master)
        self.master = -1

    def read_until(self, text: str, *, patience: float = 240) -> None:
        """Read until `text` was printed."""
        self._read(lambda: text in self.screen, patience)

    def read_to_end(self, *, patience: float = 240) -> int | None:
        """Read until the script has ended. Returns its exit code."""
        self._read(lambda: self.process.exitcode is not None, patience)
        return self.process.exitcode

    def close(self) -> None:
        self.process.kill()
        if self.master >= 0:
            os.close(self.master)
        os.close(self.slave)

    def _read(self, done: Callable[[], bool], patience: float) -> None:
        if self.master >= 0:
            os.set_blocking(self.master, False)
        deadline = time.monotonic() + patience
        while True:
            finished = done()
            try:
                while self.master >= 0 and (part := os.read(self.master, 65536)):
                    self.printed += part
            except BlockingIOError:
                pass
            if finished:
                return
            assert time.monotonic() < deadline, self.screen[-2000:]
            time.sleep(0.05)


def run_in_terminal(words: list[str], cwd: Path, variables: dict[str, str], terminal: str) -> None:
    os.setsid()
    descriptor = os.open(terminal, os.O_RDWR)  # the first that a new session opens: it sends Ctrl-C
    for standard in range(3):
        os.dup2(descriptor, standard)
    # The server's own were made for files, which have a position.
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(standard, mode, encoding="utf-8", closefd=False) for standard, mode in enumerate(("r", "w", "w"))
    )
    run_script(words, cwd, variables, [])
