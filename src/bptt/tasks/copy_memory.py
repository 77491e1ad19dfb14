"""The copying memory problem of Hochreiter & Schmidhuber (1997), as set by Arjovsky, Shah & Bengio (2016)."""

import math
from typing import Any

import torch
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from bptt.contracts import at_least
from bptt.tasks.base import Batch, cross_entropy
from bptt.tasks.synthetic import SyntheticTask

ALPHABET = 8  # symbols 0 … 7
BLANK, GO = 8, 9


class CopyMemory(SyntheticTask):
    """Copying: S random symbols, `delay` − 1 blanks, a go sign, S blanks. The targets are blank, and the symbols at
    the last S timesteps. S is `num_symbols`, ten in the papers.

    Cross-entropy in nats, averaged over all T = delay + 2 S timesteps. Without memory the best possible is
    S · ln 8 / (delay + 2 S), `baseline`. Metric `recall`: the share of the symbols that are predicted correctly.
    """

    input_size = 10
    output_size = 9

    def __init__(self, *, delay: int, num_symbols: int = 10, batch_size: int, **counts: int):
        at_least(1, delay=delay, num_symbols=num_symbols)
        super().__init__(length=delay + 2 * num_symbols, batch_size=batch_size, **counts)
        self.num_symbols = num_symbols
        self.baseline = num_symbols * math.log(ALPHABET) / self.length

    def draw(self, generator: torch.Generator) -> Batch:
        size = self.num_symbols
        word = torch.randint(ALPHABET, (size, self.batch_size), generator=generator, dtype=torch.uint8)
        inputs = torch.full((self.length, self.batch_size), BLANK, dtype=torch.uint8)
        targets = inputs.clone()
        inputs[:size] = word
        inputs[self.length - size - 1] = GO
        targets[-size:] = word
        return Batch(inputs, targets)

    errors = staticmethod(cross_entropy)

    def metrics(self) -> dict[str, Metric]:
        return {"recall": Recall(ALPHABET)}


class Recall(MulticlassAccuracy):
    """Accuracy at the timesteps whose target is a symbol, not a blank."""

    def __init__(self, num_symbols: int, **options: Any):
        super().__init__(num_classes=num_symbols + 1, average="micro", ignore_index=num_symbols, **options)
