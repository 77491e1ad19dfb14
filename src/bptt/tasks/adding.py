"""The adding problem of Hochreiter & Schmidhuber (1997), in the form of Le, Jaitly & Hinton (2015)."""

import torch
from torchmetrics import MeanSquaredError, Metric

from bptt.contracts import at_least
from bptt.tasks.base import Batch, last_timestep, squared_error
from bptt.tasks.synthetic import SyntheticTask


class Adding(SyntheticTask):
    """Sum of the two marked values. Each timestep has a value from U(0, 1) and a marker; the sum is due at the end.

    One mark lies in the first half of the sequence, one in the second. Squared error at the last timestep. The constant
    answer 1 has the loss 1/6, `baseline`.
    """

    input_size = 2
    per_sequence = True
    output_size = 1
    baseline = 1 / 6

    def __init__(self, *, length: int, batch_size: int, **counts: int):
        at_least(2, length=length, remedy="two values must be marked")
        super().__init__(length=length, batch_size=batch_size, **counts)

    def draw(self, generator: torch.Generator) -> Batch:
        length, batch_size, half = self.length, self.batch_size, self.length // 2
        inputs = torch.zeros(length, batch_size, 2)
        inputs[..., 0].uniform_(generator=generator)
        first = torch.randint(half, (batch_size,), generator=generator)
        second = torch.randint(half, length, (batch_size,), generator=generator)
        sequences = torch.arange(batch_size)
        inputs[first, sequences, 1] = 1
        inputs[second, sequences, 1] = 1
        total = inputs[first, sequences, 0] + inputs[second, sequences, 0]
        return Batch(inputs, total.expand(length, -1).unsqueeze(-1), last_timestep(length, batch_size))

    errors = staticmethod(squared_error)

    def metrics(self) -> dict[str, Metric]:
        return {"mse": MeanSquaredError()}
