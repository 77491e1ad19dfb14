"""What a run folder tells without being run again: configuration, summary and curves. Needs no torch."""

import json
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from choices import choices, resolved
from composition import load_config, one_line
from resumption import is_locked

from bptt import metrics_file
from bptt.contracts import refusal

Points = dict[int, float]  # a curve: value by step

# Curves that are read beside the metric of a comparison; the others are passed over.
CURVES = r"gradient_flow/layer\d+/(?:lag_\d+|horizon)|truncation_bias/relative"
RESUMED = ""  # in place of a tag: what was written at this step and beyond is no longer true


class Run(NamedTuple):
    """One run, finished or not.

    choices: of its configuration, by key. metrics: the last ones; None where they are not finite. curves: by tag.
    """

    folder: Path
    choices: Mapping[str, Any]
    status: str
    metrics: Mapping[str, float | None]
    wall_seconds: float | None = None
    error: str | None = None
    curves: Mapping[str, Points] = {}

    @property
    def seed(self) -> Any:
        return self.choices.get("seed")


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """All run folders at and below the given ones, each once, in the order of their paths."""
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(refusal("FOLDER", "a folder with runs in it", str(folder), "no such folder is there"))
        for name, inside, files in os.walk(folder):
            if ".hydra" in inside or "summary.json" in files:
                found.setdefault(Path(name).resolve(), Path(name))
                inside.clear()
    return sorted(found.values(), key=natural)


def natural(path: Path) -> list[Any]:
    """Job 2 of a sweep comes before job 10."""
    return [[int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)] for name in path.parts]


def read_run(folder: Path, *, metric: str) -> Run:
    """A run with the curves of `metric` and of `CURVES`; ValueError where its configuration or summary is broken."""
    summary = read_summary(folder / "summary.json")
    try:
        config = resolved(load_config(folder))
    except Exception as error:  # YAML's, OmegaConf's or the disk's own
        raise ValueError(f".hydra/config.yaml cannot be read: {one_line(error)}") from error
    return Run(
        folder=folder,
        choices=choices(config),
        status="interrupted" if summary["status"] == "running" and not is_locked(folder) else summary["status"],
        metrics={name: finite(value) for name, value in summary["metrics"].items()},
        wall_seconds=finite(summary.get("wall_seconds")),
        error=summary.get("error"),
        curves=read_curves(folder, wanted=re.compile(f"(?:{re.escape(metric)}|{CURVES})")),
    )


def read_summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError("it has no summary.json") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"summary.json cannot be read: {one_line(error)}") from error
    if not (isinstance(summary, dict) and "status" in summary and isinstance(summary.get("metrics"), dict)):
        raise ValueError("summary.json has no status and metrics")
    return summary


def finite(value: Any) -> float | None:
    """A number that is one, or None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def read_curves(folder: Path, *, wanted: re.Pattern[str]) -> dict[str, Points]:
    """The wanted scalars of a run's TensorBoard files, or where it has none of its CSV file; finite values only.

    Where a run was resumed, what it had written beyond its checkpoint is forgotten, as TensorBoard does.
    """
    curves: dict[str, Points] = {}
    parts = [event_scalars(path) for path in sorted(folder.glob("events.out.tfevents.*"))]
    if not parts and (folder / metrics_file.NAME).is_file():
        parts = [((tag, step, value) for step, tag, value in metrics_file.read(folder / metrics_file.NAME))]
    for tag, step, value in chain.from_iterable(parts):
        if tag == RESUMED:
            curves = {tag: {place: points[place] for place in points if place < step} for tag, points in curves.items()}
        elif wanted.fullmatch(tag) and math.isfinite(value):
            curves.setdefault(tag, {})[step] = value
    return curves


def event_scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of every scalar in an event file, up to where it is torn; the tag `RESUMED` where it goes on.

    A record is its length in 8 bytes, 4 of a checksum, the event, and 4 of a checksum. TensorBoard's own reader checks
    the sums in Python and unpacks every picture, which takes a hundred times longer.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    content = path.read_bytes()
    start = 0
    while start + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        start, stop = start + 12, start + 12 + length
        if stop + 4 > len(content):
            return
        try:
            event = Event.FromString(content[start:stop])
        except DecodeError:
            return
        start = stop + 4
        if event.session_log.status == SessionLog.START:
            yield RESUMED, event.step, 0.0
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield value.tag, event.step, value.simple_value
