"""Regulariser against vanishing gradients, for any task and model."""

import sys

import torch
from lightning import Trainer
from torch import Tensor

from bptt.contracts import between
from bptt.estimators.base import Update
from bptt.lightning.callbacks.base import RecordingCallback
from bptt.lightning.callbacks.look_schedule import LookSchedule
from bptt.lightning.module import BPTTModule
from bptt.measures.passes import Pass, PassRecorder
from bptt.measures.regularisation import omega, recurrent_parameters


class Omega(RecordingCallback):
    """Adds weight · ∂Ω/∂W_hh of each layer to the gradient before clipping (Pascanu, Mikolov & Bengio 2013).

    Ω is `bptt.measures.omega` over all timesteps and sequences of an update through which the estimator backpropagates.
    The logged loss does not include the term. Keeps all passes of an update, including adjoints, in memory, which
    cancels the memory saving of `Full`. With several processes, each computes Ω of its own sequences; gradients are
    averaged.

    Logged: omega/layerN, with N the layer's number from the input up.

    weight: factor of the term; the paper uses 4 for temporal order.
    every_n_updates, log_spaced: schedule of logging.
    Raises ValueError at the first update of an estimator in forward mode, which does not backpropagate.
    """

    def __init__(self, *, weight: float, every_n_updates: int = 100, log_spaced: bool = True):
        between(0, float("inf"), open_low=True, weight=weight, remedy="use regulariser=none for no such term")
        self.weight = weight
        self.schedule = LookSchedule(every_n_updates, log_spaced=log_spaced)

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None:
        batch_size = module.task.batch_size
        self.recorder = PassRecorder(module.model, num_sequences=batch_size, max_timesteps=sys.maxsize)

    def on_update(self, trainer: Trainer, module: BPTTModule, update: Update) -> None:
        assert self.recorder is not None
        passes = self.recorder.take(update.passes)
        number = trainer.strategy.reduce(torch.tensor(float(len(passes)), device=module.device), reduce_op="sum")
        if not number:
            raise ValueError(
                "regulariser omega needs an estimator that backpropagates through timesteps, got "
                f"{type(module.estimator).__name__}; use regulariser=none, or estimator=chunked, sliding, full, "
                "randomized or adaptive"
            )
        values = {}
        for level, layer in enumerate(module.model.levels):
            trained = [each for each in recurrent_parameters(layer).values() if each.requires_grad]
            found = [torch.zeros_like(each) for each in trained]
            if passes:
                value = self.value(module, passes, level)
                values[f"omega/layer{level + 1}"] = value.detach()
                found = differentiated(value, trained)
            for parameter, gradient in zip(trained, found):
                # `reduce` is collective: a process without a loss in this update must call it, too
                term = self.weight * trainer.strategy.reduce(gradient, reduce_op="mean")
                parameter.grad = term if parameter.grad is None else parameter.grad.add_(term)
        if self.schedule.due(module.counters.updates):
            module.write({name: float(value) for name, value in values.items()})

    def value(self, module: BPTTModule, passes: list[Pass], level: int) -> Tensor:
        layer = list(module.model.levels)[level]
        records = [each.records[level] for each in passes]
        gradients = [each.adjoint(level, layer) for each in passes]
        return omega(layer, records, gradients)


def differentiated(value: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """Gradients of `value`; 0 for parameters that it does not depend on."""
    if not (parameters and value.requires_grad):
        return [torch.zeros_like(each) for each in parameters]
    return list(torch.autograd.grad(value, parameters, materialize_grads=True))
