"""Why gradients vanish or explode: the Jacobian products of the recurrence."""

import math
from typing import Any

from lightning import Trainer
from torch import Tensor

from bptt.contracts import at_least
from bptt.estimators.base import Update
from bptt.lightning.callbacks.base import RecordingCallback
from bptt.lightning.callbacks.look_schedule import LookSchedule, power_of
from bptt.lightning.loggers import writers
from bptt.lightning.module import BPTTModule
from bptt.measures.jacobian import frobenius_norms, lyapunov_exponents, singular_values
from bptt.measures.passes import PassRecorder, joined


class JacobianSpectrum(RecordingCallback):
    """Looks at the Jacobian product ∂h_T/∂h_t of each layer, along the first sequence of the batch.

    Logged under `jacobian/`, with N the layer's number from the input up:
    - layerN/lyapunov: the largest Lyapunov exponent, nats per timestep; above 0 gradients explode, below they vanish.
    - layerN/norm: ‖∂h_T/∂h_{T−lag}‖ at `lag` timesteps, or as many as there are: the largest singular value, or for
      layers wider than `max_hidden_size` the Frobenius norm by random probes.
    - figure (image): singular values of ∂h_T/∂h_t against T − t.

    every_n_updates, log_spaced: when it looks. max_timesteps: how far along the sequence.
    """

    def __init__(
        self,
        *,
        every_n_updates: int = 1000,
        log_spaced: bool = False,
        max_timesteps: int = 100,
        max_hidden_size: int = 64,
        lag: int = 10,
    ):
        at_least(2, max_timesteps=max_timesteps)
        at_least(1, max_hidden_size=max_hidden_size, lag=lag)
        self.schedule = LookSchedule(every_n_updates, log_spaced=log_spaced)
        self.max_timesteps = max_timesteps
        self.max_hidden_size = max_hidden_size
        self.lag = lag
        self.looks = 0

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None:
        self.recorder = PassRecorder(
            module.model,
            num_sequences=1,
            max_timesteps=self.max_timesteps,
            active=lambda: self.schedule.due(module.counters.updates + 1),
        )

    def on_update(self, trainer: Trainer, module: BPTTModule, update: Update) -> None:
        if self.recorder is None or not self.recorder.passes:
            return
        passes = self.recorder.take(update.passes)
        if not passes:
            return
        records = joined(passes)
        self.looks += 1
        scalars: dict[str, float] = {}
        spectra: dict[str, Tensor] = {}
        for number, (layer, whole) in enumerate(zip(module.model.levels, records), start=1):
            record = whole.first(self.max_timesteps)
            narrow = layer.hidden_size <= self.max_hidden_size
            values = singular_values(layer, record) if narrow else frobenius_norms(layer, record).unsqueeze(-1)
            spectra[f"layer{number}"] = values
            scalars[f"jacobian/layer{number}/norm"] = float(values[max(0, len(values) - 1 - self.lag), 0])
            scalars[f"jacobian/layer{number}/lyapunov"] = float(lyapunov_exponents(layer, record, num_exponents=1))
        module.write({name: value for name, value in scalars.items() if math.isfinite(value)})
        if power_of(4, self.looks):
            from bptt import figures

            image = figures.pixels(figures.spectrum(spectra))
            for writer in writers(trainer):
                writer.add_image("jacobian/figure", image, module.step_axis, dataformats="HWC")

    def state_dict(self) -> dict[str, Any]:
        return {"looks": self.looks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.looks = state_dict["looks"]
