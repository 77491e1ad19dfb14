"""At most one line at Ctrl-C while a script imports its parts, or ends. Scripts import this first; notebooks do not."""

import sys
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


sys.excepthook = uncaught
sys.unraisablehook = ignored
