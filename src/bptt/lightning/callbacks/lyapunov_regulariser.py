"""Gradient flossing before and during training, for any task and model."""

import math
from collections.abc import Sequence

import torch
from lightning import Trainer

from bptt.buffers import kept_buffers
from bptt.contracts import at_least, between, refusal, true_or_false
from bptt.estimators.base import Update
from bptt.initial_state import initial_state
from bptt.layers.record import Record
from bptt.lightning.callbacks.look_schedule import LookSchedule
from bptt.lightning.callbacks.regulariser import Regulariser, add_gradient
from bptt.lightning.module import BPTTModule
from bptt.measures.flossing import flossing
from bptt.measures.passes import PassRecorder, joined_records


class LyapunovRegulariser(Regulariser):
    """Adds weight · ∂/∂θ of the mean squared Lyapunov exponents of each layer to the gradient (Engelken 2023).

    The measure is `bptt.measures.flossing`, along timesteps through which the estimator backpropagates, up to the first
    at which a sequence begins again.

    Logged: flossing/layerN, with N the layer's number from the input up.

    weight: factor of the term. num_exponents: number of largest exponents, at most the size of the layer's state.
    before: Adam updates with learning rate `lr` on the regulariser only, before training; skipped in a resumed run.
    during: if False, regularise only before training. num_sequences, max_timesteps: part of an update that is used.
    stride: timesteps between QR decompositions. every_n_updates, log_spaced: schedule of logging.

    An update in which the measure is not finite has no term of that layer. Raises ValueError if that is so in all
    updates before training, and for an estimator in forward mode, unless `during` is False.
    """

    name = "lyapunov"
    remedy = "regulariser.during=false regulariser.before=100, or estimator=chunked or full"

    def __init__(
        self,
        *,
        weight: float = 1.0,
        num_exponents: int = 10,
        before: int = 0,
        during: bool = True,
        lr: float = 0.001,
        num_sequences: int = 1,
        max_timesteps: int = 100,
        stride: int = 1,
        every_n_updates: int = 100,
        log_spaced: bool = True,
    ):
        between(0, math.inf, open_low=True, weight=weight, lr=lr, remedy="use regulariser=none for no such term")
        at_least(0, before=before)
        true_or_false(during=during)
        if not during:
            at_least(1, before=before, remedy="with during=false there are no other updates; or say regulariser=none")
        at_least(1, num_exponents=num_exponents, num_sequences=num_sequences)
        at_least(1, max_timesteps=max_timesteps, stride=stride)
        self.weight = weight
        self.num_exponents = num_exponents
        self.before = before
        self.during = during
        self.lr = lr
        self.num_sequences = num_sequences
        self.max_timesteps = max_timesteps
        self.stride = stride
        self.schedule = LookSchedule(every_n_updates, log_spaced=log_spaced)

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None:
        if self.before and trainer.ckpt_path is None:
            self.regularise_before_training(trainer, module)
        if self.during:
            self.recorder = PassRecorder(
                module.model, num_sequences=self.num_sequences, max_timesteps=self.max_timesteps
            )

    def on_update(self, trainer: Trainer, module: BPTTModule, update: Update) -> None:
        if self.recorder is None:
            return
        passes = self.passes_of(trainer, module, update)
        records = [record.first(self.max_timesteps) for record in joined_records(passes)] if passes else []
        values = self.add_gradients(trainer, module, records, weight=self.weight)
        if self.schedule.due(module.counters.updates):
            module.write({f"flossing/{name}": value for name, value in values.items() if math.isfinite(value)})

    def regularise_before_training(self, trainer: Trainer, module: BPTTModule) -> None:
        """Minimise only the regulariser with Adam, one update per training batch, each from the initial state."""
        parameters = [each for each in module.model.layers.parameters() if each.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=self.lr)
        known = torch.tensor(0.0, device=module.device)  # terms that are finite, of all processes
        for index in range(self.before):
            batch = module.task.batch("train", index).columns(slice(self.num_sequences)).to(module.device)
            part = batch.between(0, self.max_timesteps)
            with torch.no_grad():
                state = initial_state(module.model, batch)
                _, _, records = module.model.without_dropout()(part.inputs, state, part.resets)
            optimizer.zero_grad()
            with kept_buffers(module.model):
                values = self.add_gradients(trainer, module, records, weight=1.0)
            known += sum(map(math.isfinite, values.values()))
            optimizer.step()
        optimizer.zero_grad()
        if not trainer.strategy.reduce(known, reduce_op="sum"):
            wanted = "at most the number of directions in which the state is carried on"
            instead = ["a smaller number"] if self.num_exponents > 1 else ["another initialisation"]
            instead += [f"a stride below {self.stride}"] if self.stride > 1 else []
            remedy = "the exponents of the others, as of relu units that are off, cannot be known; use "
            remedy += " or ".join(instead)
            raise ValueError(refusal("regulariser.num_exponents", wanted, self.num_exponents, remedy))

    def add_gradients(
        self, trainer: Trainer, module: BPTTModule, records: Sequence[Record], *, weight: float
    ) -> dict[str, float]:
        """Add the term's gradient to `.grad` of each layer's parameters. Returns the term by layer."""
        values = {}
        for level, layer in enumerate(module.model.levels):
            trained = [each for each in layer.parameters() if each.requires_grad]
            value = None
            if records:
                value = flossing(layer, records[level], num_exponents=self.num_exponents, stride=self.stride)
                values[f"layer{level + 1}"] = float(value.detach())
                value = value if value.isfinite() else None  # of relu units that are off, for example
            add_gradient(trainer, trained, value, weight=weight)
        return values
