"""Folders without permission, for every user: root ignores the mode bits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def without_permission(folder: Path) -> Iterator[None]:
    """Close a folder for the duration of the block. Root acts as the user `nobody` meanwhile."""
    user, mode = os.geteuid(), folder.stat().st_mode
    folder.chmod(0)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(mode)
