"""The estimator protocol: a generator of updates over one batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from bptt.contracts import refusal
from bptt.model import SequenceModel
from bptt.shapes import State, leaves
from bptt.tasks.base import Batch, Loss


class Backward(Protocol):
    """Backpropagate a scalar into `.grad`; may multiply it by a factor first, as float16 training does."""

    def __call__(self, loss: Tensor, /) -> None: ...


class Update(NamedTuple):
    """One gradient estimate, ready in `.grad`, and the timesteps start … stop − 1 it belongs to.

    loss: mean error over the losses at these timesteps, detached; without those of burn-in, which are not trained.
    weight: number of these losses. If it is 0, there is no gradient and the optimizer must not step.
    state: the state after timestep stop − 1, detached.
    passes: the segments (first timestep, last + 1) of the batch that the model ran over with a graph, in the order of
        computation.
    divisor: the number that the sum of the losses was divided by for the gradient; None means `weight`.
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
        """The number that the sum of the losses was divided by for the gradient."""
        return self.weight if self.divisor is None else self.divisor


class Estimator(ABC):
    """An estimate of the parameter gradient dL/dθ of a batch of sequences."""

    @abstractmethod
    def updates(
        self, model: SequenceModel, loss: Loss, batch: Batch, state: State, backward: Backward = Tensor.backward
    ) -> Iterator[Update]:
        """Yield the updates of one batch in order; the last one stops at the batch's end.

        state: the state before the first timestep. backward: backpropagates each scalar.
        The caller steps the optimizer and clears `.grad` before it takes the next update.
        """

    def check(self, model: SequenceModel, batch_size: int, length: int) -> None:
        """ValueError for a model that this estimator cannot train with batches of these sizes, (T, B)."""
        return

    def rest(self) -> "Estimator | None":
        """Estimator for the rest of a batch after one of this estimator's updates, if there is one.

        From that update's state, on the timesteps after it, it yields the updates that this one would have yielded.
        None if these depend on earlier timesteps in other ways; then training is interrupted between batches only.
        """
        return None

    def scalars(self) -> Mapping[str, float]:
        """Values that the estimator chooses during training, by name, for the logs; none by default."""
        return {}

    def drawing_anew(self) -> "Estimator":
        """This estimator, such that each call of `updates` draws its random numbers anew; to measure their noise."""
        return self

    def state_dict(self) -> dict[str, Any]:
        """Everything but the model that the next batch depends on, such as random generators; for exact resumption."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        assert not state_dict, "an estimator that has a state must load it"


def check_update(estimator: Estimator, update: Update, model: SequenceModel) -> None:
    """ValueError for what is no update, or one without a gradient or with a graph behind its state."""
    name = f"an update of {type(estimator).__name__}"
    if not isinstance(update, Update):
        raise ValueError(refusal(name, "an Update", type(update).__name__, "say yield Update(…)"))
    if any(leaf.requires_grad for leaf in leaves(update.state)):
        raise ValueError(f"the state in {name} must be detached, got one with a graph; say detach(state)")
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    # No gradient reaches a learnt initial state from later timesteps.
    reached = update.start == 0 or not all(name.startswith("initial.") for name in trained)
    if reached and update.weight and all(parameter.grad is None for parameter in model.parameters()):
        raise ValueError(f"{name} must leave its gradient in .grad, got none there; say backward(loss)")


def zero_loss(batch: Batch) -> Tensor:
    """The initial value of a sum of losses."""
    return torch.zeros((), device=batch.inputs.device, dtype=accumulator_dtype())


def accumulator_dtype() -> torch.dtype:
    """dtype for accumulating losses: at least float32, even if half precision is the default dtype."""
    return torch.promote_types(torch.get_default_dtype(), torch.float32)


def scaled_backward(objective: Tensor, backward: Backward) -> Tensor:
    """Run `backward` and return the factor it multiplied the gradient by: 1, or the loss scale of float16 training."""
    probe = torch.zeros_like(objective, requires_grad=True)
    backward(objective + probe)
    assert probe.grad is not None
    return probe.grad
