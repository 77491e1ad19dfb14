"""Sequences in an .npz file of arrays, which may hold arrays of arrays."""

import math
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bptt.contracts import refusal
from bptt.tasks.files import regular_file
from bptt.tasks.long_table import SEQUENCE, SPLIT, WANTED, Known, LongTable
from bptt.tasks.rows import ARCHIVE_FAULTS, plain_reason, two_dimensional
from bptt.tasks.tables import with_empty_columns

# All functions that unpickling an array of arrays needs. A pickle may name any function, which would be called.
HARMLESS = {"_reconstruct", "ndarray", "dtype", "_frombuffer", "scalar"}


def read_npz(
    path: Path,
    targets: Sequence[str] | None,
    *,
    every_step: bool,
    split: str | None,
    channels_first: bool,
    known: Known | None,
) -> LongTable:
    """Arrays of an .npz file: inputs `x`, targets `y` or those named, and `offsets`, `lengths` or neither.

    x: all timesteps (N, D) with offsets (S + 1,) or lengths (S,); or padded (S, T, D), with or without lengths; or S
    arrays (T_s, D). channels_first: x is (S, D, T), or S arrays (D, T_s), as aeon and sktime have them.
    y: (S,) or (S, V), or one value a timestep in the same arrangement as x. `X` is read as `x`. A file to predict, for
        which the columns of targets are `known`, may lack them.
    """
    import polars as pl

    arrays = load_objects(regular_file(path, WANTED))
    if "x" not in arrays and "X" in arrays:
        arrays["x"] = arrays.pop("X")
    if channels_first and "x" in arrays:
        arrays["x"] = time_first(arrays["x"], path)
    names = list(targets) if targets else ["y"]
    absent = [name for name in names if name not in arrays and known is not None]
    for name in ["x", *(name for name in names if name not in absent), *([split] if split else [])]:
        if name not in arrays:
            raise ValueError(refusal("task.path", f"an .npz file with an array {name!r}", str(path), f"{list(arrays)}"))
    offsets = offsets_of(arrays, path)
    sizes = np.diff(offsets)
    total, number = int(offsets[-1]), len(sizes)
    if not number:
        raise ValueError(refusal("task.path", "an .npz file with sequences", str(path), "it has none"))
    x = flat(arrays["x"], sizes)
    if len(x) != total or offsets[0] != 0 or (sizes < 1).any():
        got = f"{len(x)} timesteps and offsets {offsets[0]} to {total}, the shortest sequence {sizes.min()}"
        raise ValueError(f"{path} must hold sequences of 1 timestep or more that make up x, got {got}")
    columns: dict[str, Any] = {SEQUENCE: np.repeat(np.arange(number), sizes)}
    columns |= {str(index): column for index, column in enumerate(two_dimensional(x, path).T)}
    target_names = []
    for name in names if not absent else []:
        values = flat(arrays[name], sizes) if every_step else arrays[name]
        if len(values) != (total if every_step else number) or values.ndim > 2:
            wanted = f"{total} values, one a timestep" if every_step else f"{number} values, one a sequence"
            remedy = "" if every_step else "; or set task.every_step=true"
            raise ValueError(f"{name} of {path} must hold {wanted}, got {list(values.shape)}{remedy}")
        long = values if every_step else np.repeat(values, sizes, axis=0)
        parts = {name: long} if long.ndim == 1 else {f"{name}{index}": part for index, part in enumerate(long.T)}
        columns |= parts
        target_names += list(parts)
    if split:
        if arrays[split].shape != (number,):
            raise ValueError(f"{split} of {path} must hold {number} values, got {list(arrays[split].shape)}")
        columns[SPLIT] = np.repeat(arrays[split], sizes)
    try:
        frame = pl.DataFrame({name: readable(column) for name, column in columns.items()})
    except (TypeError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(refusal("task.path", "an .npz file with labels of one type", str(path), reason)) from None
    if known is not None and absent:
        frame, target_names = with_empty_columns(frame, known.targets), known.targets
    return LongTable(frame, SEQUENCE, target_names, every_step, SPLIT if split else None)


def holds_sequences(path: Path) -> bool:
    """Whether an .npz file holds several sequences, not one array of the timesteps of a single one."""
    arrays = load_objects(regular_file(path, WANTED))
    x = arrays.get("x", arrays.get("X"))
    return x is not None and (x.dtype == object or x.ndim == 3 or bool({"offsets", "lengths"} & arrays.keys()))


def readable(column: NDArray[Any]) -> NDArray[Any] | list[Any]:
    """Texts in bytes, as HDF5 and C have them, as texts; objects as a list, in which NaN, as of pandas, is None."""
    if column.dtype == object:
        return [None if isinstance(each, float) and math.isnan(each) else each for each in column]
    return np.char.decode(column, "utf-8", "replace") if column.dtype.kind == "S" else column


def time_first(x: NDArray[Any], path: Path) -> NDArray[Any]:
    """(S, T, D) from (S, D, T), or the same of an array of arrays."""
    if x.ndim == 3:
        return x.swapaxes(1, 2)
    if x.dtype != object or any(np.ndim(each) != 2 for each in x):
        got = f"{list(x.shape)} of {x.dtype} in {str(path)!r}"
        raise ValueError(f"task.channels_first needs x (S, D, T), or S arrays (D, T), got {got}")
    transposed = np.empty(len(x), dtype=object)
    transposed[:] = [np.asarray(each).T for each in x]
    return transposed


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
        raise ValueError(refusal("task.path", "an .npz file that separates sequences", str(path), remedy))
    return np.concatenate([[0], np.cumsum(sizes)])


def flat(values: NDArray[Any], sizes: NDArray[np.int64]) -> NDArray[Any]:
    """All timesteps (N, …), from an array of them, from a padded array (S, T, …) or from an array of arrays."""
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


def load_objects(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file, including arrays of arrays, without calling functions that a pickle may name."""
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    arrays[name.removesuffix(".npy")] = read_array(file)
    except (*ARCHIVE_FAULTS, pickle.UnpicklingError, TypeError, KeyError, IndexError) as error:
        raise ValueError(refusal("task.path", "an .npz file of arrays", str(path), plain_reason(error))) from None
    return arrays


def read_array(file: IO[bytes]) -> NDArray[Any]:
    """Read one array in .npy format."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        objects: NDArray[Any] = ArraysOnly(file).load()
        numbers = all(isinstance(each, int | float | np.number | np.bool_) for each in objects.flat)
        return objects.reshape(shape).astype(float) if numbers and objects.size else objects.reshape(shape)
    values = np.frombuffer(file.read(), dtype=dtype)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


class ArraysOnly(pickle.Unpickler):
    """Unpickles numpy's arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] != "numpy" or name not in HARMLESS:
            raise pickle.UnpicklingError(f"it holds an object that is no array of numbers: {module}.{name}")
        return super().find_class(module, name)
