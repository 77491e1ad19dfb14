"""Regulariser against vanishing gradients, for any task and model."""

import sys

from lightning import Trainer
from torch import Tensor

from bptt.contracts import between
from bptt.estimators.base import Update
from bptt.lightning.callbacks.look_schedule import LookSchedule
from bptt.lightning.callbacks.regulariser import Regulariser, add_gradient
from bptt.lightning.module import BPTTModule
from bptt.measures.passes import Pass, PassRecorder
from bptt.measures.regularisation import omega, recurrent_parameters


class Omega(Regulariser):
    """Adds weight · ∂Ω/∂W_hh of each layer to the gradient before clipping (Pascanu, Mikolov & Bengio 2013).

    Ω is `bptt.measures.omega` over all timesteps and sequences of an update through which the estimator backpropagates.
    Keeps all passes of an update, including adjoints, in memory, which cancels the memory saving of `Full`.

    Logged: omega/layerN, with N the layer's number from the input up.

    weight: factor of the term; the paper uses 4 for temporal order.
    every_n_updates, log_spaced: schedule of logging.
    Raises ValueError before training with an estimator in forward mode, which does not backpropagate.
    """

    name = "omega"
    remedy = "regulariser=none, or estimator=chunked, sliding, full, randomized or adaptive"

    def __init__(self, *, weight: float, every_n_updates: int = 100, log_spaced: bool = True):
        between(0, float("inf"), open_low=True, weight=weight, remedy="use regulariser=none for no such term")
        self.weight = weight
        self.schedule = LookSchedule(every_n_updates, log_spaced=log_spaced)

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None:
        batch_size = module.task.batch_size
        self.recorder = PassRecorder(module.model, num_sequences=batch_size, max_timesteps=sys.maxsize)

    def on_update(self, trainer: Trainer, module: BPTTModule, update: Update) -> None:
        passes, values = self.passes_of(trainer, module, update), {}
        for level, layer in enumerate(module.model.levels):
            trained = [each for each in recurrent_parameters(layer).values() if each.requires_grad]
            value = self.value(module, passes, level) if passes else None
            if value is not None:
                values[f"omega/layer{level + 1}"] = value.detach()
            add_gradient(trainer, trained, value, weight=self.weight)
        if self.schedule.due(module.counters.updates):
            module.write({name: float(value) for name, value in values.items()})

    def value(self, module: BPTTModule, passes: list[Pass], level: int) -> Tensor:
        layer = list(module.model.levels)[level]
        records = [each.records[level] for each in passes]
        gradients = [each.adjoint(level, layer) for each in passes]
        return omega(layer, records, gradients)
