"""Influence balancing: truncated BPTT has a gradient with the wrong sign (Tallec & Ollivier 2017)."""

import torch
from torchmetrics import MeanSquaredError, Metric

from bptt.contracts import at_least
from bptt.shapes import Predictions, Targets
from bptt.tasks.base import Batch, Split, Task


class InfluenceBalancing(Task):
    """The first of 23 units must be 1 at every timestep.

    For the layer `Influence`, whose outputs (T, B, 23) are the predictions. Other models only learn a constant.
    Loss ½ (y_1 − 1)². One endless stream: the state is carried from batch to batch. All inputs are 0.

    The influence of θ over the last K timesteps is G(1) = 1, G(10) = 10, G(16) = 15.4, G(30) = 9.9, and negative from
    K = 41 on. Its limit is −6, so θ* = −1/6. Chunks with a loss at every timestep have the wrong sign up to K = 109.
    """

    input_size = 1
    output_size = 23

    def __init__(self, *, length: int, batch_size: int, train_batches: int):
        super().__init__(length=length, batch_size=batch_size)
        at_least(1, train_batches=train_batches)
        self.train_batches = train_batches

    def num_batches(self, split: Split) -> int:
        return self.train_batches if split == "train" else 1

    def batch(self, split: Split, index: int) -> Batch:
        inputs = torch.zeros(self.length, self.batch_size, 1)
        reset = torch.full((self.batch_size,), index == 0)
        return Batch(inputs, torch.ones(self.length, self.batch_size), reset=reset)

    def errors(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
        return 0.5 * (predictions[..., 0] - targets).square()

    def metrics(self) -> dict[str, Metric]:
        return {"mse": FirstUnitError()}


class FirstUnitError(MeanSquaredError):
    """Mean squared distance of the first unit from its target."""

    def update(self, predictions: torch.Tensor, targets: torch.Tensor) -> None:
        super().update(predictions[:, 0].contiguous(), targets)
