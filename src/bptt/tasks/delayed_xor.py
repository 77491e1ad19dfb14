"""Parity of several earlier bits. A single bit has no information about it."""

import math

import torch
from torchmetrics import Metric

from bptt.contracts import at_least, refusal
from bptt.tasks.base import Batch, binary_cross_entropy
from bptt.tasks.metrics import LabelAccuracy
from bptt.tasks.synthetic import SyntheticTask


class DelayedXor(SyntheticTask):
    """y_t = x_{t−delay} ⊕ x_{t−delay−spacing} ⊕ … ⊕ x_{t−delay−(num_bits−1)·spacing}, of fair bits x, at every t.

    num_bits: 2 is the delayed exclusive or, 1 an echo, null the running parity of all bits so far (at this spacing).
    spacing: timesteps between the bits. With spacing = delay = d it is x_{t−d} ⊕ x_{t−2d} (Engelken 2023).
    The first loss is at the first timestep at which all these bits have been read.

    Features (T, B, 1), 0 or 1; targets (T, B, 1); the prediction is a log-odds. Binary cross-entropy in nats.
    A model that lacks one of the bits cannot do better than ln 2, `baseline`.

    Raises ValueError if the sequence is too short for any loss.
    """

    input_size = 1
    output_size = 1
    baseline = math.log(2)

    def __init__(
        self,
        *,
        length: int,
        batch_size: int,
        delay: int = 0,
        num_bits: int | None = 2,
        spacing: int = 1,
        **counts: int,
    ):
        super().__init__(length=length, batch_size=batch_size, **counts)
        at_least(0, delay=delay)
        at_least(1, spacing=spacing)
        if num_bits is not None:
            at_least(1, num_bits=num_bits)
        self.delay = delay
        self.num_bits = num_bits
        self.spacing = spacing
        self.first = delay + ((num_bits or 1) - 1) * spacing  # timestep of the first loss
        if length <= self.first:
            remedy = f"the first answer is due after {self.first + 1} timesteps"
            raise ValueError(refusal("length", f"> {self.first}", length, remedy))

    def draw(self, generator: torch.Generator) -> Batch:
        length, batch_size = self.length, self.batch_size
        bits = torch.randint(2, (length, batch_size), generator=generator, dtype=torch.uint8)
        rows = -(-length // self.spacing)
        padded = torch.cat([bits, bits.new_zeros(rows * self.spacing - length, batch_size)])
        # counts[n]: ones among the bits n, n − spacing, n − 2 · spacing, …
        counts = padded.view(rows, self.spacing, batch_size).cumsum(0).view(-1, batch_size)
        last = torch.arange(self.first, length) - self.delay
        ones = counts[last]
        if self.num_bits is not None:
            before = last - self.num_bits * self.spacing
            ones = ones - torch.where((before >= 0).unsqueeze(-1), counts[before.clamp(min=0)], 0)
        targets = torch.zeros(length, batch_size, 1, dtype=torch.uint8)
        targets[self.first :, :, 0] = ones % 2
        mask = torch.ones(length, batch_size, dtype=torch.bool)
        mask[: self.first] = False
        return Batch(bits.unsqueeze(-1).float(), targets, mask)

    errors = staticmethod(binary_cross_entropy)

    def metrics(self) -> dict[str, Metric]:
        return {"accuracy": LabelAccuracy()}
