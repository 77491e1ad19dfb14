"""A sum that forgets: the task whose gradient decays by a known factor."""

import torch
from torchmetrics import MeanSquaredError, Metric

from bptt.contracts import between
from bptt.tasks.base import Batch, squared_error
from bptt.tasks.synthetic import SyntheticTask


class LeakySum(SyntheticTask):
    """Exponentially weighted sum of noise: y_t = √(1 − ρ²) Σ_k ρ^k x_{t−k}, with x_t from N(0, 1), t from 0 on.

    ρ is `rate`. Squared error at every timestep. In a network that has learnt it, the gradient of one loss decays by
    the factor ρ per lag. The variance of y_t approaches 1, so that the constant answer 0 has a loss just below 1,
    `baseline`: the mean over t of 1 − ρ^(2 t + 2).
    """

    input_size = 1
    output_size = 1

    def __init__(self, *, rate: float, length: int, batch_size: int, **counts: int):
        between(0, 1, rate=rate, open_low=True, open_high=True)
        super().__init__(length=length, batch_size=batch_size, **counts)
        self.rate = rate
        self.baseline = 1 - sum(rate ** (2 * t + 2) for t in range(length)) / length

    def draw(self, generator: torch.Generator) -> Batch:
        inputs = torch.randn(self.length, self.batch_size, 1, generator=generator)
        total = torch.zeros(self.batch_size, 1)
        targets = []
        for value in inputs:
            total = self.rate * total + value
            targets.append(total)
        return Batch(inputs, (1 - self.rate**2) ** 0.5 * torch.stack(targets))

    errors = staticmethod(squared_error)

    def metrics(self) -> dict[str, Metric]:
        return {"mse": MeanSquaredError()}
