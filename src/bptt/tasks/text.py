"""Prediction of the next byte or word of a text file."""

import math
import sysconfig
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from bptt.contracts import at_least, one_of, refusal
from bptt.tasks.base import SPLITS, Batch, Split, Task, checked_fractions, checksum, cross_entropy
from bptt.tasks.metrics import Bits, Perplexity

BLOCK = 1 << 22  # tokens read at a time when a whole text is scanned, so that any size fits in memory
UNKNOWN, END_OF_LINE = "<unk>", "<eol>"


class Text(Task):
    """Next-token prediction over a text in `batch_size` contiguous streams; the state is carried between batches.

    The text is divided by position into train, validation and test (`fractions`), each of these into B streams, each
    stream into batches of `length` timesteps, the last one shorter. An epoch begins with initial states.

    path: any file; by default the sources of Python's standard library, joined in the order of their names.
    unit: `byte`: the tokens are the bytes that occur. `word`: split at white space, with an end-of-line token; the
    vocabulary is the `vocabulary_size` most frequent words of the training part, all others are `<unk>`.

    Loss in nats per token. Metrics: bits per byte, or perplexity for words; accuracy.

    Raises ValueError if the file is missing, empty, unreadable, or too short for its streams.
    """

    def __init__(
        self,
        *,
        length: int,
        batch_size: int,
        path: str | None = None,
        unit: Literal["byte", "word"] = "byte",
        vocabulary_size: int = 10_000,
        fractions: Sequence[float] = (0.9, 0.05, 0.05),
    ):
        super().__init__(length=length, batch_size=batch_size)
        one_of(("byte", "word"), unit=unit)
        at_least(2, vocabulary_size=vocabulary_size)
        fractions = checked_fractions(fractions)
        self.unit = unit
        self.path = None if path is None else Path(str(path)).expanduser()
        raw = standard_library() if self.path is None else mapped_bytes(self.path)
        name = "the standard library's sources" if path is None else path
        self._stamp = stamp(self.path)
        if unit == "byte":
            self.tokens = raw
            occurring = occurring_bytes(raw)
            self.vocabulary = [chr(byte) for byte in occurring.tolist()]
            self.ids = torch.zeros(256, dtype=torch.uint8)
            self.ids[occurring] = torch.arange(len(occurring), dtype=torch.uint8)
        else:
            self.tokens, self.vocabulary = encoded_words(raw, vocabulary_size, fractions[0])
        self.input_size = self.output_size = len(self.vocabulary)
        borders = [round(len(self.tokens) * sum(fractions[:index])) for index in range(4)]
        self._first = dict(zip(SPLITS, borders))
        # A stream of n timesteps reads n + 1 tokens; neighbours share the one at their border.
        sizes = {split: max(0, stop - start) for split, start, stop in zip(SPLITS, borders, borders[1:])}
        self._stream_length = {split: max(0, size - 1) // batch_size for split, size in sizes.items()}
        for split, share in zip(SPLITS, fractions):
            if share and self._stream_length[split] < 1:
                raise ValueError(
                    f"the {split} part of {name} must feed {batch_size} streams with 2 tokens or more each, got "
                    f"{sizes[split]} tokens; use a longer text, a smaller task.batch_size or other task.fractions"
                )
        if self.output_size < 2:
            raise ValueError(refusal("task.path", "a text of 2 different tokens or more", str(name)))

    @cached_property
    def identity(self) -> str:
        words = torch.tensor([ord(letter) for letter in "\n".join(self.vocabulary)])
        return f"a text of {len(self.tokens)} tokens with the checksum {checksum(self.tokens, words)}"

    def num_batches(self, split: Split) -> int:
        return math.ceil(self._stream_length[split] / self.length)

    def batch(self, split: Split, index: int) -> Batch:
        if stamp(self.path) not in (None, self._stamp):
            raise ValueError(refusal("task.path", "a text that stays as it is", str(self.path), "it has changed"))
        if not self.num_batches(split):
            raise ValueError(f"the {split} part must have text to be read, got none; use other task.fractions")
        index %= self.num_batches(split)
        stream_length = self._stream_length[split]
        start = index * self.length
        stop = min(start + self.length, stream_length)
        origins = [self._first[split] + stream * stream_length for stream in range(self.batch_size)]
        window = torch.stack([self.tokens[origin + start : origin + stop + 1] for origin in origins], dim=1)
        if self.unit == "byte":
            window = self.ids[window.int()]
        reset = torch.full((self.batch_size,), index == 0)
        return Batch(window[:-1], window[1:], reset=reset)

    errors = staticmethod(cross_entropy)

    def metrics(self) -> dict[str, Metric]:
        accuracy = MulticlassAccuracy(self.output_size, average="micro")
        own: dict[str, Metric] = {"bits_per_byte": Bits()} if self.unit == "byte" else {"perplexity": Perplexity()}
        return {**own, "accuracy": accuracy}

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        path = folder / "text.txt"
        if not path.exists():  # a text in use must stay as it is
            path.write_text("".join(f"{number} squared is {number**2}.\n" for number in range(200)), encoding="utf-8")
        return {"path": str(path)}


def standard_library() -> Tensor:
    """The top-level modules of Python's standard library, as bytes (N,)."""
    folder = Path(sysconfig.get_path("stdlib"))
    sources = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    if not sources:
        raise ValueError(
            f"the default text needs Python's own sources, found none in {folder}; name a file: task.path=…"
        )
    return torch.frombuffer(bytearray(sources), dtype=torch.uint8)


def mapped_bytes(path: Path) -> Tensor:
    """A file as bytes (N,), memory-mapped, so that pages are read on first use."""
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise ValueError(refusal("task.path", "a text file", str(path), "no such file is there")) from None
    except OSError as error:
        reason = "it is a folder" if isinstance(error, IsADirectoryError) else str(error.strerror)
        raise ValueError(refusal("task.path", "a readable text file", str(path), reason)) from None
    size = path.stat().st_size
    if size == 0:
        raise ValueError(refusal("task.path", "a text with 2 tokens or more", str(path), "the file is empty"))
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)


def stamp(path: Path | None) -> tuple[int, int] | None:
    """(size, mtime) of the file, to detect edits; None if it was deleted, since the mapping stays valid."""
    if path is None or not path.exists():
        return None
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def occurring_bytes(raw: Tensor) -> Tensor:
    """Distinct bytes of a text, ascending."""
    counts = torch.zeros(256, dtype=torch.long)
    for block in torch.split(raw, BLOCK):
        counts += torch.bincount(block, minlength=256)
    return counts.nonzero().flatten()


def encoded_words(raw: Tensor, vocabulary_size: int, train_fraction: float) -> tuple[Tensor, list[str]]:
    """Word ids (N,) of the text, memory-mapped from an unnamed temporary file, and the words by id."""
    counts: Counter[str] = Counter()
    total = sum(len(part) for part in _words(raw))
    room = round(train_fraction * total)  # words of the training part still to count
    for part in _words(raw):
        counts.update(part[:room])
        room = max(0, room - len(part))
    counts.pop(UNKNOWN, None)
    words = [UNKNOWN, *(word for word, _ in counts.most_common(vocabulary_size - 1))]
    ids = {word: index for index, word in enumerate(words)}
    with tempfile.NamedTemporaryFile() as file:
        for part in _words(raw):
            array("i", (ids.get(word, 0) for word in part)).tofile(file)
        file.flush()
        if total == 0:
            return torch.zeros(0, dtype=torch.int32), words
        return torch.from_file(file.name, shared=False, size=total, dtype=torch.int32), words


def _words(raw: Tensor) -> Iterator[list[str]]:
    """Yield the words in order, with the end-of-line token, one block of the text at a time."""
    rest = b""
    for block in torch.split(raw, BLOCK):
        text = rest + block.numpy().tobytes()
        end = 1 + max(text.rfind(b" "), text.rfind(b"\n"))  # an unfinished word is left for the next block
        yield _split(text[:end])
        rest = text[end:]
    yield _split(rest)


def _split(text: bytes) -> list[str]:
    first, *lines = text.decode(errors="replace").split("\n")
    return [*first.split(), *(word for line in lines for word in (END_OF_LINE, *line.split()))]
