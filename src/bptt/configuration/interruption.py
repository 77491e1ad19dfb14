"""One line at Ctrl-C while a script still imports its parts. Scripts import this module first; notebooks do not."""

import sys
from types import TracebackType


def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print one line for Ctrl-C before `plain_errors` begins; Python's traceback for other exceptions."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted by Ctrl-C; the same command starts again", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = uncaught
