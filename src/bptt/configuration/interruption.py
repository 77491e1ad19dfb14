"""At most one line when a signal ends a script while it imports its parts, or ends. Scripts import this first.

Notebooks do not.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType

from bptt.configuration.signal_line import interrupted_by


def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print one line for Ctrl-C before `plain_errors` begins; Python's traceback for other exceptions."""
    if issubclass(kind, KeyboardInterrupt):
        print(interrupted_by(signal.SIGINT), file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def ignored(found: "sys.UnraisableHookArgs") -> None:
    """Print nothing for Ctrl-C while the interpreter ends."""
    if not issubclass(found.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(found)


def terminated(number: int, _: FrameType | None) -> None:
    """Print one line for a signal that nothing else handles, and let it end the process.

    A further process of a run says nothing: the command is that of the first one.
    """
    with suppress(OSError):  # a terminal that is gone
        if os.environ.get("LOCAL_RANK", "0") == "0":
            os.write(2, f"{interrupted_by(number)}\n".encode())
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    os._exit(128 + number)  # as the first process of a container, which such a signal does not end


def interrupted(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt for Ctrl-C, but end at once while a module is imported.

    Libraries in C abort at an exception in their import, and others take it for a missing part.
    """
    above = frame
    while above is not None:
        if above.f_code.co_filename == IMPORT:
            terminated(number, frame)
        above = above.f_back
    signal.default_int_handler(number, frame)


def restore() -> None:
    """Let signals end a forked child without a line: it is a part of the program, which goes on."""
    for number, (default, handler) in HANDLERS.items():
        if signal.getsignal(number) == handler:
            signal.signal(number, default)


IMPORT = "<frozen importlib._bootstrap>"  # the file of Python's own import in a traceback
Handler = Callable[[int, FrameType | None], object] | signal.Handlers
HANDLERS: dict[signal.Signals, tuple[Handler, Handler]] = {  # Python's handler, and the one that takes its place
    signal.SIGINT: (signal.default_int_handler, interrupted),
    signal.SIGTERM: (signal.SIG_DFL, terminated),
    signal.SIGHUP: (signal.SIG_DFL, terminated),
}
sys.excepthook = uncaught
sys.unraisablehook = ignored
os.register_at_fork(after_in_child=restore)
for signalled, (before, instead) in HANDLERS.items():
    with suppress(ValueError):  # outside the main thread
        if signal.getsignal(signalled) == before:  # nohup ignores SIGHUP
            signal.signal(signalled, instead)
