"""A user's file or folder of sequences of different lengths, as one long table."""

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bptt.contracts import refusal
from bptt.tasks import tables
from bptt.tasks.files import regular_file
from bptt.tasks.rows import ARCHIVE_FAULTS, SOUNDS, load_array, open_array, two_dimensional
from bptt.tasks.ts_file import read_ts

if TYPE_CHECKING:
    import polars as pl

SEQUENCE, LABEL, SPLIT = "sequence", "label", "split"  # columns that a reader adds
ENDINGS = (*tables.TABLES, ".npz", ".npy", *SOUNDS)
WANTED = "a file .npz .parquet .csv .tsv .ts, or a folder of files"
# All that an array of arrays needs; a pickle may name any function, and would call it.
HARMLESS = {"_reconstruct", "ndarray", "dtype", "_frombuffer", "scalar"}


class LongTable(NamedTuple):
    """One row a timestep, the timesteps of a sequence in order.

    sequence: the column that tells sequences apart. targets: columns of targets, `every_step` if they belong to
    timesteps and not to whole sequences. split: a column with the split of each sequence, if there is one.
    """

    frame: "pl.DataFrame"
    sequence: str
    targets: list[str]
    every_step: bool
    split: str | None


def read_sequences(
    path: Path,
    *,
    sequence: str | None,
    targets: Sequence[str] | None,
    every_step: bool,
    split: str | None,
    channels_first: bool,
) -> LongTable:
    """Read sequences from .npz, .ts, list columns of Parquet, a long table, or the files of a folder."""
    npz = path.suffix.lower() == ".npz"
    if channels_first and not npz:
        raise ValueError(refusal("task.channels_first", "false for files other than .npz", True))
    if path.is_dir():
        return read_folder(path, targets, every_step=every_step, split=split)
    if npz:
        return read_npz(path, targets, every_step=every_step, split=split, channels_first=channels_first)
    if path.suffix.lower() == ".ts":
        return ts_table(path, targets, every_step=every_step, split=split)
    if path.suffix.lower() not in tables.TABLES:
        regular_file(path, WANTED)
        raise ValueError(refusal("task.path", WANTED, str(path)))
    import polars as pl

    frame = tables.read_table(path)
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
    tables.require_columns(frame.columns, [*(targets or []), *([split] if split else [])], key="task.targets or split")
    if not lists:
        if sequence is None:
            remedy = "name the column that tells the sequences apart: task.sequence=COLUMN"
            raise ValueError(refusal("task.sequence", "a column of the table", None, remedy))
        tables.require_columns(frame.columns, [sequence], key="task.sequence")
        return LongTable(frame, sequence, required(targets), every_step, split)
    if sequence is None:
        sequence, frame = SEQUENCE, frame.with_row_index(SEQUENCE)
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
    """A row of lists as a row a timestep."""
    first = next(iter(lengths))
    for name, own in lengths.items():
        if (own != lengths[first]).any() or (own < 1).any():
            row = int(np.argmax((own != lengths[first]) | (own < 1)))
            got = f"{own[row]} in {name!r} and {lengths[first][row]} in {first!r} of row {row + 1}"
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
    columns |= {str(place): column for place, column in enumerate(np.concatenate(file.sequences).T)}
    labels = pl.Series(LABEL, file.labels)
    for kind in (pl.Int64, pl.Float64):
        numbers = labels.cast(kind, strict=False)
        labels = labels if numbers.null_count() or labels.dtype != pl.String else numbers
    columns[LABEL] = np.repeat(labels.to_numpy(), sizes)
    return LongTable(pl.DataFrame(columns), SEQUENCE, [LABEL], False, None)


def read_npz(
    path: Path, targets: Sequence[str] | None, *, every_step: bool, split: str | None, channels_first: bool
) -> LongTable:
    """Arrays of an .npz file: inputs `x`, targets `y` or those named, and `offsets`, `lengths` or neither.

    x: all timesteps (N, D) with offsets (S + 1,) or lengths (S,); or padded (S, T, D), with or without lengths; or S
    arrays (T_s, D). channels_first: x is (S, D, T), or S arrays (D, T_s), as aeon and sktime have them.
    y: (S,) or (S, V), or one value a timestep in the same arrangement as x. `X` is read as `x`.
    """
    import polars as pl

    arrays = load_objects(regular_file(path, WANTED))
    if "x" not in arrays and "X" in arrays:
        arrays["x"] = arrays.pop("X")
    if channels_first and "x" in arrays:
        arrays["x"] = time_first(arrays["x"], path)
    names = list(targets) if targets else ["y"]
    for name in ["x", *names, *([split] if split else [])]:
        if name not in arrays:
            raise ValueError(refusal("task.path", f"an .npz file with an array {name!r}", str(path), f"{list(arrays)}"))
    offsets = offsets_of(arrays, path)
    sizes = np.diff(offsets)
    total, number = int(offsets[-1]), len(sizes)
    x = flat(arrays["x"], sizes)
    if len(x) != total or offsets[0] != 0 or (sizes < 1).any():
        got = f"{len(x)} timesteps and offsets {offsets[0]} to {total}, the shortest sequence {sizes.min(initial=0)}"
        raise ValueError(f"{path} must hold sequences of 1 timestep or more that make up x, got {got}")
    columns: dict[str, Any] = {SEQUENCE: np.repeat(np.arange(number), sizes)}
    columns |= {str(place): column for place, column in enumerate(two_dimensional(x, path).T)}
    target_names = []
    for name in names:
        values = flat(arrays[name], sizes) if every_step else arrays[name]
        if len(values) != (total if every_step else number) or values.ndim > 2:
            wanted = f"{total} values, one a timestep" if every_step else f"{number} values, one a sequence"
            remedy = "" if every_step else "; or set task.every_step=true"
            raise ValueError(f"{name} of {path} must hold {wanted}, got {list(values.shape)}{remedy}")
        long = values if every_step else np.repeat(values, sizes, axis=0)
        parts = {name: long} if long.ndim == 1 else {f"{name}{place}": part for place, part in enumerate(long.T)}
        columns |= parts
        target_names += list(parts)
    if split:
        columns[SPLIT] = np.repeat(arrays[split], sizes)
    try:
        frame = pl.DataFrame({name: readable(column) for name, column in columns.items()})
    except (TypeError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(refusal("task.path", "an .npz file with labels of one type", str(path), reason)) from None
    return LongTable(frame, SEQUENCE, target_names, every_step, SPLIT if split else None)


def readable(column: NDArray[Any]) -> NDArray[Any]:
    """Texts in bytes, as HDF5 and C have them, as texts."""
    return np.char.decode(column, "utf-8", "replace") if column.dtype.kind == "S" else column


def time_first(x: NDArray[Any], path: Path) -> NDArray[Any]:
    """(S, T, D) from (S, D, T), or the same of an array of arrays."""
    if x.ndim == 3:
        return x.swapaxes(1, 2)
    if x.dtype != object or any(np.ndim(each) != 2 for each in x):
        got = f"{list(x.shape)} of {x.dtype} in {str(path)!r}"
        raise ValueError(f"task.channels_first needs x (S, D, T), or S arrays (D, T), got {got}")
    turned = np.empty(len(x), dtype=object)
    turned[:] = [np.asarray(each).T for each in x]
    return turned


def offsets_of(arrays: dict[str, NDArray[Any]], path: Path) -> NDArray[np.int64]:
    """Index of each sequence's first timestep, and the total: (S + 1,)."""
    x = arrays["x"]
    for name in ("offsets", "lengths"):
        given = arrays.get(name)
        if given is not None and (given.ndim != 1 or not len(given) or given.dtype.kind not in "iu"):
            got = f"{list(given.shape)} of {given.dtype}"
            raise ValueError(
                f"{name} of {path} must be whole numbers (S{' + 1' if name == 'offsets' else ''},), got {got}"
            )
    if "offsets" in arrays:
        return arrays["offsets"].astype(np.int64)
    if "lengths" in arrays:
        sizes = arrays["lengths"].astype(np.int64)
    elif x.dtype == object:
        sizes = np.array([len(each) for each in x], dtype=np.int64)
    elif x.ndim == 3:
        sizes = np.full(len(x), x.shape[1], dtype=np.int64)
    else:
        remedy = "x is one array of all timesteps; add offsets (S + 1,) or lengths (S,)"
        raise ValueError(refusal("task.path", "an .npz file that tells sequences apart", str(path), remedy))
    return np.concatenate([[0], np.cumsum(sizes)])


def flat(values: NDArray[Any], sizes: NDArray[np.int64]) -> NDArray[Any]:
    """All timesteps in one array (N, …), from that, from padded ones (S, T, …) or from an array of arrays."""
    if values.dtype == object and len(values) == len(sizes) and all(np.ndim(each) for each in values):
        parts = [np.asarray(each) for each in values]
        if len(shapes := sorted({each.shape[1:] for each in parts})) > 1:
            got = f"rows of shapes {', '.join(map(str, map(list, shapes[:3])))}, …"
            remedy = "task.channels_first=true is for (D, T), as aeon and sktime have them"
            raise ValueError(f"the arrays of x must be (T, D) with one D, got {got}; {remedy}")
        return np.concatenate(parts)
    if len(values) == len(sizes) and (values.ndim > 2 or (values.ndim > 1 and len(values) < sizes.sum())):
        return np.concatenate([each[:size] for each, size in zip(values, sizes)])
    return values


def read_folder(path: Path, targets: Sequence[str] | None, *, every_step: bool, split: str | None) -> LongTable:
    """Each file is a sequence. Its label is the name of its folder, unless targets name columns of the files.

    If all files lie in folders train, validation and test, these are the splits.
    """
    import polars as pl

    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.name[0] != ".")
    if not files:
        remedy = "name the .ts file itself" if any(path.glob("*.ts")) else "it has none"
        raise ValueError(refusal("task.path", f"a folder with files {' '.join(ENDINGS)}", str(path), remedy))
    places = [file.relative_to(path).parts[:-1] for file in files]
    by_split = all(place and place[0] in ("train", "validation", "test") for place in places)
    frames: list[pl.DataFrame] = []
    for file, place in zip(files, places):
        if file.suffix.lower() in tables.TABLES:
            frame = tables.read_table(file)
        else:
            rows, names = (None, []) if file.suffix.lower() == ".npy" else open_array(file)
            array = two_dimensional(load_array(regular_file(file, WANTED)), file) if rows is None else None
            values = rows.read(0, rows.num_rows) if rows is not None else array
            assert values is not None
            frame = pl.DataFrame(
                {name: values[:, at] for at, name in enumerate(names or map(str, range(values.shape[1])))}
            )
        if frames and frame.columns != [name for name in frames[0].columns if name not in (SEQUENCE, LABEL, SPLIT)]:
            raise ValueError(f"the files of {path} must have the same columns, got {frame.columns} in {file.name}")
        added = {SEQUENCE: str(file.relative_to(path)), SPLIT: place[0] if by_split else None}
        if not targets:
            own = place[by_split:]
            if not own:
                remedy = f"{file.name} lies in none; or name a column of the files: task.targets=COLUMN"
                raise ValueError(refusal("task.path", "a folder with one folder for each label", str(path), remedy))
            added[LABEL] = "/".join(own)
        frames.append(frame.with_columns(**{name: pl.lit(value, dtype=pl.String) for name, value in added.items()}))
    whole = pl.concat(frames, how="vertical_relaxed")
    if not by_split:
        whole = whole.drop(SPLIT)
    found = [LABEL] if not targets else list(targets)
    tables.require_columns(whole.columns, found, key="task.targets")
    return LongTable(whole, SEQUENCE, found, every_step and bool(targets), SPLIT if by_split else split)


def load_objects(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file, arrays of arrays too, without running what a pickle may hold."""
    found: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    found[name.removesuffix(".npy")] = read_array(file)
    except (*ARCHIVE_FAULTS, pickle.UnpicklingError, TypeError, KeyError, IndexError) as error:
        raise ValueError(
            refusal("task.path", "an .npz file of arrays", str(path), " ".join(str(error).split()))
        ) from None
    return found


def read_array(file: IO[bytes]) -> NDArray[Any]:
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, kind = header(file)
    if kind.hasobject:
        objects: NDArray[Any] = ArraysOnly(file).load()
        return objects.reshape(shape)
    values = np.frombuffer(file.read(), dtype=kind)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


class ArraysOnly(pickle.Unpickler):
    """Unpickles numpy's arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] != "numpy" or name not in HARMLESS:
            raise pickle.UnpicklingError(f"it holds an object that is no array of numbers: {module}.{name}")
        return super().find_class(module, name)
