"""Delayed echo of several binary channels: a vector of labels at every timestep, as in polyphonic music."""

import math

import torch
from torchmetrics import Metric

from bptt.contracts import at_least, between, refusal
from bptt.tasks.base import Batch, binary_cross_entropy
from bptt.tasks.metrics import LabelAccuracy
from bptt.tasks.synthetic import SyntheticTask


class MultiLabelEcho(SyntheticTask):
    """y_{t,v} = x_{t−delay,v} for V = `num_channels` independent channels, each 1 with the given `probability`.

    Features (T, B, V), 0 or 1; targets (T, B, V); the predictions are log-odds. The first loss is at timestep `delay`:
    binary cross-entropy in nats, summed over the channels, like the log-likelihood of a frame in piano-roll modelling
    (Boulanger-Lewandowski, Bengio & Vincent 2012). Without memory the best possible is V times the entropy of
    one channel, `baseline`.

    Raises ValueError if length <= delay.
    """

    def __init__(
        self,
        *,
        length: int,
        batch_size: int,
        delay: int,
        num_channels: int = 8,
        probability: float = 0.5,
        **counts: int,
    ):
        super().__init__(length=length, batch_size=batch_size, **counts)
        at_least(0, delay=delay)
        at_least(1, num_channels=num_channels)
        between(0, 1, open_low=True, probability=probability)
        if length <= delay:
            raise ValueError(refusal("length", f"> delay = {delay}", length))
        self.delay = delay
        self.probability = probability
        self.input_size = self.output_size = num_channels
        rates = (probability, 1 - probability)
        self.baseline = -num_channels * sum(rate * math.log(rate) for rate in rates)

    def draw(self, generator: torch.Generator) -> Batch:
        length, batch_size, delay = self.length, self.batch_size, self.delay
        channels = torch.rand(length, batch_size, self.input_size, generator=generator) < self.probability
        targets = torch.zeros_like(channels, dtype=torch.uint8)
        targets[delay:] = channels[: length - delay]
        mask = torch.ones(length, batch_size, dtype=torch.bool)
        mask[:delay] = False
        return Batch(channels.float(), targets, mask)

    errors = staticmethod(binary_cross_entropy)

    def metrics(self) -> dict[str, Metric]:
        return {"accuracy": LabelAccuracy()}
