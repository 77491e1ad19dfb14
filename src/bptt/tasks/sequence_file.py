"""A user's file or folder of sequences of different lengths, as one long table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bptt.contracts import refusal, setting
from bptt.tasks import tables
from bptt.tasks.array_archive import holds_sequences, read_npz
from bptt.tasks.files import CONVERSIONS, regular_file
from bptt.tasks.long_table import LABEL, SEQUENCE, WANTED, Known, LongTable
from bptt.tasks.missing_values import Missing
from bptt.tasks.sequence_folder import SUFFIXES, files_of, read_files
from bptt.tasks.ts_file import read_ts

if TYPE_CHECKING:
    import polars as pl

NO_LABEL = ("", "?", "NaN", "nan")  # of a .ts file; None and - may be classes


def read_sequences(
    path: Path,
    *,
    sequence: str | None,
    targets: Sequence[str] | None,
    every_step: bool,
    split: str | None,
    channels_first: bool,
    missing: Missing,
    left_out: Sequence[str] = (),
    known: Known | None = None,
) -> LongTable:
    """Read sequences from .npz, .ts, list columns of Parquet, a long table, or the files of a folder.

    left_out: columns whose lists are no timesteps.
    known: of the data that a model was trained on, for a file to predict; it may lack the targets, and one file of a
        folder stands for itself.
    """
    npz = path.suffix.lower() == ".npz"
    single = known is not None and known.folder and sequence is None and not path.is_dir()
    single = single and not (npz and holds_sequences(path))
    if sequence is not None and (path.is_dir() or path.suffix.lower() not in tables.TABLES):
        raise ValueError(refusal("task.sequence", "null, except for a table", sequence))
    if channels_first and not npz:
        raise ValueError(refusal("task.channels_first", "false for files other than .npz", True))
    if path.is_dir() or (single and path.suffix.lower() in SUFFIXES and not holds_lists(path)):
        folder, files = (path, files_of(path)) if path.is_dir() else (path.parent, [regular_file(path, WANTED)])
        return read_files(folder, files, targets, every_step=every_step, split=split, missing=missing, known=known)
    if npz:
        return read_npz(path, targets, every_step=every_step, split=split, channels_first=channels_first, known=known)
    if path.suffix.lower() == ".ts":
        return ts_table(path, targets, every_step=every_step, split=split, known=known)
    if path.suffix.lower() not in tables.TABLES:
        regular_file(path, WANTED)
        raise ValueError(refusal("task.path", WANTED, str(path), CONVERSIONS.get(path.suffix.lower(), "")))
    import polars as pl

    frame = tables.read_table(path, missing, names=sequence)
    if known is not None:
        frame = tables.with_empty_columns(frame, targets or [])
    fixed = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Array)]
    frame = frame.with_columns(pl.col(name).arr.to_list() for name in fixed)
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List) and name not in left_out]
    tables.require_columns(frame.columns, [*(targets or []), *([split] if split else [])], key="task.targets or split")
    if lists and sequence in frame.columns and frame[sequence].is_duplicated().any():
        wanted = f"numbers or texts, as each row of a sequence in {sequence!r} is a timestep"
        remedy = f"write a column for each of its numbers, or leave it out: {setting('task.leave_out', lists[0])}"
        raise ValueError(refusal(f"column {lists[0]!r}", wanted, str(frame[lists[0]].dtype), remedy))
    if not lists:
        if sequence is None:
            remedy = "name the column that identifies the sequence: task.sequence=COLUMN"
            raise ValueError(refusal("task.sequence", "a column of the table", None, remedy))
        tables.require_columns(frame.columns, [sequence], key="task.sequence")
        return LongTable(frame, sequence, required(targets), every_step, split)
    if sequence is None:
        sequence = SEQUENCE if SEQUENCE not in frame.columns else f"{SEQUENCE} of the file"
        frame = frame.with_row_index(sequence)
    lengths = {name: frame[name].list.len().fill_null(0).to_numpy().astype(np.int64) for name in lists}
    names = known.targets if known is not None and not targets else required(targets)
    return exploded(tables.with_empty_columns(frame, names), lists, lengths, sequence, names, split, known)


def holds_lists(path: Path) -> bool:
    """Whether a file is Parquet with a row for each sequence."""
    import polars as pl

    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        return any(isinstance(kind, pl.List | pl.Array) for kind in pl.read_parquet_schema(path).values())
    except (pl.exceptions.PolarsError, OSError):  # said when it is read
        return False


def exploded(
    frame: "pl.DataFrame",
    lists: list[str],
    lengths: dict[str, NDArray[np.int64]],
    sequence: str,
    targets: list[str],
    split: str | None,
    known: Known | None,
) -> LongTable:
    """Convert rows of lists to one row per timestep."""
    first = next(iter(lengths))
    for name, sizes in lengths.items():
        if (sizes != lengths[first]).any() or (sizes < 1).any():
            row = int(np.argmax((sizes != lengths[first]) | (sizes < 1)))
            got = f"{sizes[row]} in {name!r} and {lengths[first][row]} in {first!r} of row {row + 1}"
            raise ValueError(f"the lists of a row must have one length above 0, got {got}")
    stepwise = [name for name in targets if name in lists]
    given = targets if known is None else [name for name in targets if not frame[name].is_null().all()]
    if stepwise and any(name not in lists for name in given):
        raise ValueError(refusal("task.targets", "columns of lists alone, or none", targets))
    every_step = bool(stepwise) or (known is not None and known.every_step)
    return LongTable(frame.explode(lists), sequence, targets, every_step, split)


def required(targets: Sequence[str] | None) -> list[str]:
    if not targets:
        raise ValueError(refusal("task.targets", "columns of the file", targets, "name them: task.targets=COLUMN"))
    return list(targets)


def ts_table(
    path: Path, targets: Sequence[str] | None, *, every_step: bool, split: str | None, known: Known | None
) -> LongTable:
    """The sequences of a `.ts` file; its labels are the targets."""
    import polars as pl

    file = read_ts(path)
    if (file.labels is None and known is None) or targets or every_step or split:
        remedy = "leave out task.targets, task.every_step and task.split" if file.labels else "it has none"
        raise ValueError(refusal("task.path", "a .ts file whose labels are the targets", str(path), remedy))
    sizes = [len(each) for each in file.sequences]
    columns: dict[str, Any] = {SEQUENCE: np.repeat(np.arange(len(sizes)), sizes)}
    columns |= {str(index): column for index, column in enumerate(np.concatenate(file.sequences).T)}
    written = [""] * len(sizes) if file.labels is None else file.labels
    labels = pl.Series(LABEL, [None if label in NO_LABEL else label for label in written], dtype=pl.String)
    for kind in (pl.Int64, pl.Float64):
        numbers = labels.cast(kind, strict=False)
        labels = labels if numbers.null_count() > labels.null_count() or labels.dtype != pl.String else numbers
    columns[LABEL] = labels.gather(columns[SEQUENCE])
    return LongTable(pl.DataFrame(columns), SEQUENCE, [LABEL], False, None)
