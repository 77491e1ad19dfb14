"""Rows of numbers in memory or in a file, read in blocks."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bptt.contracts import refusal
from bptt.tasks.files import file_checksum, regular_file, stamp

BLOCK = 4096  # rows that are read at a time
SOUNDS = (".wav", ".flac")
# What numpy and zipfile raise for damaged, encrypted or foreign archives; a file that is no archive has no `files`.
ARCHIVE_FAULTS = (OSError, ValueError, EOFError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error)
Values = NDArray[np.float64]


class Rows(Protocol):
    """N rows of C numbers; NaN is a missing value."""

    num_rows: int
    num_columns: int
    kind: np.dtype[Any]
    """Kind of the numbers in memory or in the file, which `read` converts to float64."""

    def read(self, start: int, stop: int) -> Values:
        """Rows start … stop − 1, (stop − start, C)."""

    def checksum(self) -> str:
        """A fingerprint of all numbers."""


class ArrayRows:
    """Rows of an array (N, C), in memory or mapped from `path`, which must not change then."""

    def __init__(self, array: NDArray[np.generic], path: Path | None = None):
        self.array = array
        self.num_rows, self.num_columns = array.shape
        self.kind = array.dtype
        self.path = path
        self._stamp = stamp(path)

    def read(self, start: int, stop: int) -> Values:
        unchanged(self.path, self._stamp)
        return self.array[start:stop].astype(np.float64)

    def checksum(self) -> str:
        checksum = 0
        for start in range(0, self.num_rows, BLOCK):
            checksum = zlib.crc32(np.ascontiguousarray(self.array[start : start + BLOCK]).tobytes(), checksum)
        return f"{checksum:08x}"


class WithEmptyColumns:
    """Rows followed by `number` columns of missing values."""

    def __init__(self, rows: Rows, number: int):
        self.rows, self.number = rows, number
        self.num_rows, self.num_columns, self.kind = rows.num_rows, rows.num_columns + number, rows.kind

    def read(self, start: int, stop: int) -> Values:
        values = self.rows.read(start, stop)
        return np.column_stack([values, np.full((len(values), self.number), np.nan)])

    def checksum(self) -> str:
        return self.rows.checksum()


class SoundRows:
    """Samples of a WAV or FLAC file as rows of C channels, from −1 to 1, read by soundfile on use."""

    kind = np.dtype(np.float64)

    def __init__(self, path: Path):
        import soundfile

        try:
            with soundfile.SoundFile(str(path)) as sound:
                seekable, self.num_rows, self.num_columns = sound.seekable(), sound.frames, sound.channels
                self.rate: int = sound.samplerate  # samples a second
        except (soundfile.SoundFileError, OSError) as error:
            raise ValueError(refusal("task.path", "a sound file", str(path), " ".join(str(error).split()))) from None
        if path.suffix.lower() == ".wav":
            whole_wav(path)
        if not seekable:  # compressed by a codec for telephones
            raise ValueError(refusal("task.path", "a sound that can be read from any sample on", str(path), "use PCM"))
        self.path = path
        self._stamp = stamp(path)

    def read(self, start: int, stop: int) -> Values:
        import soundfile

        unchanged(self.path, self._stamp)
        try:
            samples: Values = soundfile.read(
                str(self.path), start=start, frames=max(0, stop - start), dtype="float64", always_2d=True
            )[0]
        except (soundfile.SoundFileError, OSError) as error:
            raise ValueError(refusal("task.path", "a whole sound file", str(self.path), str(error))) from None
        return samples

    def checksum(self) -> str:
        return file_checksum(self.path)


def whole_wav(path: Path) -> None:
    """Raise ValueError for a WAV file that is shorter than its header says, such as one that was copied in part."""
    with path.open("rb") as file:
        header = file.read(8)
    stated, size = 8 + int.from_bytes(header[4:], "little"), path.stat().st_size
    if header[:4] == b"RIFF" and size < stated < (1 << 32):  # a recorder that was stopped states 2³² − 1
        raise ValueError(refusal("task.path", f"a whole sound file of {stated} bytes", str(path), f"it has {size}"))


def unchanged(path: Path | None, before: tuple[int, int] | None) -> None:
    """Raise ValueError if a file was edited since it was opened."""
    if path is not None and stamp(path) not in (None, before):
        raise ValueError(refusal("task.path", "a file that does not change", str(path), "it has changed"))


def open_array(path: Path) -> tuple[Rows, list[str]]:
    """Rows and names of columns of an .npy, .npz, .wav or .flac file; .npy and sound are read on use.

    .npz holds columns (N,) by their names, or one array (N, C). Columns without a name are called 0, 1, ….
    """
    regular_file(path, "an array or sound file")
    if path.suffix.lower() in SOUNDS:
        sound = SoundRows(path)
        return sound, [str(number) for number in range(sound.num_columns)]
    if path.suffix.lower() == ".npy":
        array = load_array(path, mapped=True)
        return ArrayRows(two_dimensional(array, path), path), numbered(array)
    arrays = load_arrays(path)
    if len(arrays) == 1:
        (array,) = arrays.values()
        names = list(arrays) if array.ndim == 1 else numbered(array)
        return ArrayRows(two_dimensional(array, path)), names
    if not arrays:
        raise ValueError(refusal("task.path", "an .npz file of arrays of numbers", str(path), "it has none"))
    lengths = {name: array.shape for name, array in arrays.items()}
    if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) != 1:
        shown = ", ".join(f"{name} {list(shape)}" for name, shape in lengths.items())
        raise ValueError(
            f"task.path must hold one array (N, C), or columns (N,) of one length, got {shown} in {str(path)!r}"
        )
    columns = [two_dimensional(array, path, name) for name, array in arrays.items()]
    return ArrayRows(np.concatenate(columns, axis=1)), list(arrays)


def load_array(path: Path, *, mapped: bool = False) -> NDArray[np.generic]:
    """The array of an .npy file, mapped into memory if `mapped`."""
    try:
        array: NDArray[np.generic] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(refusal("task.path", "an .npy array of numbers", str(path), plain_reason(error))) from None
    return array


def load_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of an .npz file, by name."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except ARCHIVE_FAULTS as error:
        wanted = "an .npz file of arrays of numbers"
        raise ValueError(refusal("task.path", wanted, str(path), plain_reason(error))) from None


def plain_reason(error: Exception) -> str:
    """The reason why a file cannot be read, without numpy's advice to load pickles, which may run any code."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return "it is no array of numbers" if "pickle" in reason else reason


def two_dimensional(array: NDArray[np.generic], path: Path, name: str = "") -> NDArray[np.generic]:
    """(N, C) from (N,) or (N, C) of real numbers or booleans. name: that of the array in its file."""
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf" or not array.size:
        got = f"{name} {list(array.shape)} of {array.dtype}".strip()
        raise ValueError(f"task.path must hold numbers (N,) or (N, C), got {got} in {str(path)!r}")
    return array[:, None] if array.ndim == 1 else array


def numbered(array: NDArray[np.generic]) -> list[str]:
    """Names "0", "1", … of an array's columns."""
    return [str(number) for number in range(array.shape[1] if array.ndim > 1 else 1)]


def blocks(rows: Rows, start: int, stop: int) -> Iterator[tuple[int, Values]]:
    """Rows start … stop − 1, a block at a time, each with the number of its first row."""
    for first in range(start, stop, BLOCK):
        yield first, rows.read(first, min(first + BLOCK, stop))
