"""Checks of users' files before a library reads them."""

import stat
import zlib
from pathlib import Path

from bptt.contracts import expanded, refusal

BLOCK = 1 << 22  # bytes
# First bytes of files that are neither text nor a table in text, the format they belong to, and the remedy.
SIGNATURES = {
    b"\x1f\x8b": ("compressed by gzip", "decompress it first: gunzip FILE"),
    b"BZh": ("compressed by bzip2", "decompress it first: bunzip2 FILE"),
    b"\xfd7zXZ\x00": ("compressed by xz", "decompress it first: unxz FILE"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "decompress it first: unzstd FILE"),
    b"PK\x03\x04": ("a zip archive", "unpack it first: unzip FILE, or export a spreadsheet as CSV"),
    b"\xff\xfe": ("text in UTF-16", "convert it first: iconv -f UTF-16 -t UTF-8 FILE > NEW"),
    b"\xfe\xff": ("text in UTF-16", "convert it first: iconv -f UTF-16 -t UTF-8 FILE > NEW"),
    b"PAR1": ("Parquet", "rename it to .parquet"),
    b"ARROW1": ("Arrow", "convert it by polars.read_ipc(FILE).write_parquet(NEW)"),
    b"\x93NUMPY": ("an array of numpy", "rename it to .npy"),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet", "export the sheet as CSV"),
    b"\x89HDF": ("HDF5", "export a table as CSV or Parquet"),
    b"SQLite f": ("a database of SQLite", "export a table as CSV or Parquet"),
}
TABLE_IN_TEXT = "rename a table whose columns are separated by comma, semicolon, tab or | to .csv"
JSON = "convert it by polars.read_json(FILE).write_csv(NEW)"
CONVERSIONS = {  # what to do with files of other endings
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "export the sheet as CSV"),
    **dict.fromkeys((".txt", ".dat", ".data", ".asc", ""), TABLE_IN_TEXT),
    **dict.fromkeys((".jsonl", ".ndjson"), JSON.replace("read_json", "read_ndjson")),
    **dict.fromkeys((".feather", ".arrow"), "convert it by polars.read_ipc(FILE).write_parquet(NEW)"),
    ".json": JSON,
    ".arff": "the UEA and UCR archives have it as .ts, too",
    ".mp3": "convert it to .wav or .flac",
}


def regular_file(path: Path, wanted: str, *, key: str = "task.path") -> Path:
    """`path`, if it is a readable regular file with content. Raises ValueError otherwise; never opens a FIFO."""
    readable = wanted.replace("a ", "a readable ", 1)
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            with path.open("rb"):
                pass
    except FileNotFoundError:
        raise ValueError(refusal(key, wanted, str(path), "no such file exists")) from None
    except OSError as error:
        raise ValueError(refusal(key, readable, str(path), str(error.strerror))) from None
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(refusal(key, readable, str(path), "it is a folder"))
    if not stat.S_ISREG(status.st_mode):
        remedy = "it is a pipe or device, which can be read only once; save it as a file first"
        raise ValueError(refusal(key, readable, str(path), remedy))
    if status.st_size == 0:
        raise ValueError(refusal(key, wanted, str(path), "the file is empty"))
    return path


def uncompressed_text(path: Path, wanted: str, *, key: str = "task.path") -> Path:
    """`path`, unless its first bytes are those of another format. ValueError names the format."""
    with path.open("rb") as file:
        beginning = file.read(8)
    for signature, (format, remedy) in SIGNATURES.items():
        if beginning.startswith(signature):
            raise ValueError(refusal(key, wanted, str(path), f"the file is {format}; {remedy}"))
    return path


def named_path(path: str | Path | None, wanted: str, *, key: str = "task.path") -> Path:
    """A path from the configuration with ~ expanded; ValueError if it is None."""
    if path is None:
        raise ValueError(refusal(key, wanted, path, f"name one: {key}=FILE"))
    return expanded(str(path))


def file_checksum(path: Path) -> str:
    """CRC-32 of a file's bytes, read in blocks."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
    return f"{checksum:08x}"


def stamp(path: Path | None) -> tuple[int, int] | None:
    """(size, mtime) of the file, to detect edits; None if it was deleted, since a mapping of it stays valid."""
    if path is None or not path.exists():
        return None
    status = path.stat()
    return status.st_size, status.st_mtime_ns
