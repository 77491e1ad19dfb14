"""A file that cannot be written whole is not written: the former one stays, and the error names it."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from bptt import figures
from bptt.atomic_files import replace_csv, replace_text


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Files of this process may have so many bytes, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ["text", "csv", "figure"])
def test_too_little_room(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file.png"
    path.write_text("former", encoding="utf-8")

    def write() -> None:
        if kind == "text":
            replace_text(path, "x" * 1000)
        elif kind == "csv":
            replace_csv(path, [["x" * 1000]])
        else:
            figures.save(Figure(), path)

    with room_for(500), pytest.raises(OSError, match=r"File too large: '.*/file\.png'"):
        write()
    assert path.read_text(encoding="utf-8") == "former"
    assert [each.name for each in tmp_path.iterdir()] == ["file.png"]
    write()
    assert path.stat().st_size > 500
