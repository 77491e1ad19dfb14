"""What an estimator is: a generator of updates over one batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from bptt.model import SequenceModel
from bptt.shapes import State
from bptt.tasks.base import Batch, Loss


class Backward(Protocol):
    """Backpropagates a scalar into `.grad`; may put a factor on it, as float16 training does."""

    def __call__(self, loss: Tensor, /) -> None: ...


class Update(NamedTuple):
    """What one stretch of the batch gave: a gradient, ready in `.grad`, unless it had no loss.

    loss: mean error over the `weight` losses at timesteps start … stop − 1, detached.
    weight: how many losses that is; where 0, there is no gradient and nothing to step.
    state: the state after timestep stop − 1, detached.
    passes: the stretches (first timestep, last + 1) of the batch that the model ran over with a graph, in the order of
        computation.
    divisor: what the sum of the losses was divided by for the gradient, where that is not `weight`.
    """

    loss: Tensor
    weight: int
    start: int
    stop: int
    state: State
    passes: tuple[tuple[int, int], ...]
    divisor: float | None = None

    @property
    def denominator(self) -> float:
        """What the sum of the losses was divided by for the gradient."""
        return self.weight if self.divisor is None else self.divisor


class Estimator(ABC):
    """A way to estimate dL/dθ of a sequence."""

    @abstractmethod
    def updates(
        self, model: SequenceModel, loss: Loss, batch: Batch, state: State, backward: Backward = Tensor.backward
    ) -> Iterator[Update]:
        """Yield one update after another until the batch's end, where the last one stops.

        The caller steps the optimizer and clears `.grad` before it asks for the next.
        """

    def scalars(self) -> Mapping[str, float]:
        """What it chooses as training goes on, by name, for the logs; by default nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What the next batch depends on beside the model, such as random draws: for exact resumption."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        assert not state_dict, "an estimator that has a state must load it"


def zero_loss(batch: Batch) -> Tensor:
    """A sum of losses to begin with."""
    return torch.zeros((), device=batch.inputs.device, dtype=accumulator_dtype())


def accumulator_dtype() -> torch.dtype:
    """Of sums: float32 at least, though training in half precision makes that the default."""
    return torch.promote_types(torch.get_default_dtype(), torch.float32)


def scaled_backward(objective: Tensor, backward: Backward) -> Tensor:
    """Run `backward` and return the factor it put on the gradient: 1, or the loss scale of float16 training."""
    probe = torch.zeros_like(objective, requires_grad=True)
    backward(objective + probe)
    assert probe.grad is not None
    return probe.grad
