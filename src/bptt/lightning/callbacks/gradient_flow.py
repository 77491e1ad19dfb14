"""Gradient norms by timestep and by lag during training."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lightning import LightningModule, Trainer

from bptt.contracts import at_least, between, refusal
from bptt.estimators.base import Update
from bptt.lightning.callbacks import gradient_flow_charts as charts
from bptt.lightning.callbacks import gradient_flow_curves
from bptt.lightning.callbacks.base import RecordingCallback, run_folder, run_title
from bptt.lightning.callbacks.heat_map import HeatMap
from bptt.lightning.callbacks.look_schedule import LookSchedule, power_of
from bptt.lightning.curve_log import CurveLog
from bptt.lightning.loggers import new_writers, write_image
from bptt.lightning.module import BPTTModule
from bptt.measures.gradient_flow import LayerFlow, by_timestep_and_lag
from bptt.measures.horizon import EPSILON
from bptt.measures.passes import Pass, PassRecorder
from bptt.tasks.base import Batch

if TYPE_CHECKING:  # loading matplotlib takes half a second; it is loaded when the first figure is drawn
    from matplotlib.figure import Figure

FIRST_FIGURE = 8  # figures at look 8, 32, 128, … and at the end only, because drawing takes longer than measuring


class GradientFlow(RecordingCallback):
    """Measures how much gradient reaches each timestep. Training is unchanged to the bit.

    At the scheduled updates, dL/dh_t is computed for every t and the first `num_sequences` sequences of the batch. It
    is the gradient of that update: unscaled (float16) and before clipping. It is given per sequence, that is multiplied
    by B, to undo the mean over the batch. Gradients by lag belong to a single loss: they are multiplied by the number
    of losses in the mean, so that chunk sizes are comparable. With `task.reduction=sum_over_time`, too, gradients by
    timestep are those of the mean.

    Logged under `gradient_flow/`, with N the layer's number from the input up:
    - layerN/lag_K: mean ‖∂L_s/∂h_{s−K}‖ over `num_losses` single losses, spread over the update, and all recorded
      sequences; for the K of `lags` that the gradient can reach.
    - layerN/horizon: the largest lag at which half of these still have `epsilon` of their largest gradient.
    - layerN/decay_rate: factor per lag, fitted by least squares.
    - layerN/transport: share of the gradient that came through the recurrence.
    - layerN/saturation: Elman's mean slope of the activation, 1 if linear, 0 if saturated. For GRU, LSTM and own cells
      the mean of 1 − h², which does not show the gates; for linear recurrences 1. See `Layer.slope`.
    - layerN (histogram): log₁₀ ‖dL/dh_t‖ over timesteps and sequences.
    - figure/by_lag, figure/by_timestep (images): all layers, with horizon, cut and chunk borders.
    - figure/over_training/layerN (image): heat map of the gradient by timestep over training.
    The tab "Gradient flow" shows median, 5th and 95th percentile over sequences at every lag and timestep; the file
    `curves/gradient_flow.npz` holds the same numbers. The tab "Custom Scalars" shows related curves in one chart. The
    last figure is also saved in the run folder.

    every_n_updates, log_spaced, drawn: see `LookSchedule`. max_timesteps: timesteps recorded per update, at most.
    """

    def __init__(
        self,
        *,
        every_n_updates: int = 100,
        log_spaced: bool = True,
        drawn: bool = True,
        num_sequences: int = 8,
        num_losses: int = 4,
        max_timesteps: int = 2000,
        lags: Sequence[int] = (1, 10, 50),
        epsilon: float = EPSILON,
    ):
        at_least(1, num_sequences=num_sequences, num_losses=num_losses, max_timesteps=max_timesteps)
        between(0, 1, epsilon=epsilon, open_low=True)
        if not isinstance(lags, list | tuple):
            raise ValueError(refusal("lags", "a list of whole numbers", lags))
        for lag in lags:
            at_least(1, lags=lag)
        self.schedule = LookSchedule(every_n_updates, log_spaced=log_spaced, drawn=drawn)
        self.num_sequences = num_sequences
        self.num_losses = num_losses
        self.max_timesteps = max_timesteps
        self.lags = list(lags)
        self.epsilon = epsilon
        self.latest: dict[str, LayerFlow] | None = None
        self.looks = 0
        self.heat_map = HeatMap()
        self.curve_log = CurveLog("gradient_flow")
        self.carried = False  # True if the state at the start of the batch was carried over from another batch

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None:
        self.recorder = PassRecorder(
            module.model,
            num_sequences=self.num_sequences,
            max_timesteps=self.max_timesteps,
            active=lambda: self.schedule.due(module.counters.updates + 1),
        )
        self.curve_log.start(trainer, module)
        for writer in new_writers(trainer, resumed=trainer.ckpt_path is not None):
            writer.add_custom_scalars(charts.layout(len(list(module.model.levels))))

    def before_batch(self, trainer: Trainer, module: BPTTModule, batch: Batch) -> None:
        self.carried = batch.reset is not None and module.carry.state is not None

    def on_update(self, trainer: Trainer, module: BPTTModule, update: Update) -> None:
        passes = self.recorded_passes(update)
        if not passes:
            return
        flows = self.measure(trainer, module, update, passes)
        self.heat_map.add(charts.curves(flows), look=self.looks, step=module.step_axis)
        self.latest = flows
        self.looks += 1
        module.write(self.scalars(), charts.histograms(flows))
        number = module.counters.updates
        curves = gradient_flow_curves.curves(flows, update=number, epsilon=self.epsilon, carried=self.carried)
        self.curve_log.add(trainer, module, curves)
        if self.looks % FIRST_FIGURE == 0 and power_of(4, self.looks // FIRST_FIGURE):
            self.log_figures(trainer, module, module.step_axis)

    def measure(
        self, trainer: Trainer, module: BPTTModule, update: Update, passes: Sequence[Pass]
    ) -> dict[str, LayerFlow]:
        """The flow of every layer by name, without the gradient factors of float16 scaling and of several processes."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        # The recorded gradients are those of the mean over this process's losses.
        lag_factor = module.own_denominator / (1.0 if scaler is None else scaler.get_scale())
        factor = lag_factor * module.task.batch_size / update.denominator
        stop = min(update.stop, passes[0].start + self.max_timesteps)
        flows = by_timestep_and_lag(
            module.model, passes, factor=factor, lag_factor=lag_factor, num_losses=self.num_losses, stop=stop
        )
        return {f"layer{number}": flow for number, flow in enumerate(flows, start=1)}

    def scalars(self) -> dict[str, float]:
        """Scalars of the latest look, by tag."""
        return charts.scalars(self.latest or {}, lags=self.lags, epsilon=self.epsilon)

    def figure(self, title: str = "") -> "Figure":
        """All panels in one figure, for the run folder."""
        from bptt import figures

        assert self.latest is not None
        images, progress = self.heat_map.images(), self.heat_map.progress
        return figures.gradient_flow(self.latest, images, progress, epsilon=self.epsilon, title=title)

    def log_figures(self, trainer: Trainer, module: BPTTModule, step: int) -> None:
        """One panel an image, because TensorBoard shows images small."""
        from bptt import figures

        assert self.latest is not None
        title = run_title(module)
        by_lag = partial(figures.gradient_by_lag, self.latest, epsilon=self.epsilon, title=title)
        write_image(trainer, "gradient_flow/figure/by_lag", by_lag, step)
        by_timestep = partial(figures.gradient_by_timestep, self.latest, title=title)
        write_image(trainer, "gradient_flow/figure/by_timestep", by_timestep, step)
        for name, values in self.heat_map.images().items():
            of_layer = f"{name} · {title}"
            heat_map = partial(figures.gradient_over_training, values, self.heat_map.progress, title=of_layer)
            write_image(trainer, f"gradient_flow/figure/over_training/{name}", heat_map, step)

    def at_end(self, trainer: Trainer, module: BPTTModule, exception: BaseException | None) -> None:
        from bptt import figures

        super().at_end(trainer, module, exception)
        self.curve_log.save(trainer)
        if exception is None and self.latest is not None and trainer.is_global_zero:
            self.log_figures(trainer, module, module.step_axis + 1)  # so that resuming discards them
            figures.save(self.figure(run_title(module)), run_folder(trainer).gradient_flow)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.curve_log.save(trainer)

    def state_dict(self) -> dict[str, Any]:
        latest = {name: flow._asdict() for name, flow in (self.latest or {}).items()}
        return {"looks": self.looks, **self.heat_map.state_dict(), "latest": latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.looks = state_dict["looks"]
        self.heat_map.load_state_dict(state_dict)
        self.latest = {name: LayerFlow(**flow) for name, flow in state_dict["latest"].items()} or None
