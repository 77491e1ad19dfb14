"""Prediction of the next byte, character or word of a text file."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from bptt.contracts import at_least, expanded, one_of, refusal
from bptt.shapes import Predictions
from bptt.tasks.base import SPLITS, Batch, Split, Task, checked_fractions, checksum, cross_entropy, is_whole
from bptt.tasks.files import stamp
from bptt.tasks.metrics import Bits, Perplexity
from bptt.tasks.tokens import CODERS, END_OF_LINE, mapped_bytes, standard_library


class Text(Task):
    """Next-token prediction over a text in `batch_size` contiguous streams; the state is carried between batches.

    The text is divided by position into train, validation and test (`fractions`), each of these into B streams, each
    stream into batches of `length` timesteps, the last one shorter. An epoch begins with initial states.

    path: any file; by default the sources of Python's standard library, joined in the order of their names.
    validation_path, test_path: files for these parts. Then `path` is the training part, `fractions` have no effect, and
    a part without a file is empty.
    unit: `byte`: the tokens are the bytes that occur. `character`: the Unicode code points that occur in a UTF-8 text.
    `word`: split at white space, with an end-of-line token; the vocabulary has `vocabulary_size` tokens: `<unk>`, and
    the most frequent words of the training part.
    reset_at: a token of this unit at which the state is reset to the initial one, before the token is read, such as a
    separator of documents: no state and no gradient goes from one to the next. `end_of_line` is that token of any unit.
    encoding: `Task.encoding` of another task, with its vocabulary; see `is_whole` for the parts.

    Loss in nats per token. Metrics: bits per byte or character, or perplexity for words; accuracy.

    Raises ValueError if a file is missing, empty, unreadable, compressed, not UTF-8 (characters and words), too short
    for its streams, or has bytes or characters that the given vocabulary lacks.
    """

    reads_parts = True

    def __init__(
        self,
        *,
        length: int,
        batch_size: int,
        path: str | None = None,
        validation_path: str | None = None,
        test_path: str | None = None,
        unit: Literal["byte", "character", "word"] = "byte",
        vocabulary_size: int = 10_000,
        reset_at: str | None = None,
        fractions: Sequence[float] = (0.9, 0.05, 0.05),
        encoding: Mapping[str, Any] | None = None,
    ):
        super().__init__(length=length, batch_size=batch_size)
        one_of(("byte", "character", "word"), unit=unit)
        at_least(2, vocabulary_size=vocabulary_size)
        whole = is_whole(encoding)
        shares = [0.0, 0.0, 1.0] if whole else checked_fractions(fractions)
        self.unit = unit
        separate = {"validation": validation_path, "test": test_path}
        if path is None and any(separate.values()):
            raise ValueError(refusal("task.path", "the training text, beside validation_path and test_path", path))
        given = {"train": path, **{split: each for split, each in separate.items() if each is not None}}
        if whole:
            given = {"train": path}
        self.paths = {split: None if each is None else expanded(str(each)) for split, each in given.items()}
        single_file = len(given) == 1
        texts = [
            standard_library() if each is None else mapped_bytes(each, key=f"task.{key}")
            for each, key in zip(
                self.paths.values(), ("path", *(f"{split}_path" for split in given if split != "train"))
            )
        ]
        self._stamps = {path: stamp(path) for path in self.paths.values()}
        coder = CODERS[unit](texts, shares[0] if single_file else 1.0, vocabulary_size, encoding)
        self.vocabulary = coder.vocabulary
        self.input_size = self.output_size = len(self.vocabulary)
        encoded = [coder.encoded(text) for text in texts]
        self._decoded = coder.ids
        self._parts: dict[Split, Tensor] = {}
        if single_file:
            tokens = encoded[0]
            borders = [round(len(tokens) * sum(shares[:index])) for index in range(4)]
            self._parts = {split: tokens[start:stop] for split, start, stop in zip(SPLITS, borders, borders[1:])}
        else:
            by_split = dict(zip(given, encoded))
            self._parts = {split: by_split.get(split, encoded[0][:0]) for split in SPLITS}
            shares = [float(split in by_split) for split in SPLITS]
        tokens_in_all = sum(map(len, self._parts.values()))
        self._training_tokens = (encoding or {}).get("tokens", tokens_in_all)
        self.divided_otherwise = single_file and not whole and tokens_in_all < self._training_tokens
        if whole:  # a text to predict may be shorter than the batch
            self.batch_size = batch_size = max(1, min(batch_size, len(self._parts["test"]) - 1))
        # A stream of n timesteps reads n + 1 tokens; neighbours share the one at their border.
        self._stream_length = {split: max(0, len(part) - 1) // batch_size for split, part in self._parts.items()}
        name = "the standard library's sources" if path is None else path
        for split, share in zip(SPLITS, shares):
            if share and self._stream_length[split] < 1:
                raise ValueError(
                    f"the {split} part of {given.get(split) or name} must feed {batch_size} streams with 2 tokens or "
                    f"more each, got {len(self._parts[split])} tokens; use a longer text, a smaller task.batch_size or "
                    "other task.fractions"
                )
        self.reset_id = None if reset_at is None else self._token_id(str(reset_at))
        if self.output_size < 2:
            raise ValueError(refusal("task.path", "a text of 2 different tokens or more", str(name)))

    def _token_id(self, token: str) -> int:
        line_end = END_OF_LINE if self.unit == "word" else "\n"
        found = line_end if token == "end_of_line" else token
        is_byte = len(found) == 1 and ord(found) < 256
        in_utf8 = len(found.encode()) > 1 and all(chr(byte) in self.vocabulary for byte in found.encode())
        if self.unit == "byte" and (in_utf8 or not is_byte):  # § is one byte in Latin-1
            remedy = "use task.unit=character" if len(found) == 1 else ""
            raise ValueError(refusal("task.reset_at", "one byte", token, remedy))
        if found not in self.vocabulary:
            wanted = f"a {self.unit} that the training text has, or end_of_line"
            raise ValueError(refusal("task.reset_at", wanted, token, "" if found == token else "no line ends in it"))
        return self.vocabulary.index(found)

    @cached_property
    def identity(self) -> str:
        words = torch.tensor([ord(letter) for letter in "\n".join(self.vocabulary)])
        total = sum(map(len, self._parts.values()))
        return f"a text of {total} tokens with the checksum {checksum(*self._parts.values(), words)}"

    @property
    def encoding(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary, "tokens": self._training_tokens}

    def num_batches(self, split: Split) -> int:
        return math.ceil(self._stream_length[split] / self.length)

    def batch(self, split: Split, index: int) -> Batch:
        for path, before in self._stamps.items():
            if stamp(path) not in (None, before):
                raise ValueError(refusal("task.path", "a text that does not change", str(path), "it has changed"))
        if not self.num_batches(split):
            raise ValueError(f"the {split} part must have text to be read, got none; use other task.fractions")
        index %= self.num_batches(split)
        stream_length = self._stream_length[split]
        start = index * self.length
        stop = min(start + self.length, stream_length)
        origins = [stream * stream_length for stream in range(self.batch_size)]
        tokens = self._parts[split]
        window = torch.stack([tokens[origin + start : origin + stop + 1] for origin in origins], dim=1)
        if self._decoded is not None:
            window = self._decoded[window.int()]
        reset = torch.full((self.batch_size,), index == 0)
        if self.reset_id is not None:
            at_token = window[:-1] == self.reset_id
            at_token[0] |= reset
            reset = at_token if at_token[1:].any() else at_token[0]  # kernels are faster without resets in a batch
        return Batch(window[:-1], window[1:], reset=reset)

    errors = staticmethod(cross_entropy)

    def metrics(self) -> dict[str, Metric]:
        accuracy = MulticlassAccuracy(self.output_size, average="micro")
        own: Metric = Perplexity() if self.unit == "word" else Bits()
        return {"perplexity" if self.unit == "word" else f"bits_per_{self.unit}": own, "accuracy": accuracy}

    def denormalise(self, predictions: Predictions) -> Tensor:
        """Probabilities of the tokens."""
        return predictions.float().cpu().softmax(-1)

    @property
    def prediction_names(self) -> list[str]:
        return self.vocabulary

    def tabulate(self, predictions: Predictions, split: Split, index: int) -> dict[str, list[Any]]:
        """One row for each timestep: stream, position in it, most probable token, next token and its probability."""
        batch, probabilities = self.batch(split, index), self.denormalise(predictions)
        start = index % self.num_batches(split) * self.length
        positions = [(stream, step) for stream in range(self.batch_size) for step in range(batch.num_timesteps)]
        targets = batch.targets.long()
        of_targets = probabilities.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return {
            "stream": [stream for stream, _ in positions],
            "position": [start + step for _, step in positions],
            "predicted": [self.vocabulary[number] for number in probabilities.argmax(-1).T.flatten().tolist()],
            "token": [self.vocabulary[number] for number in targets.T.flatten().tolist()],
            "probability": of_targets.T.flatten().tolist(),
        }

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        path = folder / "text.txt"
        if not path.exists():  # a text in use must not change
            path.write_text("".join(f"{number} squared is {number**2}.\n" for number in range(200)), encoding="utf-8")
        return {"path": str(path)}
