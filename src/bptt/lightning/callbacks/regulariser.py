"""The base of regularisers: terms whose gradient is added to that of the loss, before clipping."""

from collections.abc import Sequence

import torch
from lightning import Trainer
from torch import Tensor

from bptt.estimators.base import Update
from bptt.estimators.forward_mode import ForwardMode
from bptt.lightning.callbacks.base import RecordingCallback
from bptt.lightning.module import BPTTModule
from bptt.measures.passes import Pass


class Regulariser(RecordingCallback):
    """A callback that adds weight · ∂R/∂θ to the gradient, for a term R of the passes of an update.

    The logged loss does not include the term. With several processes, each computes R of its own sequences; gradients
    are averaged.

    name, remedy: for the error if the estimator runs forward in time, so that there are no passes.
    during: false if the term is used before training only.
    """

    name: str
    remedy: str
    during: bool = True

    def check(self, module: BPTTModule) -> None:
        """ValueError for a model or an estimator that leaves no passes of one direction to compute again."""
        module.model.require_one_direction(f"regulariser={self.name}")
        module.model.require_repeatable(f"regulariser={self.name}")
        if self.during and isinstance(module.estimator, ForwardMode):
            raise ValueError(self._without_passes(module))

    def _without_passes(self, module: BPTTModule) -> str:
        got = type(module.estimator).__name__
        wanted = f"regulariser {self.name} needs an estimator that backpropagates through timesteps"
        return f"{wanted}, got {got}; use {self.remedy}"

    def passes_of(self, trainer: Trainer, module: BPTTModule, update: Update) -> list[Pass]:
        """The passes of an update; ValueError if no process has any. Collective: every process must call it."""
        assert self.recorder is not None
        passes = self.recorder.take(update.passes)
        number = trainer.strategy.reduce(torch.tensor(float(len(passes)), device=module.device), reduce_op="sum")
        if not number:
            raise ValueError(self._without_passes(module))
        return passes


def add_gradient(trainer: Trainer, parameters: Sequence[Tensor], term: Tensor | None, *, weight: float) -> None:
    """Add weight · ∂R/∂θ, averaged over processes, to `.grad`. Collective: every process must call it.

    term: R; None on a process without passes in this update, or if R has no gradient.
    """
    gradients = [torch.zeros_like(each) for each in parameters]
    if parameters and term is not None and term.requires_grad:
        gradients = list(torch.autograd.grad(term, parameters, materialize_grads=True))
    for parameter, gradient in zip(parameters, gradients):
        added = weight * trainer.strategy.reduce(gradient.to(parameter.dtype), reduce_op="mean")
        parameter.grad = added if parameter.grad is None else parameter.grad.add_(added)
