"""A folder with one file per sequence, as one long table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bptt.contracts import refusal
from bptt.tasks import tables
from bptt.tasks.base import SPLITS
from bptt.tasks.files import regular_file
from bptt.tasks.long_table import LABEL, SEQUENCE, SPLIT, WANTED, Known, LongTable
from bptt.tasks.missing_values import Missing
from bptt.tasks.rows import SOUNDS, SoundRows, load_array, open_array, two_dimensional

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = (*tables.TABLES, ".npz", ".npy", *SOUNDS)


def files_of(path: Path) -> list[Path]:
    """The files of a folder and its subfolders that hold sequences, sorted; not hidden ones. ValueError without any."""
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    files = [file for file in files if not any(part[0] == "." for part in file.relative_to(path).parts)]
    if not files:
        remedy = "name the .ts file itself" if any(path.glob("*.ts")) else "it has none"
        raise ValueError(refusal("task.path", f"a folder with files {' '.join(SUFFIXES)}", str(path), remedy))
    return files


def read_files(
    path: Path,
    files: Sequence[Path],
    targets: Sequence[str] | None,
    *,
    every_step: bool,
    split: str | None,
    missing: Missing,
    known: Known | None,
) -> LongTable:
    """Read files of the folder `path`, one sequence each. Labels are the names of subfolders, or the columns `targets`
    of the files. Of files to predict, one in no subfolder has no label.

    If all files are below folders train, validation and test, these are the splits.
    """
    import polars as pl

    folders = [file.relative_to(path).parts[:-1] for file in files]
    parts = {folder[0] for folder in folders if folder}
    classes = set() if known is None or targets else set(map(str, known.classes))
    labelled = all("/".join(folder) in classes for folder in folders)  # by classes that may be called train
    by_split = parts <= set(SPLITS) and all(folders) and not labelled
    named, misnamed = parts & set(SPLITS), parts & {"val", "valid", "dev", "eval"}
    divided = len(named) > 1 or (named and misnamed)
    below = all(len(folder) > (not targets) for folder in folders)  # else these folders may be labels
    if not by_split and not labelled and divided and (below or (len(named) > 1 and misnamed)):
        other = min(misnamed or parts - set(SPLITS))
        remedy = "rename it" if misnamed else "rename it, or move it away"
        raise ValueError(refusal("task.path", f"a folder with {', '.join(SPLITS)} alone", other, remedy))
    frames: list[pl.DataFrame] = []
    rates: set[int] = set()
    columns: list[str] = []
    names = {SEQUENCE: SEQUENCE, LABEL: LABEL, SPLIT: SPLIT}  # of the columns that are added
    for file, folder in zip(files, folders):
        frame, rate = read_sequence(file, missing)
        rates |= set() if rate is None else {rate}
        if len(rates) > 1:
            got = f"{rate} beside {min(rates - {rate})} in {file.relative_to(path)}"
            raise ValueError(f"the sounds of {path} must have one number of samples a second, got {got}; resample them")
        if not columns:
            columns = frame.columns
            names = {name: name if name not in columns else f"{name} of the folder" for name in names}
        if frame.columns != columns:
            got = f"{frame.columns} in {file.relative_to(path)}"
            raise ValueError(f"the files of {path} must have the same columns, got {got}")
        if frame.is_empty():
            raise ValueError(f"the files of {path} must hold a timestep or more, got none in {file.relative_to(path)}")
        added: dict[str, str | None] = {names[SEQUENCE]: str(file.relative_to(path))}
        added |= {names[SPLIT]: folder[0]} if by_split else {}
        if not targets:
            label = folder[by_split:]  # below the folder of the split
            if not label and known is None:
                remedy = f"{file.name} lies in none; or name a column of the files: task.targets=COLUMN"
                raise ValueError(refusal("task.path", "a folder with one folder for each label", str(path), remedy))
            added[names[LABEL]] = "/".join(label) or None
        frames.append(frame.with_columns(**{name: pl.lit(value, dtype=pl.String) for name, value in added.items()}))
    table = tables.joined(frames, f"the files of {path}")
    target_names = list(targets) if targets else [names[LABEL]]
    if known is not None:
        table = tables.with_empty_columns(table, target_names)
    tables.require_columns(table.columns, [*target_names, *([split] if split else [])], key="task.targets or split")
    split = names[SPLIT] if by_split else split
    rate = next(iter(rates), None)
    return LongTable(table, names[SEQUENCE], target_names, every_step and bool(targets), split, rate)


def read_sequence(file: Path, missing: Missing) -> tuple["pl.DataFrame", int | None]:
    """The timesteps of one file, and the rate of a sound; columns of an array are called 0, 1, … without names."""
    import polars as pl

    rate = None
    if file.suffix.lower() in tables.TABLES:
        return tables.read_table(file, missing), rate
    if file.suffix.lower() == ".npy":
        values = two_dimensional(load_array(regular_file(file, WANTED)), file)
        names = [str(column) for column in range(values.shape[1])]
    else:
        rows, names = open_array(file)
        values = rows.read(0, rows.num_rows)
        rate = rows.rate if isinstance(rows, SoundRows) else None
    return pl.DataFrame({name: values[:, column] for column, name in enumerate(names)}), rate
