"""Spectra of the recurrence's Jacobian products, which explain vanishing and exploding gradients."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from bptt.contracts import at_least
from bptt.estimators.base import Update
from bptt.layers.diagonal import DiagonalLayer
from bptt.lightning.callbacks.base import RecordingCallback, run_title
from bptt.lightning.callbacks.look_schedule import LookSchedule, power_of
from bptt.lightning.curve_log import CurveLog
from bptt.lightning.loggers import write_image
from bptt.lightning.module import BPTTModule
from bptt.measures.eigenvalues import eigenvalues, memory_length
from bptt.measures.jacobian import frobenius_norms, lyapunov_exponents, singular_values
from bptt.measures.passes import PassRecorder, joined_records
from bptt.tensorboard_tab.curve import Curve, Fact
from bptt.tensorboard_tab.thinning import thinned

QUANTILES = (5, 50, 95)  # percent, of |a|
RANKS = (1, 2, 4, 8, 16, 32, 64)  # ranks of the singular values in the tab


class JacobianSpectrum(RecordingCallback):
    """Measures the Jacobian product ∂h_T/∂h_t of each layer, along the first sequence of the batch.

    Logged under `jacobian/`, with N the layer's number from the input up:
    - layerN/lyapunov: largest Lyapunov exponent, nats per timestep; above 0 gradients explode, below they vanish.
    - layerN/norm: ‖∂h_T/∂h_{T−lag}‖ at `lag` timesteps, or at the largest lag available if that is smaller. It is the
      largest singular value, or the Frobenius norm by random probes for layers wider than `max_hidden_size`.
    - figure/layerN (image): singular values of ∂h_T/∂h_t against T − t.
    - for a diagonal recurrence h_t = a_t ∘ h_{t−1} + b_t: layerN/modulus_q, the q % quantile of |a| over units (and
      timesteps, if a is not constant), and layerN/memory_q, 1/(1 − |a|) in timesteps there, for q = 5, 50 and 95;
      eigenvalues (image): a in the complex plane.
    The tab "Gradient flow" shows singular values of ranks 1, 2, 4, … by lag; the file `curves/jacobian_spectrum.npz`
    holds the same numbers.

    every_n_updates, log_spaced: see `LookSchedule`. max_timesteps: timesteps of the sequence, at most.
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
        self.curve_log = CurveLog("jacobian_spectrum")

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None:
        self.curve_log.start(trainer, module)
        self.recorder = PassRecorder(
            module.model,
            num_sequences=1,
            max_timesteps=self.max_timesteps,
            active=lambda: self.schedule.due(module.counters.updates + 1),
        )

    def on_update(self, trainer: Trainer, module: BPTTModule, update: Update) -> None:
        passes = self.recorded_passes(update)
        if not passes:
            return
        records = joined_records(passes)
        self.looks += 1
        scalars: dict[str, float] = {}
        spectra: dict[str, Tensor] = {}
        rings: dict[str, Tensor] = {}
        curves: dict[str, Curve] = {}
        for number, (layer, whole) in enumerate(zip(module.model.levels, records), start=1):
            record = whole.first(self.max_timesteps)
            narrow = layer.hidden_size <= self.max_hidden_size
            values = singular_values(layer, record) if narrow else frobenius_norms(layer, record).unsqueeze(-1)
            spectra[f"layer{number}"] = values
            scalars[f"jacobian/layer{number}/norm"] = float(values[max(0, len(values) - 1 - self.lag), 0])
            if isinstance(layer, DiagonalLayer):
                rings[f"layer{number}"] = eigenvalues(layer, record)
                scalars |= moduli(f"jacobian/layer{number}", rings[f"layer{number}"])
            exponent = float(lyapunov_exponents(layer, record, num_exponents=1))
            scalars[f"jacobian/layer{number}/lyapunov"] = exponent
            facts = {"update": module.counters.updates, "lyapunov": exponent}
            curves[f"layer{number}/jacobian"] = curve(values, "singular_value" if narrow else "frobenius_norm", facts)
        module.write({name: value for name, value in scalars.items() if math.isfinite(value)})
        self.curve_log.add(trainer, module, curves)
        if power_of(4, self.looks):
            from bptt import figures

            for name, values in spectra.items():
                drawing = partial(figures.singular_values, values, title=f"{name} · {run_title(module)}")
                write_image(trainer, f"jacobian/figure/{name}", drawing, module.step_axis)
            if rings:
                write_image(trainer, "jacobian/eigenvalues", partial(figures.ring, rings), module.step_axis)

    def at_end(self, trainer: Trainer, module: BPTTModule, exception: BaseException | None) -> None:
        super().at_end(trainer, module, exception)
        self.curve_log.save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.curve_log.save(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"looks": self.looks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.looks = state_dict["looks"]


def moduli(prefix: str, values: Tensor) -> dict[str, float]:
    """Quantiles of |a|, and of the memory in timesteps, by tag."""
    quantiles = values.abs().flatten().quantile(torch.tensor(QUANTILES).to(values.real) / 100)
    return {
        f"{prefix}/{name}_{quantile}": float(value)
        for name, each in (("modulus", quantiles), ("memory", memory_length(quantiles)))
        for quantile, value in zip(QUANTILES, each)
    }


def curve(values: Tensor, quantity: str, facts: Mapping[str, Fact]) -> Curve:
    """Curves against the lag T − t of the values (T, N) of ∂h_T/∂h_t, descending in N, for the ranks in `RANKS`."""
    by_lag = values.flip(0).cpu().numpy()
    ranks = [rank for rank in RANKS if rank <= by_lag.shape[1]]
    columns = {f"{quantity}_{rank}" if by_lag.shape[1] > 1 else quantity: by_lag[:, rank - 1] for rank in ranks}
    whole = Curve(torch.arange(len(by_lag)).numpy(), columns, facts)
    return whole.at(thinned(by_lag[:, 0][None], axis="log"))
