"""End of a process whose parent has died. Imports only the standard library."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARENT = "BPTT_PARENT"  # environment variable: the parent of the processes that are started with it
PR_SET_PDEATHSIG = 1  # of Linux's prctl


def announce_parent() -> None:
    """Name this process as the parent of those that it starts."""
    os.environ[PARENT] = str(os.getpid())


@contextmanager
def announced_parent() -> Iterator[None]:
    """Name this process as the parent of those that it starts inside the block."""
    before = os.environ.get(PARENT)
    announce_parent()
    try:
        yield
    finally:
        os.environ.pop(PARENT)
        if before is not None:
            os.environ[PARENT] = before


def is_announced() -> bool:
    """True in a process that an announced parent has started, and in those that it starts itself."""
    return PARENT in os.environ


def stop_with_parent() -> None:
    """Send SIGTERM to this process when its parent dies (Linux), even if the parent is killed with SIGKILL.

    If an announced parent has died already, while this process was importing, the signal comes at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    stop_if_orphaned()


def stop_if_orphaned() -> None:
    """Send SIGTERM to this process if its announced parent has died."""
    if is_orphaned():
        signal.raise_signal(signal.SIGTERM)


def is_orphaned() -> bool:
    """True if the announced parent has died."""
    parent = os.environ.get(PARENT) or str(os.getppid())
    return parent != str(os.getppid()) and has_ended(int(parent))


def has_ended(process: int) -> bool:
    """True if a process has ended. On Linux that includes a zombie, whose parent has not waited for it yet."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # of another user
        return False
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
