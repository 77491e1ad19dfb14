"""A task whose batches are written down, so that a test knows every number in it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric

from bptt.tasks import Batch, Split, Task


class FixedBatches(Task):
    """Regression on given batches: squared error, summed over V. An epoch is the list; each epoch is the same."""

    def __init__(self, train: Sequence[Batch] = (), validation: Sequence[Batch] = (), test: Sequence[Batch] = ()):
        self.batches = {"train": train, "validation": validation, "test": test}
        first = next(batches[0] for batches in self.batches.values() if batches)
        super().__init__(length=first.num_timesteps, batch_size=first.batch_size)
        self.input_size = first.inputs.shape[-1]
        self.output_size = first.targets.shape[-1]

    def num_batches(self, split: Split) -> int:
        return len(self.batches[split])

    def batch(self, split: Split, index: int) -> Batch:
        return self.batches[split][index % len(self.batches[split])]

    def errors(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return (predictions - targets).square().sum(-1)

    def metrics(self) -> dict[str, Metric]:
        return {"mse": MeanSquaredError()}


def random_batch(
    timesteps: int,
    batch_size: int,
    *,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    input_size: int = 2,
    output_size: int = 2,
) -> Batch:
    """Gaussian inputs and targets."""
    inputs, targets = torch.randn(timesteps, batch_size, input_size), torch.randn(timesteps, batch_size, output_size)
    return Batch(inputs, targets, mask, reset)
