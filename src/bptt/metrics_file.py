"""Scalars in `metrics.csv`, one line step,tag,value each. Does not import torch."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from bptt.atomic_files import replacing

HEAD = ("step", "tag", "value")

Line = tuple[int, str, float]


def add(path: Path, lines: Iterable[Line]) -> None:
    """Append lines and close the file, so that nothing stays in a buffer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if not file.tell():
            writer.writerow(HEAD)
        writer.writerows(lines)


def read(path: Path) -> Iterator[Line]:
    """The lines of a file, with its head or without, up to the first damaged one."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        try:
            for row in csv.reader(file):
                if row and tuple(row) != HEAD:
                    step, tag, value = row
                    yield int(step), tag, float(value)
        except (ValueError, csv.Error):
            return


def discard_after(path: Path, step: int) -> None:
    """Remove the lines beyond a step."""
    if path.exists():
        kept = [line for line in read(path) if line[0] <= step]
        with replacing(path) as partial:
            partial.unlink(missing_ok=True)  # left by a process that was killed
            add(partial, kept)
