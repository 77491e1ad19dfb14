"""The temporal order problem of Hochreiter & Schmidhuber (1997), as set by Pascanu, Mikolov & Bengio (2013)."""

from typing import Literal

import torch
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from bptt.contracts import at_least, one_of
from bptt.tasks.base import Batch, cross_entropy, last_timestep
from bptt.tasks.synthetic import SyntheticTask

TENTHS = (1, 5, 8)  # a symbol's position is uniform over the integers in [k L/10, (k + 1) L/10)


class TemporalOrder(SyntheticTask):
    """Classification of the order of two or three symbols, each A or B, among distractors; due at the last timestep.

    Token ids: A 0, B 1, distractors 2 … 5, uniform. Of L = `length` timesteps, the first symbol lies in [.1L, .2L),
    the second in [.5L, .6L). With `num_symbols` 3 the third lies in [.8L, .9L), so the two problems share their first
    intervals. Those of Hochreiter & Schmidhuber (6b) are about .1L–.2L, .33L–.43L and .66L–.76L.

    The class is the symbols as binary digits, the earliest first: AA 0, AB 1, BA 2, BB 3; so there are 2^num_symbols
    classes. Cross-entropy in nats; a uniform guess has num_symbols · ln 2. An accuracy of 99 % counts as success
    (Pascanu et al.).

    Raises ValueError for fewer than 10 timesteps, because an interval may then be empty.
    """

    input_size = 6
    per_sequence = True

    def __init__(self, *, length: int, batch_size: int, num_symbols: Literal[2, 3] = 2, **counts: int):
        at_least(10, length=length, remedy="each symbol falls in a tenth of the sequence")
        one_of((2, 3), num_symbols=num_symbols)
        super().__init__(length=length, batch_size=batch_size, **counts)
        self.num_symbols = num_symbols
        self.output_size = 2**num_symbols

    def draw(self, generator: torch.Generator) -> Batch:
        length, batch_size = self.length, self.batch_size
        inputs = torch.randint(2, 6, (length, batch_size), generator=generator, dtype=torch.uint8)
        classes = torch.zeros(batch_size, dtype=torch.uint8)
        for tenth in TENTHS[: self.num_symbols]:
            first, stop = (-(-length * border // 10) for border in (tenth, tenth + 1))  # rounded up, in integers
            position = torch.randint(first, stop, (batch_size,), generator=generator)
            symbol = torch.randint(2, (batch_size,), generator=generator, dtype=torch.uint8)
            inputs[position, torch.arange(batch_size)] = symbol
            classes = 2 * classes + symbol
        return Batch(inputs, classes.expand(length, -1), last_timestep(length, batch_size))

    errors = staticmethod(cross_entropy)

    def metrics(self) -> dict[str, Metric]:
        return {"accuracy": MulticlassAccuracy(self.output_size, average="micro")}
