"""Updates of a batch, shared by the forward-mode estimators. S and P are those of `bptt.estimators.transition`."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bptt.contracts import at_least, one_of, refusal
from bptt.estimators.base import Backward, Estimator, Update, zero_loss
from bptt.estimators.transition import Joined, Linearised, Theta, Transition
from bptt.layers.full_precision import full_precision_no_grad, promoted
from bptt.layers.reset import Reset, select_rows
from bptt.model import SequenceModel
from bptt.shapes import State
from bptt.tasks.base import Batch, Loss


class ForwardMode(Estimator):
    """Carries the influence of the parameters on the state, ∂s_t/∂θ or an estimate of it, forward in time.

    ∂s_t/∂θ = (∂s_t/∂s_{t−1}) ∂s_{t−1}/∂θ + (∂s_t/∂θ)_direct  and  dL_t/dθ = (∂L_t/∂s_t) ∂s_t/∂θ

    Nothing of the past but the influence is kept, and no gradient is cut within a batch. Each loss reaches back to the
    batch's start, through the updates in between, with the parameters that each timestep was computed with. A learnt
    initial state is trained; a carried state is a constant. Runs the layers' equations instead of kernels, in at least
    float32 and without autocast. Raises ValueError for a model with dropout in training, because `step` has none.

    stride: timesteps between updates.
    update: `chunk` yields the gradient of the stride's mean loss after every stride. `sequence` accumulates and yields
        the gradient of the batch's mean loss once a batch.
    """

    equations: Literal["step", "step_within_units"] = "step"
    """The layers' method that is differentiated."""

    def __init__(self, stride: int, *, update: Literal["chunk", "sequence"] = "chunk"):
        at_least(1, stride=stride)
        one_of(("chunk", "sequence"), update=update)
        self.stride = stride
        self.update = update

    @abstractmethod
    def begin(self, transition: Transition, initial: Joined) -> Any:
        """The influence of the parameters on an initial state, which is constant or learnt."""

    @abstractmethod
    def advance(self, steps: Linearised, influence: Any) -> Iterator[Any]:
        """Yield the influence on the state after each timestep, given the influence on the state before the first."""

    @abstractmethod
    def gradient(self, influence: Any, direct: Joined) -> Theta:
        """(∂L/∂s_t) ∂s_t/∂θ, summed over sequences, with `direct` = ∂L/∂s_t, all other states fixed."""

    def mean_loss(self, loss: Loss, chunk: Batch, transition: Transition, top: Float[Tensor, "T B W"]) -> Tensor:
        """The mean loss of a chunk. Its gradient with respect to the readout's inputs `top` is what is fed back."""
        return loss(transition.predictions(top), chunk)

    def accumulate(
        self,
        steps: Linearised,
        after: Float[Tensor, "T B S"],
        influence: Any,
        direct: Float[Tensor, "T B S"] | None,
        *,
        last: bool = False,
    ) -> tuple[Theta, Any]:
        """Σ_t (∂L/∂s_t) ∂s_t/∂θ over the timesteps, and the influence after the last one.

        after: the states after every timestep. direct: ∂L/∂s_t; None without a loss. last: the batch ends with these
            timesteps, so that the influence after them is not needed.
        """
        gradient = torch.zeros_like(steps.theta)
        for t, moved in enumerate(self.advance(steps, influence)):
            influence = moved
            if direct is not None:
                gradient += self.gradient(influence, direct[t])
        return gradient, influence

    def restart(self, chosen: Bool[Tensor, " B"], begun: Any, influence: Any) -> Any:
        """The influence `begun` for the chosen sequences, `influence` for the others."""
        return select_rows(chosen, begun, influence)

    def check(self, model: SequenceModel, batch_size: int, length: int) -> None:
        require_no_dropout(model)
        model.require_repeatable("forward mode", buffers=True)

    def updates(
        self, model: SequenceModel, loss: Loss, batch: Batch, state: State, backward: Backward = Tensor.backward
    ) -> Iterator[Update]:
        require_no_dropout(model)
        weights, total = batch.weights(), zero_loss(batch)
        whole = sum(weights)
        transition = Transition(model, state, self.equations)
        now = transition.initial.detach()
        with full_precision_no_grad(now):
            influence = self.begin(transition, transition.initial)
            begun = None if batch.resets is None else self.begin(transition, transition.begun)
        for start, chunk in batch.split(self.stride):
            stop = start + chunk.num_timesteps
            weight = sum(weights[start:stop])
            error = zero_loss(batch)
            with torch.autocast(now.device.type, enabled=False):
                with torch.no_grad():
                    theta, features = transition.theta(), transition.features(chunk.inputs)
                    reset = (
                        None
                        if chunk.resets is None
                        else Reset.at(chunk.resets, promoted(transition.current_beginning()))
                    )
                    before, after = transition.run(theta, features, now, reset)
                if weight:
                    after.requires_grad_()
                    error = self.mean_loss(loss, chunk, transition, transition.top(features, after))
                    error = error * (1 if self.update == "chunk" else weight / whole)
                    (direct,) = torch.autograd.grad(error, after, retain_graph=True)
                with torch.no_grad():
                    gradient = torch.zeros_like(theta)
                    for first, last in [(0, len(before))] if reset is None else reset.spans():
                        if reset is not None and first in reset.times:
                            influence = self.restart(reset.mask[first], begun, influence)
                        part = slice(first, last)
                        steps = Linearised(transition, theta, features[part], before[part])
                        estimate, influence = self.accumulate(
                            *(steps, after[part], influence, direct[part] if weight else None),
                            last=start + last == batch.num_timesteps,
                        )
                        gradient += estimate
                if weight:
                    backward(error + transition.with_gradient(gradient))
            now, total = after[-1].detach().clone(), total + error.detach()  # clone, so that `after` can be freed
            if self.update == "chunk":
                yield Update(error.detach(), weight, start, stop, transition.state(now), ())
        if self.update == "sequence":
            yield Update(total, whole, 0, batch.num_timesteps, transition.state(now), ())


def require_no_dropout(model: SequenceModel) -> None:
    """ValueError for a model in training that draws masks, which forward mode has not."""
    for name, probability in model.dropouts.items() if model.training else ():
        remedy = f"set model.{name}=0, or use estimator=chunked"
        raise ValueError(refusal(name, "0 in forward mode", probability, remedy))


class BoundedForwardMode(ForwardMode):
    """Forward mode whose influence may be too large for the memory. `begin` draws no random numbers.

    max_entries: ValueError for an influence of more numbers.
    """

    def __init__(self, stride: int, *, update: Literal["chunk", "sequence"] = "chunk", max_entries: int = 100_000_000):
        super().__init__(stride, update=update)
        at_least(1, max_entries=max_entries)
        self.max_entries = max_entries

    def check(self, model: SequenceModel, batch_size: int, length: int) -> None:
        super().check(model, batch_size, length)
        transition = Transition(model, model.initial_state(batch_size), self.equations)
        with full_precision_no_grad(transition.initial):
            self.begin(transition, transition.initial)

    def check_size(self, transition: Transition, rows: int) -> None:
        """Raise ValueError if B · rows · P exceeds `max_entries`."""
        batch_size, parameters = transition.batch_size, transition.num_parameters
        entries = batch_size * rows * parameters
        if entries > self.max_entries:
            raise ValueError(
                f"the influence must have <= max_entries = {self.max_entries} numbers, got {entries} = {batch_size} "
                f"sequences · {rows} states · {parameters} parameters; use a smaller model or batch, estimator=uoro or "
                "chunked, or a larger estimator.max_entries"
            )
