"""A user's file as one or several series of rows of numbers."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from bptt.contracts import one_of, refusal
from bptt.tasks import tables
from bptt.tasks.calendar_features import FEATURES, calendar_features, in_universal_time, require_zone
from bptt.tasks.encoded_columns import encode
from bptt.tasks.files import CONVERSIONS, uncompressed_text
from bptt.tasks.missing_values import Missing, RowsWithGaps, hint
from bptt.tasks.row_segments import by_series, episodes
from bptt.tasks.rows import SOUNDS, ArrayRows, Rows, SoundRows, WithEmptyColumns, open_array
from bptt.tasks.time_stamps import (
    check_order,
    row_numbers,
    temporal,
    time_stamps,
    units_of_clock,
    units_since_1970,
    whole_number_dates,
)

Result = TypeVar("Result")


class SeriesFile(NamedTuple):
    """A file as rows of numbers.

    rows: with C columns, series after series. segments: first and last + 1 row of each series. names: of the C columns.
    groups: for each column of the file, its indices in C. categories: of columns of texts. numbers: row of the file for
    each row, from 0. labels: columns that identify the rows: series and time. hint: what to set if some numbers seem
    to mean no value, and which other times are left out. unseen: texts that the training part lacks. calendar: names of
    columns that are not in the file. time_form: form of the time stamps if they are texts. zoned: whether the time of
    the calendar is UTC; None for dates alone, or without one. rate: of a sound, samples a second.
    """

    rows: Rows
    segments: list[tuple[int, int]]
    names: list[str]
    groups: dict[str, list[int]]
    categories: dict[str, list[str]]
    numbers: NDArray[np.int64] | None = None
    labels: Mapping[str, Any] = {}
    hint: str = ""
    unseen: str = ""
    calendar: Sequence[str] = ()
    time_form: str | None = None
    zoned: bool | None = None
    rate: int | None = None


def read_series(
    path: Path,
    inputs: Sequence[str] | None,
    targets: Sequence[str] | None,
    *,
    left_out: Sequence[str],
    time: str | None,
    series: str | None,
    reset_at: str | None,
    reset_after: str | None,
    calendar: bool,
    train_fraction: float,
    encoding: Mapping[str, Any] | None,
    max_categories: int,
    missing: Missing,
) -> SeriesFile:
    """Read a file; the parameters are those of `bptt.tasks.series.Series`.

    Categories are those of the first `train_fraction` of each series, or of `encoding`.
    """
    suffix = path.suffix.lower()
    known = (*tables.TABLES, ".npy", ".npz", *SOUNDS)
    if suffix in (".gz", ".bz2", ".xz", ".zst", ".zip") and path.is_file():
        uncompressed_text(path, "a table, an array or a sound")
    if path.is_dir():
        remedy = "it is a folder; a folder with one file per sequence is for task=sequences"
        raise ValueError(refusal("task.path", f"a file {' '.join(known)}", str(path), remedy))
    remedy = "sequences in .ts files are for task=sequences" if suffix == ".ts" else CONVERSIONS.get(suffix, "")
    one_of(known, remedy=remedy, **{"the ending of task.path": suffix or str(path)})
    wanted = {"inputs": inputs or [], "targets": targets or [], "leave_out": [] if encoding else left_out}
    # A file to predict may lack what is to be predicted, unless it is predicted from its own past.
    predicted = [name for name in targets or [] if encoding and name not in (inputs or [])]
    if suffix not in tables.TABLES:
        if any((time, series, reset_at, reset_after, calendar)):
            keys = "task.time, task.series, task.reset_at, task.reset_after and task.calendar"
            raise ValueError(f"{keys} are for tables {' '.join(tables.TABLES)}")
        rows, names = open_array(path)
        absent = [name for name in predicted if name not in names]
        rate = rows.rate if isinstance(rows, SoundRows) else None
        rows, names = WithEmptyColumns(rows, len(absent)), [*names, *absent]
        for key, chosen in wanted.items():
            tables.require_columns(names, chosen, key=f"task.{key}")
        groups = {name: [index] for index, name in enumerate(names) if name not in left_out}
        return SeriesFile(RowsWithGaps(rows, missing), [(0, rows.num_rows)], names, groups, {}, rate=rate)

    recorded = encoding.get("time") if encoding else None  # None in early checkpoints, as is the form
    form = encoding.get("time_form") if encoding else None
    forms = {} if recorded is None or form is None else {recorded: form}
    frame = tables.read_table(path, missing, names=series, forms=forms)
    frame = tables.with_empty_columns(frame, predicted)
    single = {"time": time, "series": series, "reset_at": reset_at, "reset_after": reset_after}
    for key, chosen in (*wanted.items(), *((key, [name]) for key, name in single.items() if name is not None)):
        tables.require_columns([*frame.columns, *(FEATURES if calendar else ())], chosen, key=f"task.{key}")
    order, segments = by_series(frame, series)
    marks = reset_at if reset_after is None else reset_after
    if marks is not None:
        segments = episodes(frame[marks], last=reset_after is not None)
    frame = frame[order]
    named = {*left_out, *(inputs or []), *(targets or []), series, marks}
    counters = [name for name in row_numbers(frame, segments) if name not in named]
    frame = missing.absent_in(frame, kept=[*single.values(), *counters])
    dates = [name for name in (*temporal(frame), *whole_number_dates(frame)) if name not in named]
    if time is None and recorded in frame.columns:  # also if its rows are not in order, which is refused
        is_time = recorded in (*dates, *counters) or units_since_1970(frame[recorded])
        time = recorded if is_time else None
    elif time is None and (recorded is not None or "time" not in (encoding or {})):
        clocks = [name for name in counters if not calendar or units_of_clock(frame[name])]
        time = next(iter([*dates, *clocks]), None)
    labels: dict[str, Any] = {} if series is None else {series: frame[series].to_list()}
    features: dict[str, NDArray[np.float64]] = {}
    zoned = None
    if time is not None:
        stamps = in_order_of_file(lambda rows, _: time_stamps(rows, str(time)), frame, None, order)
        check_order(stamps, segments, order)
        labels[time] = stamps
        if calendar:
            zoned = in_universal_time(stamps)
            require_zone(time, zoned, (encoding or {}).get("zoned"))
            features = calendar_features(stamps, inputs if encoding else None)
            for name in features:
                if name in frame.columns and name not in left_out and not encoding:
                    raise ValueError(refusal("columns beside task.calendar", "called otherwise", name, "rename it"))
            for name in inputs or []:
                if name not in frame.columns and name not in features:
                    raise ValueError(refusal("task.inputs", f"columns, or of the calendar {list(features)}", name))
    elif calendar:
        raise ValueError(refusal("task.calendar", "false without time stamps", True, "name them: task.time=COLUMN"))
    used = [name for name in frame.columns if name not in {*left_out, *dates, *counters, time, series, marks}]
    if inputs is not None:
        used = list(dict.fromkeys([*(name for name in inputs if name not in features), *(targets or [])]))
    training = np.zeros(frame.height, dtype=bool)
    for start, stop in segments if marks is None else [(0, frame.height)]:
        training[start : start + round((stop - start) * train_fraction)] = True
    categories = encoding["categories"] if encoding else None
    remedies = dict.fromkeys(targets or [], "name other targets: task.targets=COLUMN")
    read = partial(encode, names=used, categories=categories, max_categories=max_categories, remedies=remedies)
    encoded = in_order_of_file(lambda rows, part: read(rows, training=part), frame, training, order)
    width = encoded.values.shape[1]
    groups = encoded.groups | {name: [width + index] for index, name in enumerate(features)}
    names = [name for name, indices in groups.items() for _ in indices]
    values = np.column_stack([encoded.values, *features.values()])
    numbers = hint({name: values[:, indices[0]] for name, indices in encoded.groups.items()})
    others = [name for name in dates if name not in (*left_out, time)] if inputs is None else []
    numbers += f"; dates and times are no inputs: {', '.join(others)}" if others else ""
    rows, texts, made, form = ArrayRows(values), encoded.categories, list(features), forms.get(time or "")
    return SeriesFile(rows, segments, names, groups, texts, order, labels, numbers, encoded.unseen, made, form, zoned)


def in_order_of_file(read: Callable[[Any, Any], Result], frame: Any, training: Any, order: NDArray[np.int64]) -> Result:
    """What is read from rows, and from which are for training, both sorted by series; errors name rows of the file."""
    try:
        return read(frame, training)
    except ValueError:
        in_file = np.argsort(order)
        read(frame[in_file], None if training is None else training[in_file])
        raise
