"""Scalars in a file: `metrics.csv`, with a line step,tag,value for each. Needs no torch."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from bptt.atomic_files import replacing

NAME = "metrics.csv"
HEAD = ("step", "tag", "value")

Line = tuple[int, str, float]


def add(path: Path, lines: Iterable[Line]) -> None:
    """Write lines at the end; they are on the disk afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if not file.tell():
            writer.writerow(HEAD)
        writer.writerows(lines)


def read(path: Path) -> Iterator[Line]:
    """The lines of a file, up to where it is torn."""
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            try:
                yield int(line["step"]), line["tag"], float(line["value"])
            except (KeyError, TypeError, ValueError):
                return


def forget_after(path: Path, step: int) -> None:
    """Remove the lines beyond a step."""
    if path.exists():
        kept = [line for line in read(path) if line[0] <= step]
        with replacing(path) as partial:
            partial.unlink(missing_ok=True)  # left by a process that was killed
            add(partial, kept)
