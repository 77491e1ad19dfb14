"""Norms of parameters and gradients."""

from lightning import Trainer

from bptt.estimators.base import Update
from bptt.lightning.callbacks.base import TrainingCallback
from bptt.lightning.callbacks.look_schedule import LookSchedule
from bptt.lightning.module import BPTTModule
from bptt.measures.parameters import gradient_norms, weight_norms


class ParameterNorms(TrainingCallback):
    """Gradient norm of each part of the model, before clipping and unscaled (float16), and norm of all weights.

    Logged under `parameters/`: gradient_norm/PART for the encoder, each layer, the readout and `all` of them;
    weight_norm.

    every_n_updates, log_spaced: see `LookSchedule`.
    """

    def __init__(self, *, every_n_updates: int = 100, log_spaced: bool = True):
        self.schedule = LookSchedule(every_n_updates, log_spaced=log_spaced)

    def on_update(self, trainer: Trainer, module: BPTTModule, update: Update) -> None:
        if self.schedule.due(module.counters.updates):
            norms = {f"gradient_norm/{part}": norm for part, norm in gradient_norms(module.model).items()}
            norms["weight_norm"] = weight_norms(module.model)["all"]
            module.write({f"parameters/{name}": float(norm) for name, norm in norms.items()})
