"""Bits that depend on the bits 3 and 8 timesteps before (R2RT 2016, Styles of truncated backpropagation)."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from bptt.tasks.base import Batch, Split, cross_entropy
from bptt.tasks.synthetic import SeededTask, generator

NEAR, FAR = 3, 8


class LagBits(SeededTask):
    """Prediction of Y_t from X_1 … X_t, for fair bits X_t and P(Y_t = 1) = ½ + ½ X_{t−3} − ¼ X_{t−8}.

    Endless streams: the state is carried from batch to batch and from epoch to epoch, and the dependencies cross batch
    borders. X before the first timestep of a stream is drawn too, but is no input. So Y has the same distribution at
    all timesteps, and only the first 8 are harder to predict.

    Token ids 0 and 1 in, two classes out. Cross-entropy in nats per timestep. `plateaus`: its value if the
    network has learnt neither dependency, only the one at lag 3, or both.
    """

    input_size = 2
    output_size = 2
    plateaus = (0.6616, 0.5192, 0.4545)

    def batch(self, split: Split, index: int) -> Batch:
        num_earlier = math.ceil(FAR / self.length)  # batches that the farthest lag reaches into
        drawn = torch.cat([self._bits(split, number) for number in range(index - num_earlier, index + 1)])
        bits = drawn[-self.length - FAR :]
        near, far = bits[FAR - NEAR : -NEAR], bits[:-FAR]
        coins = torch.rand(self.length, self.batch_size, generator=generator(self.seed, split, "Y", index))
        targets = (coins < 0.5 + 0.5 * near - 0.25 * far).to(torch.uint8)
        return Batch(bits[FAR:], targets, reset=torch.full((self.batch_size,), index == 0))

    def _bits(self, split: Split, index: int) -> Tensor:
        """X over the timesteps of batch `index`, (T, B)."""
        source = generator(self.seed, split, "X", index)
        return torch.randint(2, (self.length, self.batch_size), generator=source, dtype=torch.uint8)

    errors = staticmethod(cross_entropy)

    def metrics(self) -> dict[str, Metric]:
        return {"accuracy": MulticlassAccuracy(2, average="micro")}
