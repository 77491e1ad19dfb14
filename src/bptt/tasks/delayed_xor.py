"""Parity of some earlier bits: a single bit has no information about it."""

import math

import torch
from torchmetrics import Metric

from bptt.contracts import at_least, refusal
from bptt.tasks.base import Batch, binary_cross_entropy
from bptt.tasks.metrics import LabelAccuracy
from bptt.tasks.synthetic import SyntheticTask


class DelayedXor(SyntheticTask):
    """y_t = x_{t−delay} ⊕ x_{t−delay−1} ⊕ … ⊕ x_{t−delay−num_bits+1}, of fair bits x, at every timestep t.

    num_bits: 2 is the delayed exclusive or, 1 an echo, null the running parity of all bits so far.
    The first loss is at the first timestep at which all these bits have been read.

    Features (T, B, 1), 0 or 1; targets (T, B, 1); the prediction is a log-odds. Binary cross-entropy in nats.
    A model that lacks one of the bits cannot do better than ln 2, `baseline`.

    Raises ValueError if the sequence is too short for any loss.
    """

    input_size = 1
    output_size = 1
    baseline = math.log(2)

    def __init__(self, *, length: int, batch_size: int, delay: int = 0, num_bits: int | None = 2, **counts: int):
        super().__init__(length=length, batch_size=batch_size, **counts)
        at_least(0, delay=delay)
        if num_bits is not None:
            at_least(1, num_bits=num_bits)
        self.delay = delay
        self.num_bits = num_bits
        self.first = delay + (num_bits or 1) - 1  # timestep of the first loss
        if length <= self.first:
            remedy = f"the first answer is due after {self.first + 1} timesteps"
            raise ValueError(refusal("length", f"> {self.first}", length, remedy))

    def draw(self, generator: torch.Generator) -> Batch:
        length, batch_size = self.length, self.batch_size
        bits = torch.randint(2, (length, batch_size), generator=generator, dtype=torch.uint8)
        # parity[n] is the parity of the first n bits; that of bits m … n − 1 is parity[m] ⊕ parity[n].
        parity = torch.cat([torch.zeros(1, batch_size), bits.cumsum(0)]).to(torch.int32) % 2
        stop = torch.arange(self.first, length) - self.delay + 1
        start = torch.zeros_like(stop) if self.num_bits is None else stop - self.num_bits
        targets = torch.zeros(length, batch_size, 1, dtype=torch.uint8)
        targets[self.first :, :, 0] = parity[stop] ^ parity[start]
        mask = torch.ones(length, batch_size, dtype=torch.bool)
        mask[: self.first] = False
        return Batch(bits.unsqueeze(-1).float(), targets, mask)

    errors = staticmethod(binary_cross_entropy)

    def metrics(self) -> dict[str, Metric]:
        return {"accuracy": LabelAccuracy()}
