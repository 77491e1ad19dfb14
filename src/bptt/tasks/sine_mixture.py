"""Forecasting of a sum of sines."""

import math

import torch
from torchmetrics import MeanSquaredError, Metric

from bptt.contracts import at_least, between
from bptt.tasks.base import Batch, squared_error
from bptt.tasks.synthetic import SyntheticTask


class SineMixture(SyntheticTask):
    """Prediction of x_{t+1} from x_1 … x_t, for x_t = √(2/K) Σ_k sin(2π f_k t + φ_k) with K = `num_sines`.

    f_k is uniform over (`min_frequency`, `max_frequency`), in cycles per timestep, and φ_k over (0, 2π), drawn for
    every sequence. Features and targets (T, B, 1) have variance 1, so the answer 0 has the loss 1, `baseline`.
    Squared error. Given the frequencies, 2K values determine the next one, so memory is needed only to find them.

    Raises ValueError if the frequencies are outside 0 < min_frequency < max_frequency <= ½, the Nyquist frequency.
    """

    input_size = 1
    output_size = 1
    baseline = 1.0

    def __init__(
        self,
        *,
        length: int,
        batch_size: int,
        num_sines: int = 3,
        min_frequency: float = 0.01,
        max_frequency: float = 0.1,
        **counts: int,
    ):
        super().__init__(length=length, batch_size=batch_size, **counts)
        at_least(1, num_sines=num_sines)
        between(0, 0.5, open_low=True, open_high=False, max_frequency=max_frequency)
        between(0, max_frequency, open_low=True, min_frequency=min_frequency)
        self.num_sines = num_sines
        self.frequencies = (min_frequency, max_frequency)

    def draw(self, generator: torch.Generator) -> Batch:
        low, high = self.frequencies
        shape = (self.batch_size, self.num_sines)
        frequency = low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
        phase = torch.rand(shape, generator=generator, dtype=torch.float64)
        time = torch.arange(self.length + 1).view(-1, 1, 1)
        sines = torch.sin(2 * math.pi * (frequency * time + phase))
        values = math.sqrt(2 / self.num_sines) * sines.sum(-1, keepdim=True).float()
        return Batch(values[:-1], values[1:])

    errors = staticmethod(squared_error)

    def metrics(self) -> dict[str, Metric]:
        return {"mse": MeanSquaredError()}
