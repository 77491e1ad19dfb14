"""Unbiased truncated backpropagation through time."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from bptt.contracts import at_least, between, one_of, valid_seed
from bptt.estimators.base import Backward, Estimator, Update, zero_loss
from bptt.model import SequenceModel
from bptt.shapes import State, detach, map_state
from bptt.tasks.base import Batch, Loss


class Randomized(Estimator):
    """ARTBP (Tallec & Ollivier 2017): truncation points are random, and gradients that are not cut are amplified.

    t timesteps after the last truncation, the gradient is cut with probability c = α / ((α − 1) · L₀ + t); otherwise
    it is multiplied by 1/(1 − c). The state is always carried on. With frozen weights, the expectation of a batch's
    summed gradients over the draws is in the direction of the full gradient: with `sequence` that of the batch's mean
    loss, with `truncation` its multiple by T/L₀. L₀ = `mean_length` is the mean distance between truncations. It must
    be longer than one block, because otherwise c would be 1 at every block.

    update: `truncation` yields, at every truncation, the gradient of the sum of the losses since the previous one,
        divided by the expected number of losses in L₀ timesteps. Dividing by the actual, random number would add a
        bias. `sequence` yields one unbiased estimate of the gradient of the batch's mean loss.
    block: truncations fall on multiples of `block` timesteps, so that a kernel runs over a whole block. The paper
        has 1.
    seed: seed of the truncation points, which are the same in every process.
    """

    def __init__(
        self,
        mean_length: int,
        *,
        alpha: float = 4.0,
        block: int = 1,
        update: Literal["truncation", "sequence"] = "truncation",
        seed: int = 0,
    ):
        at_least(1, block=block)
        remedy = "blocks that are all cut are estimator=chunked" + (", or use a smaller block" if block > 1 else "")
        at_least(block + 1, mean_length=mean_length, remedy=remedy)
        valid_seed(seed=seed)
        between(1, float("inf"), alpha=alpha, open_low=True, remedy="smaller ones have no mean length")
        one_of(("truncation", "sequence"), update=update)
        self.mean_length = mean_length
        self.alpha = alpha
        self.block = block
        self.update = update
        self.generator = torch.Generator().manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.generator.set_state(state_dict["generator"])

    def truncation_probability(self, distance: int) -> float:
        """c, `distance` blocks after the last truncation."""
        return self.alpha / ((self.alpha - 1) * self.mean_length / self.block + distance)

    def truncations(self, num_timesteps: int) -> Iterator[tuple[int, int, float]]:
        """Draw the blocks (start, stop), each with the factor on the gradient at its end: 0 if it is cut there."""
        distance = 0
        for start in range(0, num_timesteps, self.block):
            distance += 1
            probability = self.truncation_probability(distance)
            cut = float(torch.rand((), generator=self.generator, dtype=torch.float32)) < probability
            yield start, min(start + self.block, num_timesteps), 0.0 if cut else 1 / (1 - probability)
            distance = 0 if cut else distance

    def updates(
        self, model: SequenceModel, loss: Loss, batch: Batch, state: State, backward: Backward = Tensor.backward
    ) -> Iterator[Update]:
        model.require_one_direction("truncated BPTT")
        weights, length = batch.weights(), batch.num_timesteps
        whole = sum(weights)
        expected = whole if self.update == "sequence" else whole * self.mean_length / length
        first, count, total, objective = 0, 0, zero_loss(batch), zero_loss(batch)
        passes: list[tuple[int, int]] = []
        for start, stop, factor in self.truncations(length):
            block = batch.between(start, stop)
            predictions, state, _ = model(block.inputs, state, block.resets)
            passes.append((start, stop))
            if weight := sum(weights[start:stop]):
                error = loss(predictions, block)
                objective = objective + error * (weight / expected)
                count, total = count + weight, total + error.detach() * weight
            if factor and stop < length:
                state = map_state(lambda leaf, factor=factor: Amplified.apply(leaf, factor), state)
                continue
            state = detach(state)
            if objective.requires_grad:
                backward(objective)
                objective = zero_loss(batch)
            if self.update == "truncation" or stop == length:
                yield Update(total / max(count, 1), count, first, stop, state, tuple(passes), expected)
                first, count, total, passes = stop, 0, zero_loss(batch), []


class Amplified(torch.autograd.Function):
    """The identity in the forward pass; multiplies the gradient by a factor."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None
