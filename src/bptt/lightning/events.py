"""TensorBoard's event files, written without a thread."""

import itertools
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

from google_crc32c import value as crc32c
from tensorboard.compat.proto.event_pb2 import Event
from torch.utils.tensorboard import FileWriter, SummaryWriter


class EventFile:
    """Appends events to a new file of a folder, each on the disk once it is added.

    TensorBoard's own leaves that to a thread, which opens the file for every event and takes its checksum in Python.
    While it does, training waits for the interpreter: half a millisecond for a point of the curves, 30 for a picture.
    """

    numbers = itertools.count()

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(self.numbers)}"
        self.file = open(self.folder / f"events.out.tfevents.{name}", "wb")  # noqa: SIM115
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add_event(self, event: Event) -> None:
        self.file.write(record(event.SerializeToString()))
        self.file.flush()

    def get_logdir(self) -> str:
        return str(self.folder)

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()

    def __del__(self) -> None:
        self.close()


class EventWriter(SummaryWriter):
    """torch's, with such a file."""

    file_writer: Any
    all_writers: Any

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            self.file_writer = FileWriter.__new__(FileWriter)  # its own would begin a file and a thread
            self.file_writer.event_writer = EventFile(self.log_dir)
            self.all_writers = {self.log_dir: self.file_writer}
        return self.file_writer


def record(data: bytes) -> bytes:
    """The frame of the file format: length and data, each with its checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, masked_crc32c(length), data, masked_crc32c(data)))


def masked_crc32c(data: bytes) -> bytes:
    """CRC-32C, rotated by 15 bits, and a constant added, so that checksums of checksums are of use."""
    checksum = crc32c(data)
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)
