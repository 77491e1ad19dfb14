"""Images read pixel by pixel: sequential and permuted MNIST (Le, Jaitly & Hinton 2015), and files like it."""

import gzip
import math
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from bptt.contracts import at_least, expanded, refusal, true_or_false
from bptt.tasks.base import Batch, Split, Task, checksum, cross_entropy, last_timestep
from bptt.tasks.buckets import without_a_batch
from bptt.tasks.download import fetch
from bptt.tasks.synthetic import generator

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class Pixels(Task):
    """Image classification, one pixel per timestep, row by row or in a fixed random order; the class is due at the end.

    path: a folder with MNIST's four files, or others with the same names and the IDX format, plain or .gz. With
    `download`, missing files are fetched from `mirror` into it. The last `validation_images` of the training images
    are the validation split, t10k is the test split.
    permuted: read the pixels of all images in one random order, drawn from `permutation_seed`.
    seed: for the order of the training images, shuffled again in every epoch; an incomplete last batch is dropped.
    Validation and test use every image once: their last batch is padded with images outside the mask.

    Features (T, B, 1) in [0, 1], T = height · width. Cross-entropy in nats over the classes.

    Raises ValueError if files are missing, are not IDX, or do not fit together.
    """

    input_size = 1
    per_sequence = True

    def __init__(
        self,
        *,
        batch_size: int,
        seed: int,
        path: str | None = None,
        permuted: bool = False,
        permutation_seed: int = 0,
        validation_images: int = 5000,
        download: bool = False,
        mirror: str = MIRROR,
    ):
        at_least(0, seed=seed, permutation_seed=permutation_seed)
        at_least(1, validation_images=validation_images)
        true_or_false(permuted=permuted, download=download)
        paths = files(path, mirror if download else None)
        images, labels, test_images, test_labels = (read_idx(file) for file in paths)
        for name, pictures, classes in (("train", images, labels), ("t10k", test_images, test_labels)):
            if pictures.dim() != 3 or classes.shape != pictures.shape[:1] or not pictures.numel():
                got = f"{list(pictures.shape)} and {list(classes.shape)}"
                raise ValueError(
                    f"the {name} files of {path} must hold images (N, rows, columns) and N labels, got {got}"
                )
        if images.shape[1:] != test_images.shape[1:]:
            got = f"{list(images.shape[1:])} and {list(test_images.shape[1:])}"
            raise ValueError(f"training and test images of {path} must have one size, got {got}")
        super().__init__(length=images[0].numel(), batch_size=batch_size)
        border = len(images) - validation_images
        if border < batch_size:
            wanted = f"at most {len(images)} images together, those of the train files, with a batch to train on"
            remedy = "use smaller task.validation_images and task.batch_size"
            got = f"{validation_images} and {batch_size}"
            raise ValueError(f"task.validation_images and task.batch_size must be {wanted}, got {got}; {remedy}")
        self._data: dict[Split, tuple[Tensor, Tensor]] = {
            "train": (images[:border], labels[:border]),
            "validation": (images[border:], labels[border:]),
            "test": (test_images, test_labels),
        }
        self.output_size = 1 + int(torch.cat([labels, test_labels]).max())
        self.order = pixel_order(self.length, permutation_seed if permuted else None)
        self.seed = seed

    @cached_property
    def identity(self) -> str:
        parts = [part for images, labels in self._data.values() for part in (images, labels)]
        return f"{sum(map(len, parts)) // 2} images with the checksum {checksum(*parts)}"

    def num_batches(self, split: Split) -> int:
        number = len(self._data[split][0])
        return number // self.batch_size if split == "train" else math.ceil(number / self.batch_size)

    def left_out(self, split: Split) -> str:
        return without_a_batch(len(self._data[split][0]), self.batch_size) if split == "train" else ""

    def batch(self, split: Split, index: int) -> Batch:
        images, labels = self._data[split]
        epoch, index = divmod(index, self.num_batches(split))
        start = index * self.batch_size
        if split == "train":
            order = torch.randperm(len(images), generator=generator(self.seed, split, epoch))
            chosen, present = order[start : start + self.batch_size], None
        else:
            indices = torch.arange(start, start + self.batch_size)
            chosen, present = indices % len(images), indices < len(images)
        batch = scan(images[chosen] / 255, labels[chosen], self.order)
        if present is not None and batch.mask is not None:
            batch.mask &= present
        return batch

    errors = staticmethod(cross_entropy)

    @property
    def class_names(self) -> list[str]:
        return [str(label) for label in range(self.output_size)]

    def metrics(self) -> dict[str, Metric]:
        return {"accuracy": MulticlassAccuracy(self.output_size, average="micro")}

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """Random images 4 × 3 in IDX format: 18 for training, 6 for the test split."""
        source = torch.Generator().manual_seed(0)
        for name in FILES:
            number = 18 if name.startswith("train") else 6
            shape = (number, 4, 3) if "images" in name else (number,)
            drawn = torch.randint(10, shape, generator=source, dtype=torch.uint8)
            header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
            (folder / name).write_bytes(header + bytes(drawn.flatten().tolist()))
        return {"path": str(folder), "validation_images": 6}


def pixel_order(num_pixels: int, seed: int | None) -> Tensor:
    """Pixel index of each timestep (T,): row by row if `seed` is None, else a random order drawn from it."""
    if seed is None:
        return torch.arange(num_pixels)
    return torch.randperm(num_pixels, generator=generator(seed, "permutation"))


def scan(images: Tensor, labels: Tensor, order: Tensor) -> Batch:
    """Convert images (B, rows, columns) to sequences of pixels (T, B, 1), with the label due at the last timestep."""
    pixels = images.flatten(1)[:, order].T.contiguous()
    return Batch(pixels.unsqueeze(-1), labels.expand(len(order), -1), last_timestep(*pixels.shape))


def files(path: str | None, mirror: str | None) -> list[Path]:
    """The four files of a folder, plain or .gz. Missing files are fetched from `mirror`, if given."""
    if path is None:
        wanted = f"a folder with {', '.join(FILES)}"
        raise ValueError(
            refusal("task.path", wanted, path, "name one, with task.download=true to fetch MNIST, or use task=digits")
        )
    folder = expanded(str(path))
    paths = []
    for name in FILES:
        choices = [folder / name, folder / f"{name}.gz"]
        if mirror is not None and not any(choice.is_file() for choice in choices):
            fetch(f"{mirror}{name}.gz", choices[1])
        present = next((choice for choice in choices if choice.is_file()), None)
        if present is None:
            remedy = f"{name} is missing; task.download=true fetches MNIST, task=digits needs no files"
            raise ValueError(refusal("task.path", "a folder with MNIST's files, plain or .gz", str(path), remedy))
        paths.append(present)
    return paths


def read_idx(file: Path) -> Tensor:
    """Read bytes in IDX format: 0, 0, type 8, number of dimensions; each size in 4 bytes, big-endian; data."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as source:
            content = bytearray(source.read())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} must be a readable IDX file, got an error: {error}") from None
    num_dimensions = content[3] if content[:3] == bytes([0, 0, 8]) and len(content) > 3 else 0
    header = 4 + 4 * num_dimensions
    shape = [int.from_bytes(content[start : start + 4], "big") for start in range(4, header, 4)]
    if not shape or len(content) != header + math.prod(shape):
        raise ValueError(
            f"{file} must be an IDX file of bytes, got {len(content)} bytes beginning {content[:4].hex()!r}"
        )
    return torch.frombuffer(content, dtype=torch.uint8, offset=header).view(shape)
