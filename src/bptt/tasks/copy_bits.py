"""Copying of a binary pattern, the task on which Zucchet et al. (2023) compare learning rules for the LRU."""

import math

import torch
from torchmetrics import Metric

from bptt.contracts import at_least
from bptt.tasks.base import Batch, binary_cross_entropy
from bptt.tasks.metrics import LabelAccuracy
from bptt.tasks.synthetic import SyntheticTask


class CopyBits(SyntheticTask):
    """Copying of `pattern_length` random vectors of `num_channels` bits: the vectors, `delay` zero vectors, a go sign
    on a channel of its own, zeros while the vectors are the targets.

    T = 2 · pattern_length + delay + 1. Features (T, B, num_channels + 1), 0 or 1; targets (T, B, num_channels); the
    predictions are log-odds. Binary cross-entropy in nats, summed over the channels, at the last `pattern_length`
    timesteps. Without memory the best possible is num_channels · ln 2, `baseline`.
    """

    def __init__(self, *, pattern_length: int, batch_size: int, delay: int, num_channels: int = 7, **counts: int):
        at_least(1, pattern_length=pattern_length, num_channels=num_channels)
        at_least(0, delay=delay)
        super().__init__(length=2 * pattern_length + delay + 1, batch_size=batch_size, **counts)
        self.pattern_length = pattern_length
        self.output_size = num_channels
        self.input_size = num_channels + 1
        self.baseline = num_channels * math.log(2)

    def draw(self, generator: torch.Generator) -> Batch:
        size = self.pattern_length
        pattern = torch.randint(2, (size, self.batch_size, self.output_size), generator=generator, dtype=torch.uint8)
        inputs = torch.zeros(self.length, self.batch_size, self.input_size)
        inputs[:size, :, :-1] = pattern
        inputs[-size - 1, :, -1] = 1
        targets = torch.zeros(self.length, self.batch_size, self.output_size, dtype=torch.uint8)
        targets[-size:] = pattern
        mask = torch.zeros(self.length, self.batch_size, dtype=torch.bool)
        mask[-size:] = True
        return Batch(inputs, targets, mask)

    errors = staticmethod(binary_cross_entropy)

    def metrics(self) -> dict[str, Metric]:
        return {"accuracy": LabelAccuracy()}
