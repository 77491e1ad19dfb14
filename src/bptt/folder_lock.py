"""Locks of folders, which end with the process that holds them."""

import fcntl


class FolderInUseError(ValueError):
    """Another process holds the lock of a folder."""


def take_lock(handle: int, kind: int) -> bool:
    """False if another process holds a lock of the open folder that excludes this kind."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
