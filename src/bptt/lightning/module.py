"""Training of a recurrent network with a gradient estimator.

Longer than 200 lines: all hooks of one LightningModule.
"""

import gc
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, Literal, NamedTuple

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from bptt.contracts import one_of, refusal
from bptt.estimators.base import Estimator, Update, check_update
from bptt.lightning import checkpoint_content
from bptt.lightning.carry import Carry
from bptt.lightning.clipping import Clipping
from bptt.lightning.counters import Counters, StreamPosition
from bptt.lightning.evaluation import Evaluation
from bptt.lightning.loggers import RunLogger, log
from bptt.lightning.mean_loss import MeanLoss
from bptt.lightning.optimizers import MakeOptimizer, Settings, fused_where_possible, parameter_groups
from bptt.lightning.processes import averaged, several
from bptt.model import SequenceModel
from bptt.run_folder import RunStatus
from bptt.tasks.base import Batch, Task


class LearningRateSchedule(NamedTuple):
    """A learning-rate scheduler, stepped after every `update`, `validation` that is due, or `epoch`.

    monitor: the metric that `ReduceLROnPlateau` follows, which steps after validations.
    """

    scheduler: Callable[[Optimizer], LRScheduler]
    interval: Literal["update", "validation", "epoch"] = "update"
    monitor: str = "validation/loss"


class Ending(NamedTuple):
    """Ending of a run without an exception. reason: set if it ended before its last epoch was complete."""

    status: RunStatus = RunStatus.COMPLETED
    reason: str | None = None


class BPTTModule(LightningModule):
    """Lightning module that trains a sequence model on a task, one optimizer step per update of its gradient estimator.

    The x-axis of all logged curves is the number of timesteps that each sequence stream has advanced, so that curves
    of different chunk sizes are comparable at the same amount of data. In `on_before_optimizer_step`, gradients are
    unscaled (float16) and not yet clipped, `current_update` is the update that they belong to, and the counters include
    it. A callback that ends the run early sets `ending`.

    optimizer_groups: settings of the optimizer for some kinds of parameters, see `parameter_groups`.
    """

    def __init__(
        self,
        *,
        task: Task,
        model: SequenceModel,
        estimator: Estimator,
        optimizer: MakeOptimizer,
        optimizer_groups: Settings | None = None,
        schedule: LearningRateSchedule | None = None,
        clipping: Clipping | None = None,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.task = task
        self.model = model
        self.estimator = estimator
        self.make_optimizer = optimizer
        self.optimizer_groups = optimizer_groups or {}
        self.schedule = schedule
        self.clipping = clipping or Clipping()
        self.clipping.check()
        if schedule is not None:
            one_of(("update", "validation", "epoch"), interval=schedule.interval)
        self.counters = Counters()
        self.carry = Carry()
        self.stream_position = StreamPosition()
        self.current_update: Update | None = None
        self.own_denominator = 0.0  # of the losses that this process has in the current update
        self.timestep_in_batch = 0  # timesteps of the current batch already trained; 0 between batches
        self.batch_phase: Literal["start", "within", "end"] = "end"  # also after it, until the next one starts
        self.trained_before = False  # True for a batch that a resumed run does not train again
        self.validation_runs = False  # True during a validation within training
        self.validates_at_end = False  # True for a validation that a longer run would not have here
        self.after_update: list[Callable[[Trainer, BPTTModule], None]] = []  # called between a batch's updates
        self.mean_loss = MeanLoss()
        self.evaluation = Evaluation(task)
        self.ending = Ending()
        self._resumed: dict[str, Any] | None = None  # content of a loaded checkpoint, until training starts

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.batch_phase, self.trained_before = "within", self.timestep_in_batch >= batch.num_timesteps
        self.train_on(batch)
        self.batch_phase = "end"

    def train_on(self, batch: Batch) -> None:
        """Make the updates of a batch, or those that are left. Returns early if training stops between two of them."""
        optimizer = self.optimizer
        for local in self.updates(batch):
            if self.counters.batches == 0:
                check_update(self.estimator, local, self.model)
            self.own_denominator = local.denominator
            update = averaged(local, self.model)  # over all processes
            self.account(update)
            if update.weight:
                self.sum_over_time(update.denominator)
                optimizer.step()
                optimizer.zero_grad()
                self.step_schedule("update")
            self.carry.keep(update.state)
            self.timestep_in_batch = update.stop
            if update.stop < batch.num_timesteps and self.interrupted():
                return
        if self.timestep_in_batch < batch.num_timesteps:
            name, wanted = f"updates of {type(self.estimator).__name__}", "up to the end of a batch"
            raise ValueError(refusal(name, f"{wanted}, {batch.num_timesteps} timesteps", self.timestep_in_batch))
        self.counters.batches += 1
        self.stream_position.batch += 1
        self.timestep_in_batch = 0

    def sum_over_time(self, denominator: float) -> None:
        """Multiply the gradients by losses per sequence if `task.reduction` is `sum_over_time`.

        Estimators yield the gradient of the mean loss, divided by `denominator`. The product is the gradient of the
        losses summed over timesteps and averaged over sequences.
        """
        if self.task.reduction == "sum_over_time":
            gradients = [each.grad for each in self.model.parameters() if each.grad is not None]
            torch._foreach_mul_(gradients, denominator / self.task.batch_size)

    def scale_and_clip(self, denominator: float) -> None:
        """Apply `sum_over_time` and clipping to the gradients, for training loops without a trainer."""
        self.sum_over_time(denominator)
        self.clipping.clip(list(self.model.parameters()))

    def new_optimizer(self, *, scaled: bool = False) -> Optimizer:
        """An optimizer of the model's parameters, with the settings of their groups. scaled: float16 loss scaling."""
        parameters = parameter_groups(self.model, self.optimizer_groups)
        return fused_where_possible(self.make_optimizer, parameters, scaled=scaled)

    def updates(self, batch: Batch) -> Iterator[Update]:
        """The estimator's updates on a batch. A run resumed within the batch yields only the remaining ones."""
        start, estimator = self.timestep_in_batch, self.estimator
        if start == 0:
            state = self.carry.state_for(self.model, batch)
            yield from estimator.updates(self.model, self.task.loss, batch, state, self.manual_backward)
        elif start < batch.num_timesteps:
            rest, carried = estimator.rest(), self.carry.state
            assert rest is not None
            assert carried is not None
            remaining = batch.between(start, batch.num_timesteps)
            for update in rest.updates(self.model, self.task.loss, remaining, carried, self.manual_backward):
                passes = tuple((first + start, last + start) for first, last in update.passes)
                yield update._replace(start=update.start + start, stop=update.stop + start, passes=passes)

    def interrupted(self) -> bool:
        """True if training stops between two updates of a batch. Callbacks in `after_update` may also raise here.

        Always False for an estimator that cannot resume within a batch. With several processes, callbacks and
        `max_time` take effect at the end of the batch, because all processes would have to agree after every update.
        """
        if self.estimator.rest() is None:
            return False
        trainer = self.trainer
        if 0 <= trainer.max_steps <= trainer.global_step:
            return True
        if several():
            return False
        for callback in self.after_update:
            callback(trainer, self)
        return time_is_over(trainer)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Clip in this hook, not before step(): Lightning unscales float16 gradients inside step().
        self.clipping.clip([each for group in optimizer.param_groups for each in group["params"]])

    def account(self, update: Update) -> None:
        """Count an update, and log the mean loss since the last point every `log_every_n_steps` updates."""
        counters, self.current_update = self.counters, update
        counters.timesteps += (update.stop - update.start) * self.task.batch_size
        if not update.weight:
            return
        counters.updates += 1
        self.mean_loss.add(update)
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # no annotation in Lightning
        if counters.updates % every == 0:
            loss = self.mean_loss.take()
            rate = self.optimizer.param_groups[0]["lr"]
            chosen = {f"estimator/{name}": value for name, value in self.estimator.scalars().items()}
            self.write({"train/loss": loss, "train/learning_rate": rate, **chosen})
            self.log("train/loss", loss, logger=False, batch_size=self.task.batch_size)

    @property
    def step_axis(self) -> int:
        """x-coordinate of all curves: timesteps that each sequence stream has advanced."""
        return self.counters.timesteps // self.task.batch_size

    @property
    def step_of_callbacks(self) -> int | None:
        """x-coordinate of points that Lightning's callbacks log by themselves; None for points that are there already.

        At the start of a batch it is one later than `step_axis`: a resumed run discards the points that followed its
        checkpoint there, and logs them again. Those that preceded a checkpoint within a batch are not logged again.
        """
        left = self.timestep_in_batch > 0
        if self.batch_phase == "start":
            return None if left else self.step_axis + 1
        return None if self.batch_phase == "end" and (left or self.trained_before) else self.step_axis

    def write(self, scalars: Mapping[str, float], histograms: Mapping[str, Tensor] | None = None) -> None:
        """Send scalars and the three counters to every logger, and histograms of finite values to TensorBoard."""
        counted = {f"progress/{name}": float(number) for name, number in asdict(self.counters).items()}
        for logger in self.loggers:
            log(logger, {**scalars, **counted}, histograms or {}, self.step_axis)

    @property
    def optimizer(self) -> LightningOptimizer:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer

    def step_schedule(self, interval: str) -> None:
        if self.schedule is not None and self.schedule.interval == interval:
            scheduler = self.lr_schedulers()
            assert isinstance(scheduler, LRScheduler)
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(float(self.trainer.callback_metrics[self.schedule.monitor]))
                return
            try:
                scheduler.step()
            except ValueError as error:  # a schedule of a fixed length, such as OneCycleLR
                wanted = "at least as long as the run, trainer.max_epochs or max_steps"
                raise ValueError(f"scheduler.scheduler must be {wanted}, got: {error}") from error

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        trainer, is_due = self.trainer, validation_is_due(self.trainer) and not self.timestep_in_batch
        last_batch = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        ends = last_batch or self.timestep_in_batch or 0 <= trainer.max_steps <= trainer.global_step
        if ends:  # Lightning ends after a last validation, so that the final weights are scored
            trainer.should_stop = True
            trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None
        over = bool(timers(trainer)) and trainer.strategy.broadcast(time_is_over(trainer))  # one clock, as of the timer
        if (ends or over) and trainer.check_val_every_n_epoch is not None:
            trainer.check_val_every_n_epoch = 1  # in whichever epoch
        self.validates_at_end = bool(ends or over) and not is_due

    def on_train_epoch_end(self) -> None:
        is_over = self.trainer.is_last_batch or self.stream_position.batch >= self.trainer.num_training_batches
        if self.timestep_in_batch or not is_over:
            return  # ended early by a limit or a callback: a resumed run continues within this epoch
        with warnings.catch_warnings():  # the optimizer may not have stepped since the run was resumed
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self.step_schedule("epoch")
        self.stream_position.epoch, self.stream_position.batch = self.stream_position.epoch + 1, 0

    def manual_backward(self, loss: Tensor, *arguments: Any, **options: Any) -> None:
        # DDP would average gradients in every backward pass; `averaged` does it once per update.
        wrapper = self.trainer.model
        with wrapper.no_sync() if isinstance(wrapper, DistributedDataParallel) else nullcontext():
            super().manual_backward(loss, *arguments, **options)

    def on_fit_start(self) -> None:
        for logger in self.loggers:
            if isinstance(logger, RunLogger):
                logger.step_of_callbacks = lambda: self.step_of_callbacks

    def on_train_start(self) -> None:
        self._froze = not gc.get_freeze_count()  # otherwise an earlier job of the sweep did
        if self._froze:
            gc.freeze()  # exclude the libraries' half a million objects: each full collection over them takes 0.2 s
        if self._resumed is not None:
            checkpoint_content.restore_process(self, self._resumed, rank=self.global_rank)
            self._resumed = None
        elif several():
            torch.manual_seed(torch.initial_seed() + self.global_rank)  # different dropout in each process

    def on_train_end(self) -> None:
        if self._froze:
            gc.unfreeze()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[checkpoint_content.KEY] = checkpoint_content.content_of(self)
        checkpoint_content.correct_loop_counters(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning loads the weights before it converts the model to its precision, which would round them.
        self.model.to(next(weight.dtype for weight in checkpoint["state_dict"].values() if weight.is_floating_point()))
        self._resumed = checkpoint[checkpoint_content.KEY]
        checkpoint_content.restore(self, self._resumed, num_processes=self.trainer.world_size)
        if not timers(self.trainer):
            checkpoint["callbacks"].pop(Timer.__qualname__, None)  # Lightning warns of a `max_time` that is lifted

    def configure_optimizers(self) -> Any:
        scaler = None if self._trainer is None else getattr(self._trainer.precision_plugin, "scaler", None)
        optimizer = self.new_optimizer(scaled=scaler is not None)
        if self.schedule is None:
            return optimizer
        scheduler = self.schedule.scheduler(optimizer)
        if not isinstance(scheduler, LRScheduler):
            wanted = "a function that returns a scheduler of torch"
            raise ValueError(refusal("scheduler.scheduler", wanted, type(scheduler).__name__))
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_validation_epoch_start(self) -> None:
        self.trained_before = False
        self.evaluation.begin()
        self.validation_runs = self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluation.add(self.model, batch)

    def on_validation_epoch_end(self) -> None:
        self.report("validation")
        if self.validation_runs and not self.validates_at_end:
            self.step_schedule("validation")
        self.validation_runs = False

    def on_test_epoch_start(self) -> None:
        self.evaluation.begin()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluation.add(self.model, batch)

    def on_test_epoch_end(self) -> None:
        self.report("test")

    def report(self, split: str) -> None:
        """Log loss and metrics of the split evaluated last, except those of a sanity check's few batches."""
        scores = {f"{split}/{name}": score for name, score in self.evaluation.scores().items()}
        if self.trainer.sanity_checking:
            return
        self.write({name: float(score) for name, score in scores.items()})
        self.log_dict(scores, logger=False, batch_size=self.task.batch_size, sync_dist=several())


def validation_is_due(trainer: Trainer) -> bool:
    """True if a validation follows the present training batch, whether or not the run ends with it."""
    loop, every = trainer.fit_loop.epoch_loop, trainer.check_val_every_n_epoch
    if every is not None and (trainer.current_epoch + 1) % every:
        return False
    interval = trainer.val_check_batch
    if interval is None or interval == math.inf:
        return trainer.is_last_batch
    number = loop.total_batch_idx if every is None else loop.batch_idx
    return (number + 1) % interval == 0


def timers(trainer: Trainer) -> list[Timer]:
    """The callbacks that `max_time` adds to a trainer."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # no annotation in Lightning
    return [each for each in callbacks if isinstance(each, Timer)]


def time_is_over(trainer: Trainer) -> bool:
    """True if `max_time` has passed. Lightning's own timer is checked only between batches."""
    return any((left := each.time_remaining()) is not None and left <= 0 for each in timers(trainer))
