"""Configuration, summary and curves of a run, read from its folder. Does not import torch."""

import math
import os
import re
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from bptt import metrics_file
from bptt.configuration.containers import resolved
from bptt.configuration.environment import REFERENCE, without_environment
from bptt.configuration.errors import one_line
from bptt.configuration.flat_settings import flat_settings
from bptt.configuration.paths import check_encoding
from bptt.contracts import refusal
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.hydra_files import environment_of
from bptt.runs.loading import load_config

Points = dict[int, float]  # a curve: value by step

# Curves that are read in addition to the metric of a comparison.
CURVES = r"gradient_flow/layer\d+/(?:lag_\d+|horizon)|truncation_bias/relative"
RESUMED = ""  # instead of a tag: the run was resumed at this step, and earlier points from this step on are void

LONGEST_EVENT = 1 << 28  # bytes; a longer or empty record means that the file is damaged
LARGEST = 1.7e308  # integers of JSON may be larger than any float


class Run(NamedTuple):
    """One run, finished or not.

    settings: flat settings of its configuration. metrics: the last ones; None if not finite. curves: points by tag.
    environment: fingerprints of the settings that have values from the environment. data: `Task.identity`; empty for
    data that the settings determine, and for runs of earlier versions.
    """

    folder: Path
    settings: Mapping[str, Any]
    status: RunStatus
    metrics: Mapping[str, float | None]
    wall_seconds: float | None = None
    error: str | None = None
    curves: Mapping[str, Points] = {}
    environment: Mapping[str, str] = {}
    data: str = ""

    @property
    def seed(self) -> Any:
        return self.settings.get("seed")

    @property
    def draw(self) -> Any:
        """Equal for repetitions of a run: settings with values from the environment, or its folder without these."""
        settings = frozenset(self.settings.items())
        if not REFERENCE.search(str(self.settings)):
            return settings
        return settings, frozenset(self.environment.items()) or self.folder


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """All run folders at and below the given ones, each once, in the order of their paths; links are followed.

    Prints a line to stderr for each folder that cannot be read.
    """

    def skip(error: OSError) -> None:
        print(f"skipped {error.filename}: {error.strerror}", file=sys.stderr)

    by_target: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            remedy = "it is a file" if folder.exists() else "no such folder exists"
            raise ValueError(refusal("FOLDER", "a folder with runs in it", str(folder), remedy))
        seen = set()
        for name, subfolders, files in os.walk(folder, onerror=skip, followlinks=True):
            path = Path(name)
            if path.resolve() in seen:  # a link to a folder above
                subfolders.clear()
                continue
            seen.add(path.resolve())
            run = RunFolder(path)
            if run.settings.name in subfolders or run.summary.name in files:
                by_target.setdefault(path.resolve(), path)
                subfolders.clear()
    return sorted(by_target.values(), key=natural_order)


def natural_order(path: Path) -> list[Any]:
    """Sort key that puts job 2 of a sweep before job 10."""
    return [[int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)] for name in path.parts]


def read_run(folder: Path, *, metric: str) -> Run:
    """A run with the curves of `metric` and of `CURVES`; ValueError if its configuration or summary cannot be read."""
    check_encoding("its folder", folder)
    run = RunFolder(folder)
    summary = run.read_summary()
    try:
        config = resolved(without_environment(load_config(folder)))
    except Exception as error:  # YAML, OmegaConf or the disk raised it
        raise ValueError(f".hydra/{run.config.name} cannot be read: {one_line(error)}") from error
    return Run(
        folder=folder,
        settings=flat_settings(config),
        status=run.status,
        metrics={name: finite(value) for name, value in summary["metrics"].items()},
        wall_seconds=finite(summary.get("wall_seconds")),
        error=str(summary["error"]) if summary.get("error") else None,
        curves=read_curves(folder, wanted=re.compile(f"(?:{re.escape(metric)}|{CURVES})")),
        environment=environment_of(folder),
        data=str(summary.get("data", "")),
    )


def finite(value: Any) -> float | None:
    """A finite number as a float, or None."""
    return float(value) if isinstance(value, int | float) and abs(value) <= LARGEST else None


def read_curves(folder: Path, *, wanted: re.Pattern[str]) -> dict[str, Points]:
    """The wanted scalars of a run's TensorBoard files and of its CSV file; finite values only.

    A run that was resumed with another logger has a part of its points in each. Points beyond the checkpoint from
    which a run was resumed are dropped, as in TensorBoard. Prints a line to stderr for event files that are no regular
    files: reading a pipe would wait for ever.
    """
    curves: dict[str, Points] = {}
    run = RunFolder(folder)
    odd = [path for path in run.events if not path.is_file()]
    for path in odd:
        print(f"skipped {path}: it is no regular file", file=sys.stderr)
    for tag, step, value in chain.from_iterable(event_scalars(path) for path in run.events if path not in odd):
        if tag == RESUMED:
            curves = {tag: {x: points[x] for x in points if x < step} for tag, points in curves.items()}
        elif wanted.fullmatch(tag) and math.isfinite(value):
            curves.setdefault(tag, {})[step] = value
    lines = metrics_file.read(run.metrics) if run.metrics.is_file() else ()
    for step, tag, value in lines:
        if wanted.fullmatch(tag) and math.isfinite(value):
            curves.setdefault(tag, {}).setdefault(step, value)
    return curves


def event_scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of every scalar in an event file, up to the first damaged record; `RESUMED` at a resumption.

    A record consists of its length (8 bytes), a checksum (4), the event, and a checksum (4). TensorBoard's own reader
    verifies the checksums in Python and decodes every image, which takes a hundred times longer.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            (length,) = struct.unpack_from("<Q", head)
            if not 0 < length <= LONGEST_EVENT or len(content := file.read(length + 4)) < length + 4:
                return
            try:
                event = Event.FromString(content[:length])
            except DecodeError:
                return
            if event.session_log.status == SessionLog.START:
                yield RESUMED, event.step, 0.0
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    yield value.tag, event.step, value.simple_value
