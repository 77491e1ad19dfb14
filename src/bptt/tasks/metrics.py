"""Metrics that several tasks share."""

import math

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAccuracy, BinaryF1Score


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
    """Share of labels that are not NaN whose log-odds, (N, V), have the right sign.

    BinaryAccuracy would read a batch whose values all lie in [0, 1] as probabilities, with threshold ½.
    """

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        known = ~targets.isnan()
        super().update((predictions > 0).int()[known], targets[known].int())


class MeanSquared(Metric):
    """Mean of ((prediction − value) · scale)² over all values that are not NaN.

    Predictions (N, V); targets (N, V), or (N, V, 2) with the value first. scale: (V,), from standardised to own units.
    """

    power = 2
    higher_is_better = False
    total: Tensor
    count: Tensor
    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale, persistent=False)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        values = targets[..., 0] if targets.dim() == 3 else targets
        observed = ~values.isnan()
        errors = (predictions.double() - values.double()) * self.scale
        self.total += errors[observed].abs().pow(self.power).sum()
        self.count += observed.sum()

    def compute(self) -> Tensor:
        return (self.total / self.count).float()


class MeanAbsolute(MeanSquared):
    """Mean of |prediction − value| · scale over all values that are not NaN."""

    power = 1


class Skill(Metric):
    """1 − Σ ((prediction − value) · scale)² / Σ ((persistence − value) · scale)² over all values that are not NaN.

    Predictions (N, V); targets (N, V, 2): the value, and the last value known at the time of prediction. 1 is perfect,
    0 is as good as persistence, negative is worse (Murphy 1988, with persistence as the reference). scale: (V,), to
    standardised values.
    """

    higher_is_better = True
    own: Tensor
    reference: Tensor
    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale, persistent=False)
        self.add_state("own", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("reference", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        values, persistence = targets.double().unbind(-1)
        observed = ~values.isnan()
        self.own += ((predictions.double() - values) * self.scale)[observed].square().sum()
        self.reference += ((persistence - values) * self.scale)[observed].square().sum()

    def compute(self) -> Tensor:
        return (1 - self.own / self.reference).float()


class LabelF1(BinaryF1Score):
    """F1 score of all labels that are not NaN together, from log-odds (N, V)."""

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        known = ~targets.isnan()
        super().update((predictions > 0).int()[known], targets[known].int())
