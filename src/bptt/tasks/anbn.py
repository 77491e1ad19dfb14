"""The language aⁿbⁿ as an endless text (Tallec & Ollivier 2018, Unbiased online recurrent optimization)."""

import math
from bisect import bisect_right

import torch
from torch import Tensor
from torchmetrics import Metric

from bptt.contracts import at_least
from bptt.tasks.base import Batch, Split, cross_entropy
from bptt.tasks.metrics import Bits
from bptt.tasks.synthetic import SeededTask, generator

BLOCK = 256  # strings drawn in one call


class AnBn(SeededTask):
    """Prediction of the next character of repeated strings "aⁿ\\nbⁿ\\n", n uniform over 1 … `max_count`.

    Token ids: a 0, b 1, end of line 2. Each sequence of the batch is an endless stream that begins with a full string.
    The state is carried from batch to batch and from epoch to epoch.

    Loss in nats per character. Metric: bits per character. A string of 2n + 2 characters holds log₂ max_count bits, all
    in its number of a, so the best possible is `floor` = log₂ max_count / (max_count + 3): 5/35 = .1429 for 32.
    """

    input_size = 3
    output_size = 3

    def __init__(self, *, length: int, batch_size: int, max_count: int = 32, **counts: int):
        super().__init__(length=length, batch_size=batch_size, **counts)
        at_least(1, max_count=max_count)
        self.max_count = max_count
        self.floor = math.log2(max_count) / (max_count + 3)
        self._starts: dict[tuple[Split, int], list[int]] = {}  # start of each block, by stream

    def batch(self, split: Split, index: int) -> Batch:
        first = index * self.length
        streams = [self.characters(split, stream, first, self.length + 1) for stream in range(self.batch_size)]
        window = torch.stack(streams, dim=1)
        return Batch(window[:-1], window[1:], reset=torch.full((self.batch_size,), index == 0))

    def characters(self, split: Split, stream: int, first: int, size: int) -> Tensor:
        """`size` characters of a stream, beginning at index `first`, as token ids (size,)."""
        starts = self._starts.setdefault((split, stream), [0])
        while starts[-1] < first:
            starts.append(starts[-1] + len(self._block(split, stream, len(starts) - 1)))
        number = bisect_right(starts, first) - 1
        skipped = first - starts[number]
        text = self._block(split, stream, number)
        while len(text) < skipped + size:
            number += 1
            text = torch.cat([text, self._block(split, stream, number)])
        return text[skipped : skipped + size]

    def _block(self, split: Split, stream: int, number: int) -> Tensor:
        source = generator(self.seed, split, stream, number)
        counts = torch.randint(1, self.max_count + 1, (BLOCK,), generator=source)
        ones = torch.ones_like(counts)
        letters = torch.tensor([0, 2, 1, 2], dtype=torch.uint8).repeat(BLOCK)
        return letters.repeat_interleave(torch.stack([counts, ones, counts, ones], dim=1).flatten())

    errors = staticmethod(cross_entropy)

    def metrics(self) -> dict[str, Metric]:
        return {"bits_per_character": Bits()}
