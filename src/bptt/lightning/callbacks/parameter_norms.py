"""Sizes of the parameters and of what an update sees."""

from lightning import Trainer

from bptt.estimators.base import Update
from bptt.lightning.callbacks.base import TrainingCallback
from bptt.lightning.callbacks.look_schedule import LookSchedule
from bptt.lightning.module import BPTTModule
from bptt.measures.parameters import gradient_norms, weight_norms


class ParameterNorms(TrainingCallback):
    """Gradient norms of each part of the model, before clipping and unscaled in float16.

    Logged under `parameters/`: gradient_norm/PART for the encoder, each layer, the readout and `all` together;
    weight_norm, of all together.

    every_n_updates, log_spaced: when it looks.
    """

    def __init__(self, *, every_n_updates: int = 100, log_spaced: bool = True):
        self.schedule = LookSchedule(every_n_updates, log_spaced=log_spaced)

    def on_update(self, trainer: Trainer, module: BPTTModule, update: Update) -> None:
        if self.schedule.due(module.counters.updates):
            norms = {f"gradient_norm/{part}": norm for part, norm in gradient_norms(module.model).items()}
            norms["weight_norm"] = weight_norms(module.model)["all"]
            module.write({f"parameters/{name}": float(norm) for name, norm in norms.items()})
