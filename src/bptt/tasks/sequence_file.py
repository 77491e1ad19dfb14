"""A user's file or folder of sequences of different lengths, as one long table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bptt.contracts import refusal
from bptt.tasks import tables
from bptt.tasks.array_archive import read_npz
from bptt.tasks.base import SPLITS
from bptt.tasks.files import CONVERSIONS, regular_file
from bptt.tasks.long_table import LABEL, SEQUENCE, SPLIT, WANTED, LongTable
from bptt.tasks.missing_values import Missing
from bptt.tasks.rows import SOUNDS, load_array, open_array, two_dimensional
from bptt.tasks.ts_file import read_ts

if TYPE_CHECKING:
    import polars as pl

NO_LABEL = ("", "?", "NaN", "nan")  # of a .ts file; None and - may be classes
SUFFIXES = (*tables.TABLES, ".npz", ".npy", *SOUNDS)


def read_sequences(
    path: Path,
    *,
    sequence: str | None,
    targets: Sequence[str] | None,
    every_step: bool,
    split: str | None,
    channels_first: bool,
    missing: Missing,
) -> LongTable:
    """Read sequences from .npz, .ts, list columns of Parquet, a long table, or the files of a folder."""
    npz = path.suffix.lower() == ".npz"
    if sequence is not None and (path.is_dir() or path.suffix.lower() not in tables.TABLES):
        raise ValueError(refusal("task.sequence", "null, except for a table", sequence))
    if channels_first and not npz:
        raise ValueError(refusal("task.channels_first", "false for files other than .npz", True))
    if path.is_dir():
        return read_folder(path, targets, every_step=every_step, split=split, missing=missing)
    if npz:
        return read_npz(path, targets, every_step=every_step, split=split, channels_first=channels_first)
    if path.suffix.lower() == ".ts":
        return ts_table(path, targets, every_step=every_step, split=split)
    if path.suffix.lower() not in tables.TABLES:
        regular_file(path, WANTED)
        raise ValueError(refusal("task.path", WANTED, str(path), CONVERSIONS.get(path.suffix.lower(), "")))
    import polars as pl

    frame = tables.read_table(path, missing, names=sequence)
    fixed = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Array)]
    frame = frame.with_columns(pl.col(name).arr.to_list() for name in fixed)
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
    tables.require_columns(frame.columns, [*(targets or []), *([split] if split else [])], key="task.targets or split")
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
    return exploded(frame, lists, lengths, sequence, required(targets), split)


def exploded(
    frame: "pl.DataFrame",
    lists: list[str],
    lengths: dict[str, NDArray[np.int64]],
    sequence: str,
    targets: list[str],
    split: str | None,
) -> LongTable:
    """Convert rows of lists to one row per timestep."""
    first = next(iter(lengths))
    for name, sizes in lengths.items():
        if (sizes != lengths[first]).any() or (sizes < 1).any():
            row = int(np.argmax((sizes != lengths[first]) | (sizes < 1)))
            got = f"{sizes[row]} in {name!r} and {lengths[first][row]} in {first!r} of row {row + 1}"
            raise ValueError(f"the lists of a row must have one length above 0, got {got}")
    stepwise = [name for name in targets if name in lists]
    if stepwise and len(stepwise) < len(targets):
        raise ValueError(refusal("task.targets", "columns of lists alone, or none", targets))
    return LongTable(frame.explode(lists), sequence, targets, bool(stepwise), split)


def required(targets: Sequence[str] | None) -> list[str]:
    if not targets:
        raise ValueError(refusal("task.targets", "columns of the file", targets, "name them: task.targets=COLUMN"))
    return list(targets)


def ts_table(path: Path, targets: Sequence[str] | None, *, every_step: bool, split: str | None) -> LongTable:
    """The sequences of a `.ts` file; its labels are the targets."""
    import polars as pl

    file = read_ts(path)
    if file.labels is None or targets or every_step or split:
        remedy = "leave out task.targets, task.every_step and task.split" if file.labels else "it has none"
        raise ValueError(refusal("task.path", "a .ts file whose labels are the targets", str(path), remedy))
    sizes = [len(each) for each in file.sequences]
    columns: dict[str, Any] = {SEQUENCE: np.repeat(np.arange(len(sizes)), sizes)}
    columns |= {str(index): column for index, column in enumerate(np.concatenate(file.sequences).T)}
    labels = pl.Series(LABEL, [None if label in NO_LABEL else label for label in file.labels], dtype=pl.String)
    for kind in (pl.Int64, pl.Float64):
        numbers = labels.cast(kind, strict=False)
        labels = labels if numbers.null_count() > labels.null_count() or labels.dtype != pl.String else numbers
    columns[LABEL] = labels.gather(columns[SEQUENCE])
    return LongTable(pl.DataFrame(columns), SEQUENCE, [LABEL], False, None)


def read_folder(
    path: Path, targets: Sequence[str] | None, *, every_step: bool, split: str | None, missing: Missing
) -> LongTable:
    """Read a folder with one file per sequence. Labels are the names of subfolders, or the columns `targets` of the
    files.

    If all files are below folders train, validation and test, these are the splits.
    """
    import polars as pl

    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    files = [file for file in files if not any(part[0] == "." for part in file.relative_to(path).parts)]
    if not files:
        remedy = "name the .ts file itself" if any(path.glob("*.ts")) else "it has none"
        raise ValueError(refusal("task.path", f"a folder with files {' '.join(SUFFIXES)}", str(path), remedy))
    folders = [file.relative_to(path).parts[:-1] for file in files]
    parts = {folder[0] for folder in folders if folder}
    by_split = parts <= set(SPLITS) and all(folders)
    known = len(parts & set(SPLITS)) > 1 or (parts & set(SPLITS) and parts & {"val", "valid", "dev", "eval"})
    if not by_split and known and all(len(folder) > (not targets) for folder in folders):
        other = min(parts - set(SPLITS))
        raise ValueError(refusal("task.path", f"a folder with {', '.join(SPLITS)} alone", other, "rename it"))
    frames: list[pl.DataFrame] = []
    columns: list[str] = []
    names = {SEQUENCE: SEQUENCE, LABEL: LABEL, SPLIT: SPLIT}  # of the columns that are added
    for file, folder in zip(files, folders):
        if file.suffix.lower() in tables.TABLES:
            frame = tables.read_table(file, missing)
        else:
            rows, channels = (None, []) if file.suffix.lower() == ".npy" else open_array(file)
            array = two_dimensional(load_array(regular_file(file, WANTED)), file) if rows is None else None
            values = rows.read(0, rows.num_rows) if rows is not None else array
            assert values is not None
            frame = pl.DataFrame(
                {name: values[:, column] for column, name in enumerate(channels or map(str, range(values.shape[1])))}
            )
        if not columns:
            columns = frame.columns
            names = {name: name if name not in columns else f"{name} of the folder" for name in names}
        if frame.columns != columns:
            got = f"{frame.columns} in {file.relative_to(path)}"
            raise ValueError(f"the files of {path} must have the same columns, got {got}")
        if frame.is_empty():
            raise ValueError(f"the files of {path} must hold a timestep or more, got none in {file.relative_to(path)}")
        added = {names[SEQUENCE]: str(file.relative_to(path))}
        added |= {names[SPLIT]: folder[0]} if by_split else {}
        if not targets:
            label = folder[by_split:]  # below the folder of the split
            if not label:
                remedy = f"{file.name} lies in none; or name a column of the files: task.targets=COLUMN"
                raise ValueError(refusal("task.path", "a folder with one folder for each label", str(path), remedy))
            added[names[LABEL]] = "/".join(label)
        frames.append(frame.with_columns(**{name: pl.lit(value, dtype=pl.String) for name, value in added.items()}))
    table = tables.joined(frames, f"the files of {path}")
    target_names = list(targets) if targets else [names[LABEL]]
    tables.require_columns(table.columns, [*target_names, *([split] if split else [])], key="task.targets or split")
    split = names[SPLIT] if by_split else split
    return LongTable(table, names[SEQUENCE], target_names, every_step and bool(targets), split)
