"""The base of this project's callbacks."""

from contextlib import nullcontext, suppress
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer

from bptt.buffers import kept_buffers
from bptt.estimators.base import Update
from bptt.lightning.folder_place import FolderPlace
from bptt.lightning.module import BPTTModule
from bptt.measures.passes import Pass, PassRecorder
from bptt.run_folder import RunFolder
from bptt.tasks.base import Batch


class TrainingCallback(Callback):
    """A callback whose hooks receive the module as a `BPTTModule`.

    Override these hooks instead of Lightning's:
    - at_start: training starts or is resumed. If resumed, the checkpoint is loaded.
    - before_batch, after_batch: before and after a training batch.
    - on_update: gradients are complete, unscaled (float16) and not clipped. The optimizer has not stepped yet.
    - after_validation: after a validation within training, except sanity checks.
    - at_end: training is over and the last checkpoint is written, or an exception ended it.
    """

    one_direction = False
    """True if it measures the recurrence or its truncation, so that it is left out for a bidirectional model."""

    _place: FolderPlace | None = None

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None: ...

    def before_batch(self, trainer: Trainer, module: BPTTModule, batch: Batch) -> None: ...

    def on_update(self, trainer: Trainer, module: BPTTModule, update: Update) -> None: ...

    def after_batch(self, trainer: Trainer, module: BPTTModule) -> None: ...

    def after_validation(self, trainer: Trainer, module: BPTTModule) -> None: ...

    def at_end(self, trainer: Trainer, module: BPTTModule, exception: BaseException | None) -> None: ...

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, BPTTModule)
        self._place = FolderPlace(run_folder(trainer).path)
        self.at_start(trainer, pl_module)

    def check_folder(self, trainer: Trainer) -> None:
        """FileNotFoundError if the run folder was moved or replaced while the run trained."""
        if trainer.is_global_zero and self._place is not None:
            self._place.check()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        assert isinstance(pl_module, BPTTModule)
        self.before_batch(trainer, pl_module, batch)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        assert isinstance(pl_module, BPTTModule)
        assert pl_module.current_update is not None
        self.on_update(trainer, pl_module, pl_module.current_update)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        assert isinstance(pl_module, BPTTModule)
        self.after_batch(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, BPTTModule)
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.after_validation(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, BPTTModule)
        self.at_end(trainer, pl_module, None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        assert isinstance(pl_module, BPTTModule)
        with suppress(OSError):  # a full disk must not hide `exception` or prevent `at_end` of other callbacks
            self.at_end(trainer, pl_module, exception)


class RecordingCallback(TrainingCallback):
    """A callback with a `recorder` of forward passes. Subclasses create it in `at_start`; it is closed at the end.

    In `on_update` it may compute these passes again: the model's buffers stay as they are.
    """

    one_direction = True
    recorder: PassRecorder | None = None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        assert isinstance(pl_module, BPTTModule)
        is_due = self.recorder is not None and bool(self.recorder.passes)
        with kept_buffers(pl_module.model) if is_due else nullcontext():
            super().on_before_optimizer_step(trainer, pl_module, optimizer)

    def recorded_passes(self, update: Update) -> list[Pass]:
        """The passes of an update; empty if they were not recorded."""
        return self.recorder.take(update.passes) if self.recorder is not None and self.recorder.passes else []

    def at_end(self, trainer: Trainer, module: BPTTModule, exception: BaseException | None) -> None:
        if self.recorder is not None:
            self.recorder.close()


def monitored(trainer: Trainer, name: str) -> float:
    """Value of a metric in the latest validation. ValueError if there is no such metric."""
    metrics = trainer.callback_metrics
    if name not in metrics:
        raise ValueError(f"the monitored metric must be one of {', '.join(sorted(metrics))}; got {name}")
    return float(metrics[name])


def run_title(module: BPTTModule) -> str:
    """Task, layers, estimator and update on one line, for the title of a figure."""
    layers = [layer.label for layer in module.model.levels]
    same = len(layers) > 1 and len(set(layers)) == 1
    model = f"{len(layers)} × {layers[0]}" if same else " → ".join(layers)
    chunk_size = getattr(module.estimator, "chunk_size", None)
    estimator = f"{type(module.estimator).__name__}{'' if chunk_size is None else f' {chunk_size}'}"
    return f"{type(module.task).__name__} · {model} · {estimator} · update {module.counters.updates:,}"


def run_folder(trainer: Trainer) -> RunFolder:
    """The folder that a trainer writes into."""
    return RunFolder(Path(trainer.default_root_dir))
