"""Metrics that several tasks share."""

import math

from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAccuracy


class Bits(Metric):
    """Mean cross-entropy in bits per timestep, from predictions (N, V) and class ids (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.nats = MeanMetric(nan_strategy=float("nan"))

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        self.nats.update(nn.functional.cross_entropy(predictions.float(), targets.long()), len(targets))

    def compute(self) -> Tensor:
        return self.nats.compute() / math.log(2)

    def reset(self) -> None:
        super().reset()
        self.nats.reset()


class Perplexity(Bits):
    """Exponential of the mean cross-entropy in nats."""

    def compute(self) -> Tensor:
        return self.nats.compute().exp()


class LabelAccuracy(BinaryAccuracy):
    """Share of labels whose log-odds, (N, V), have the right sign.

    BinaryAccuracy would read a batch whose values all lie in [0, 1] as probabilities, with threshold ½.
    """

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        super().update((predictions > 0).int(), targets)
