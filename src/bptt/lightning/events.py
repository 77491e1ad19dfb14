"""TensorBoard's event files, written without a thread."""

import itertools
import os
import re
import socket
import struct
import time
from pathlib import Path
from typing import Any

from google_crc32c import value as crc32c
from tensorboard.compat.proto.event_pb2 import Event
from torch.utils.tensorboard import FileWriter, SummaryWriter

from bptt.atomic_files import naming
from bptt.lightning.descriptions import description

PLUGINS = {"simple_value": "scalars", "histo": "histograms", "image": "images"}  # by the kind of value
STAMP = re.compile(r"events\.out\.tfevents\.(\d{10})\.")


class EventFile:
    """Writes events to a new file of a folder at once, so that TensorBoard can read them.

    TensorBoard's own writer has a thread that opens the file for every event and computes its checksum in Python.
    Training waits for the interpreter meanwhile: half a millisecond for a point of the curves, 30 for a picture.
    """

    numbers = itertools.count()

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        stamp = max(int(time.time()), newest_stamp(self.folder) + 1)
        name = f"{stamp:010d}.{socket.gethostname()}.{os.getpid()}.{next(self.numbers)}.bptt"
        # Unbuffered: after a write has failed on a full disk, closing the file must not write again.
        self.file = open(self.folder / f"events.out.tfevents.{name}", "xb", buffering=0)  # noqa: SIM115  # `close` closes it
        self.described: set[str] = set()
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add_event(self, event: Event) -> None:
        self.describe(event)
        left = memoryview(record(event.SerializeToString()))
        with naming(Path(self.file.name)):
            while left:
                left = left[self.file.write(left) :]

    def describe(self, event: Event) -> None:
        """Add a description to the first value of every tag. TensorBoard reads it from there."""
        for value in event.summary.value:
            if value.tag in self.described:
                continue
            self.described.add(value.tag)
            plugin, text = PLUGINS.get(value.WhichOneof("value") or ""), description(value.tag)
            if plugin is not None and text:
                value.metadata.summary_description = text
                value.metadata.plugin_data.plugin_name = plugin  # required in metadata

    def get_logdir(self) -> str:
        return str(self.folder)

    def flush(self) -> None:
        """Do nothing, since the file has no buffer."""

    def close(self) -> None:
        self.file.close()


def newest_stamp(folder: Path) -> int:
    """The largest time stamp, in seconds, in the names of a folder's event files; −1 if there are none.

    TensorBoard reads files in the order of their names. If the clock was set back before a resumption, the file of the
    resumed run must still come last, because its mark "resumed at this step" discards points of the files before.
    """
    matches = (STAMP.match(path.name) for path in folder.iterdir())
    return max((int(match[1]) for match in matches if match), default=-1)


class EventWriter(SummaryWriter):
    """torch's `SummaryWriter` with an `EventFile`. Only `add_scalars` still makes TensorBoard's own files."""

    file_writer: Any
    all_writers: Any

    def __init__(self, folder: str):
        super().__init__(folder)

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            writer: Any = FileWriter.__new__(FileWriter)  # without its `__init__`, which starts a file and a thread
            writer.event_writer = EventFile(self.log_dir)
            self.file_writer, self.all_writers = writer, {self.log_dir: writer}
        return self.file_writer


def record(data: bytes) -> bytes:
    """One record of the file format: length and data, each with its checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, masked_crc32c(length), data, masked_crc32c(data)))


def masked_crc32c(data: bytes) -> bytes:
    """CRC-32C, rotated by 15 bits, plus a constant: the masked checksum of the file format, little-endian."""
    checksum = crc32c(data)
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)
