"""The place of a run folder, at which another run may be once the folder is moved."""

from pathlib import Path


class FolderPlace:
    """A folder that must stay where it is while a run writes into it. The lock moves with the folder.

    A folder that does not exist yet is not looked at.
    """

    def __init__(self, path: Path):
        self.path = path
        self._inode = inode(path)

    def check(self) -> None:
        """FileNotFoundError if the folder was moved or replaced."""
        if self._inode is not None and inode(self.path) != self._inode:
            got = f"{self.path} moved or replaced"
            raise FileNotFoundError(f"a run folder must stay where it is during training, got {got}")


def inode(path: Path) -> tuple[int, int] | None:
    """Device and inode of a folder; None if it does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
