"""At most one line when a signal ends a script while it imports its parts, or ends. Scripts import this first.

Notebooks do not.
"""

import os
import signal
import sys
from contextlib import suppress
from types import TracebackType


def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print one line for Ctrl-C before `plain_errors` begins; Python's traceback for other exceptions."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted by Ctrl-C; the same command starts again", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def ignored(found: "sys.UnraisableHookArgs") -> None:
    """Print nothing for Ctrl-C while the interpreter ends."""
    if not issubclass(found.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(found)


def terminated(number: int, _: object) -> None:
    """Print one line for a signal that nothing else handles, and let it end the process."""
    with suppress(OSError):  # a terminal that is gone
        os.write(2, f"interrupted by {signal.Signals(number).name}; the same command starts again\n".encode())
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    os._exit(128 + number)  # as the first process of a container, which such a signal does not end


def restore() -> None:
    """Let signals end a forked child without a line: it is a part of the program, which goes on."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == terminated:
            signal.signal(number, signal.SIG_DFL)


sys.excepthook = uncaught
sys.unraisablehook = ignored
os.register_at_fork(after_in_child=restore)
for each in (signal.SIGTERM, signal.SIGHUP):
    with suppress(ValueError):  # outside the main thread
        if signal.getsignal(each) == signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(each, terminated)
