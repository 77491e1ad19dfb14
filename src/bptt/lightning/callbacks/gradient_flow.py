"""The gradient at every timestep."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from bptt.contracts import at_least, between, refusal
from bptt.estimators.decay import decay_rate
from bptt.lightning.callbacks.look_schedule import LookSchedule, power_of
from bptt.lightning.callbacks.recording import RecordingCallback
from bptt.lightning.loggers import writers
from bptt.lightning.module import BPTTModule
from bptt.measures.gradient_flow import LayerFlow, by_timestep_and_lag, horizon
from bptt.measures.passes import PassRecorder

if TYPE_CHECKING:  # matplotlib is loaded where the first figure is drawn, not at every start
    from matplotlib.figure import Figure

MOMENTS = (
    128  # columns of the heat map; when they are full, every second one is dropped, and every second look from then
)
FIRST_FIGURE = 8  # a figure is drawn at look 8, 32, 128, … and at the end, as drawing takes longer than looking


class GradientFlow(RecordingCallback):
    """Shows how much gradient reaches each timestep, though kernels hide it, without touching training.

    At the updates it looks at, it takes the gradients of the first `num_sequences` sequences of the batch and derives
    dL/dh_t for every t. The gradients are those of the update at hand: unscaled in float16, before clipping, and per
    sequence, that is times B, to undo the mean over the batch. By lag they are those of one loss itself, times all that
    its mean was taken over, so that chunk sizes compare.

    Logged under `gradient_flow/`, with N the layer's number from the input up:
    - layerN/lag_K: mean ‖∂L_s/∂h_{s−K}‖ of the last loss alone, for the K of `lags` that the gradient can reach.
    - layerN/horizon: the largest lag with at least `epsilon` of the gradient at lag 0.
    - layerN/decay_rate: the factor per lag, by least squares.
    - layerN/transport: the share of the gradient that came through the recurrence.
    - layerN/saturation: mean slope of the activation, 1 linear, 0 saturated.
    - layerN (histogram): log₁₀ ‖dL/dh_t‖ over timesteps and sequences.
    - figure (image): all layers by lag, by timestep, and by timestep over training, a heat map that grows.
    Related curves share charts under Custom Scalars. The last figure is written to `gradient_flow.png`.

    every_n_updates, log_spaced: when it looks. max_timesteps: of one update, how many it looks at.
    """

    def __init__(
        self,
        *,
        every_n_updates: int = 100,
        log_spaced: bool = True,
        num_sequences: int = 8,
        max_timesteps: int = 2000,
        lags: Sequence[int] = (1, 10, 50),
        epsilon: float = 0.01,
    ):
        at_least(1, num_sequences=num_sequences, max_timesteps=max_timesteps)
        between(0, 1, epsilon=epsilon, open_low=True)
        if not isinstance(lags, list | tuple):
            raise ValueError(refusal("lags", "a list of whole numbers", lags))
        for lag in lags:
            at_least(1, lags=lag)
        self.schedule = LookSchedule(every_n_updates, log_spaced=log_spaced)
        self.num_sequences = num_sequences
        self.max_timesteps = max_timesteps
        self.lags = list(lags)
        self.epsilon = epsilon
        self.latest: dict[str, LayerFlow] | None = None
        self.looks = 0
        self.stride = 1  # looks from column to column of the heat map
        self.progress: list[int] = []
        self.history: dict[str, list[Tensor]] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, BPTTModule)
        module = pl_module
        self.recorder = PassRecorder(
            module.model,
            num_sequences=self.num_sequences,
            max_timesteps=self.max_timesteps,
            active=lambda: self.schedule.due(module.counters.updates + 1),
        )
        layers = [f"layer{number}" for number, _ in enumerate(module.model.levels, start=1)]
        charts = {f"{layer} at lag": ["Multiline", [f"gradient_flow/{layer}/lag_.*"]] for layer in layers}
        for quantity in ("horizon", "decay_rate", "transport", "saturation"):
            charts[quantity] = ["Multiline", [f"gradient_flow/layer.*/{quantity}"]]
        charts["loss"] = ["Multiline", ["train/loss", "validation/loss"]]
        for writer in writers(trainer) if trainer.ckpt_path is None else []:
            writer.add_custom_scalars({"gradient flow": charts})

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        assert isinstance(pl_module, BPTTModule)
        if self.recorder is None or not self.recorder.passes:
            return
        update = pl_module.current_update
        assert update is not None
        passes = self.recorder.take(update.passes)
        if not passes:
            return
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        unscaled = 1 / ((1.0 if scaler is None else scaler.get_scale()) * trainer.world_size)
        batch_size, denominator = pl_module.task.batch_size, update.denominator
        found = by_timestep_and_lag(
            pl_module.model, passes, factor=batch_size * unscaled, lag_factor=denominator * unscaled
        )
        flows = {f"layer{number}": flow for number, flow in enumerate(found, start=1)}
        self.latest = flows
        self.remember(flows, pl_module.step_axis)
        self.looks += 1
        pl_module.write(self.scalars(flows), self.histograms(flows))
        if self.looks % FIRST_FIGURE == 0 and power_of(4, self.looks // FIRST_FIGURE):
            for writer in writers(trainer):
                self.add_figure(writer, pl_module.step_axis)

    def scalars(self, flows: dict[str, LayerFlow]) -> dict[str, float]:
        values: dict[str, float] = {}
        for name, flow in flows.items():
            by_lag = flow.by_lag["h"].mean(1)
            values |= {f"{name}/lag_{lag}": float(by_lag[lag]) for lag in self.lags if lag < len(by_lag)}
            values |= {f"{name}/horizon": float(horizon(by_lag, epsilon=self.epsilon))}
            values |= {f"{name}/decay_rate": decay_rate(by_lag)}
            values |= {f"{name}/transport": flow.transport, f"{name}/saturation": flow.saturation}
        return {f"gradient_flow/{name}": value for name, value in values.items() if math.isfinite(value)}

    def histograms(self, flows: dict[str, LayerFlow]) -> dict[str, Tensor]:
        heights = {f"gradient_flow/{name}": flow.by_timestep["h"].log10() for name, flow in flows.items()}
        finite = {name: values[values.isfinite()] for name, values in heights.items()}
        return {name: values for name, values in finite.items() if len(values)}

    def remember(self, flows: dict[str, LayerFlow], step: int) -> None:
        """Add a column to the heat maps, unless it would stand too close to the one before."""
        if self.looks % self.stride:
            return
        self.progress.append(step)
        for name, flow in flows.items():
            self.history.setdefault(name, []).append(flow.by_timestep["h"].mean(1).log10().cpu())
        if len(self.progress) > MOMENTS:
            self.progress = self.progress[::2]
            self.history = {name: columns[::2] for name, columns in self.history.items()}
            self.stride *= 2

    def figure(self) -> "Figure":
        from bptt import figures

        assert self.latest is not None
        history = {name: padded(columns) for name, columns in self.history.items()}
        return figures.gradient_flow(self.latest, history, self.progress, epsilon=self.epsilon)

    def add_figure(self, writer: SummaryWriter, step: int) -> None:
        from bptt import figures

        writer.add_image("gradient_flow/figure", figures.pixels(self.figure()), step, dataformats="HWC")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        from bptt import figures

        assert isinstance(pl_module, BPTTModule)
        self.close()
        if self.latest is None or not trainer.is_global_zero:
            return
        for writer in writers(trainer):
            self.add_figure(writer, pl_module.step_axis)
        figures.save(self.figure(), Path(trainer.default_root_dir) / "gradient_flow.png")

    def state_dict(self) -> dict[str, Any]:
        latest = {name: flow._asdict() for name, flow in (self.latest or {}).items()}
        heat_map = {"stride": self.stride, "progress": self.progress, "history": self.history}
        return {"looks": self.looks, **heat_map, "latest": latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.looks = state_dict["looks"]
        self.stride = state_dict.get("stride", 1)
        self.progress = list(state_dict["progress"])
        self.history = {name: list(columns) for name, columns in state_dict["history"].items()}
        self.latest = {name: LayerFlow(**flow) for name, flow in state_dict["latest"].items()} or None


def padded(columns: Sequence[Tensor]) -> Tensor:
    """Curves of different lengths side by side, (longest, number), NaN where one has ended."""
    return torch.nn.utils.rnn.pad_sequence(list(columns), padding_value=math.nan)
