"""Files in IDX format, as MNIST's are."""

import gzip
import struct
from pathlib import Path

import torch
from torch import Tensor


def write_idx(file: Path, array: Tensor) -> None:
    """Bytes of any shape; compressed if the name ends in .gz."""
    content = struct.pack(f">BBBB{array.dim()}I", 0, 0, 8, array.dim(), *array.shape) + bytes(array.flatten().tolist())
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def write_images(folder: Path, num_train: int, num_test: int, *, suffix: str = "") -> dict[str, tuple[Tensor, Tensor]]:
    """A folder of random images 4 × 3 with 10 classes; also returned, by the first part of their files' names."""
    source = torch.Generator().manual_seed(0)
    folder.mkdir(exist_ok=True)
    written = {}
    for name, number in (("train", num_train), ("t10k", num_test)):
        images = torch.randint(256, (number, 4, 3), generator=source, dtype=torch.uint8)
        labels = torch.arange(number, dtype=torch.uint8) % 10
        write_idx(folder / f"{name}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", labels)
        written[name] = (images, labels)
    return written
