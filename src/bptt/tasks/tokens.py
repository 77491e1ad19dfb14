"""Texts as token ids: bytes, characters or words."""

import codecs
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bptt.tasks.files import regular_file, uncompressed_text

BLOCK = 1 << 22  # bytes that are scanned at a time, so that texts of any size fit into memory
UNKNOWN, END_OF_LINE = "<unk>", "<eol>"


def standard_library() -> Tensor:
    """The top-level modules of Python's standard library, as bytes (N,)."""
    folder = Path(sysconfig.get_path("stdlib"))
    sources = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    if not sources:
        raise ValueError(
            f"the default text needs Python's own sources, found none in {folder}; name a file: task.path=…"
        )
    return torch.frombuffer(bytearray(sources), dtype=torch.uint8)


def mapped_bytes(path: Path, *, key: str = "task.path") -> Tensor:
    """A file as bytes (N,), memory-mapped, so that pages are read on first use."""
    uncompressed_text(regular_file(path, "a text file", key=key), "a text file", key=key)
    return torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)


class Bytes:
    """Tokens that are the bytes of the text; `ids` maps them to 0 … V − 1 when a batch is read."""

    def __init__(self, texts: Sequence[Tensor], fraction: float, size: int, encoding: Mapping[str, Any] | None) -> None:
        occurring = sorted({byte for text in texts for byte in occurring_bytes(text)})
        self.vocabulary = list(encoding["vocabulary"]) if encoding else [chr(byte) for byte in occurring]
        known = [ord(letter) for letter in self.vocabulary]
        check_known(map(chr, occurring), self.vocabulary, "byte")
        self.ids: Tensor | None = torch.zeros(256, dtype=torch.uint8)
        self.ids[known] = torch.arange(len(known), dtype=torch.uint8)

    def encoded(self, text: Tensor) -> Tensor:
        return text


class Characters:
    """Tokens that are the Unicode code points of texts in UTF-8."""

    def __init__(self, texts: Sequence[Tensor], fraction: float, size: int, encoding: Mapping[str, Any] | None) -> None:
        occurring = sorted({letter for text in texts for part in decoded(text) for letter in set(part)})
        self.vocabulary = list(encoding["vocabulary"]) if encoding else occurring
        check_known(occurring, self.vocabulary, "character")
        self.ids: Tensor | None = None

    def encoded(self, text: Tensor) -> Tensor:
        order = np.array([ord(letter) for letter in self.vocabulary])
        by_point = np.argsort(order)
        parts = (np.frombuffer(part.encode("utf-32-le"), dtype=np.uint32) for part in decoded(text))
        return on_disk(by_point[np.searchsorted(order[by_point], part)].astype(np.int32) for part in parts)


class Words:
    """Tokens that are the words and ends of lines of texts in UTF-8; rare words are `<unk>`."""

    def __init__(self, texts: Sequence[Tensor], fraction: float, size: int, encoding: Mapping[str, Any] | None) -> None:
        if encoding:
            self.vocabulary = list(encoding["vocabulary"])
        else:
            counts: Counter[str] = Counter()
            left = round(fraction * sum(len(part) for part in words(texts[0])))  # words of the training part to count
            for part in words(texts[0]):
                counts.update(part[:left])
                left = max(0, left - len(part))
            counts.pop(UNKNOWN, None)
            self.vocabulary = [UNKNOWN, *(word for word, _ in counts.most_common(size - 1))]
        self._ids = {word: index for index, word in enumerate(self.vocabulary)}
        self.ids: Tensor | None = None

    def encoded(self, text: Tensor) -> Tensor:
        return on_disk(np.array([self._ids.get(word, 0) for word in part], dtype=np.int32) for part in words(text))


CODERS: dict[str, type[Bytes] | type[Characters] | type[Words]] = {
    "byte": Bytes,
    "character": Characters,
    "word": Words,
}


def check_known(occurring: Iterator[str] | Sequence[str], vocabulary: Sequence[str], unit: str) -> None:
    """Raise ValueError if a text has a token that the vocabulary lacks."""
    unknown = sorted(set(occurring) - set(vocabulary))
    if unknown:
        wanted = f"a text in the vocabulary of the run, {len(vocabulary)} {unit}s"
        shown = f"{len(unknown)} others, such as {unknown[0]!r}"
        raise ValueError(f"task.path must be {wanted}, got {shown}")


def occurring_bytes(raw: Tensor) -> list[int]:
    """Distinct bytes of a text, ascending."""
    counts = torch.zeros(256, dtype=torch.long)
    for block in torch.split(raw, BLOCK):
        counts += torch.bincount(block, minlength=256)
    distinct: list[int] = counts.nonzero().flatten().tolist()
    return distinct


def on_disk(parts: Iterator[np.ndarray[Any, np.dtype[np.int32]]]) -> Tensor:
    """Token ids (N,), memory-mapped from an unnamed temporary file."""
    with tempfile.NamedTemporaryFile() as file:
        total = 0
        for part in parts:
            part.tofile(file)
            total += len(part)
        file.flush()
        if total == 0:
            return torch.zeros(0, dtype=torch.int32)
        return torch.from_file(file.name, shared=False, size=total, dtype=torch.int32)


def decoded(raw: Tensor) -> Iterator[str]:
    """Yield a text in UTF-8, one block at a time. Raises ValueError with the position of the first invalid byte."""
    seen = len(codecs.BOM_UTF8) if raw[:3].numpy().tobytes() == codecs.BOM_UTF8 else 0  # a mark, and no character
    decoder, blocks = codecs.getincrementaldecoder("utf-8")(), torch.split(raw[seen:], BLOCK)
    for number, block in enumerate(blocks):
        content = block.numpy().tobytes()
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(content, final=number + 1 == len(blocks))
        except UnicodeDecodeError as error:
            position = seen - pending + error.start
            remedy = "use task.unit=byte, or convert it: iconv -f LATIN1 -t UTF-8 FILE > NEW"
            got = f"byte 0x{error.object[error.start]:02x} at position {position}"
            raise ValueError(f"task.path must be a text in UTF-8, got {got}; {remedy}") from None
        if "\0" in text:
            remedy = "use task.unit=byte, or convert it if it is UTF-16: iconv -f UTF-16LE -t UTF-8 FILE > NEW"
            raise ValueError(f"task.path must be a text in UTF-8, got byte 0x00 in the block at {seen}; {remedy}")
        seen += len(content)
        yield text


def words(raw: Tensor) -> Iterator[list[str]]:
    """Yield the words in order, with the end-of-line token, one block of the text at a time."""
    rest = ""
    for block in decoded(raw):
        text = rest + block
        end = 1 + max(text.rfind(" "), text.rfind("\n"))  # an unfinished word is left for the next block
        yield words_and_lines(text[:end])
        rest = text[end:]
    yield words_and_lines(rest)


def words_and_lines(text: str) -> list[str]:
    """The words of a text, with a token at every end of a line."""
    first, *lines = text.split("\n")
    return [*first.split(), *(word for line in lines for word in (END_OF_LINE, *line.split()))]
