"""Training of a recurrent network with a gradient estimator of choice."""

import gc
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bptt.contracts import between, one_of
from bptt.estimators.base import Estimator, Update
from bptt.lightning.carry import Carry
from bptt.lightning.evaluation import Evaluation
from bptt.lightning.loggers import log
from bptt.lightning.processes import averaged, gathered, several
from bptt.model import SequenceModel
from bptt.random_state import random_state, restore_random_state
from bptt.tasks.base import Batch, Task

FORMAT = 1  # of what this project keeps in a checkpoint


@dataclass
class Counters:
    """How far training has come; logged with every point.

    updates: optimizer steps. batches: batches begun and ended. timesteps: T·B summed, over all processes.
    """

    updates: int = 0
    batches: int = 0
    timesteps: int = 0


@dataclass
class StreamPosition:
    """Where training stands: the next batch to read, `batch`, counted within `epoch`."""

    epoch: int = 0
    batch: int = 0


class LearningRateSchedule(NamedTuple):
    """A learning-rate scheduler, stepped after every `update` or `epoch`."""

    scheduler: Callable[[Optimizer], LRScheduler]
    interval: Literal["update", "epoch"] = "update"


class Clipping(NamedTuple):
    """Gradient clipping before each update: by the `norm` of all gradients together, each `value` alone, or `none`."""

    algorithm: Literal["norm", "value", "none"] = "none"
    max: float = 1.0


class BPTTModule(LightningModule):
    """A sequence model that learns a task, one update after another as its gradient estimator yields them.

    The x-axis of all logged curves is the number of timesteps each sequence stream has advanced, so that estimators
    and chunk sizes compare at equal data. In `on_before_optimizer_step` callbacks find the gradients unscaled and not
    yet clipped, `current_update` is the update they belong to, and the counters include it.
    """

    def __init__(
        self,
        *,
        task: Task,
        model: SequenceModel,
        estimator: Estimator,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        schedule: LearningRateSchedule | None = None,
        clipping: Clipping | None = None,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.task = task
        self.model = model
        self.estimator = estimator
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.clipping = clipping or Clipping()
        one_of(("norm", "value", "none"), algorithm=self.clipping.algorithm)
        between(0, float("inf"), open_low=True, max=self.clipping.max)
        if schedule is not None:
            one_of(("update", "epoch"), interval=schedule.interval)
        self.counters = Counters()
        self.carry = Carry()
        self.stream_position = StreamPosition()
        self._resumed: list[dict[str, Any]] | None = None  # what each process kept, once a checkpoint is loaded
        self.current_update: Update | None = None
        self.timestep_in_batch = 0  # timestep within the batch, for who looks from another thread
        self._loss_sum: float | Tensor = 0.0  # since the last logged point
        self._loss_weight = 0
        self.evaluation = Evaluation(task)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer = self.optimizer
        state = self.carry.state_for(self.model, batch)
        for own in self.estimator.updates(self.model, self.task.loss, batch, state, self.manual_backward):
            update = averaged(own, self.model)  # over all processes
            self.account(update)
            if update.weight:
                optimizer.step()
                optimizer.zero_grad()
                self.step_schedule("update")
        self.carry.keep(update.state)
        self.counters.batches += 1
        self.stream_position.batch += 1

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        # Here, and not before step(), because only here float16 gradients have been unscaled.
        if self.clipping.algorithm != "none":
            self.clip_gradients(optimizer, self.clipping.max, self.clipping.algorithm)

    def account(self, update: Update) -> None:
        """Count an update, and log the mean loss since the last point every `log_every_n_steps` updates."""
        counters, self.current_update = self.counters, update
        counters.timesteps += (update.stop - update.start) * self.task.batch_size
        self.timestep_in_batch = update.stop
        if not update.weight:
            return
        counters.updates += 1
        self._loss_sum += update.loss * update.weight
        self._loss_weight += update.weight
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set behind its annotations
        if counters.updates % every == 0:
            loss = float(self._loss_sum) / self._loss_weight
            self._loss_sum, self._loss_weight = 0.0, 0
            rate = self.optimizer.param_groups[0]["lr"]
            chosen = {f"estimator/{name}": value for name, value in self.estimator.scalars().items()}
            self.write({"train/loss": loss, "train/learning_rate": rate, **chosen})
            self.log("train/loss", loss, logger=False, batch_size=self.task.batch_size)

    @property
    def step_axis(self) -> int:
        """The x-axis of all curves: timesteps that each sequence stream has advanced."""
        return self.counters.timesteps // self.task.batch_size

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
            scheduler.step()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        # Lightning validates where training is asked to stop: so the last weights always have a score.
        trainer = self.trainer
        last_batch = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        if last_batch or 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        if not self.trainer.is_last_batch:
            return  # cut short, by a limit or a callback: a run that is made longer goes on within the epoch
        self.step_schedule("epoch")
        self.stream_position.epoch, self.stream_position.batch = self.stream_position.epoch + 1, 0

    def manual_backward(self, loss: Tensor, *arguments: Any, **options: Any) -> None:
        # The gradients of several processes are averaged once an update, and not after every backward pass.
        wrapper = self.trainer.model
        with wrapper.no_sync() if isinstance(wrapper, DistributedDataParallel) else nullcontext():
            super().manual_backward(loss, *arguments, **options)

    def on_train_start(self) -> None:
        gc.freeze()  # half a million objects of libraries, over which a collection would take a fifth of a second
        if self._resumed is not None:
            own = self._resumed[self.global_rank]
            self.carry.restore(own["carry"], self.model)
            restore_random_state(own["random"], self.device)
            self._resumed = None
        elif several():
            torch.manual_seed(torch.initial_seed() + self.global_rank)  # dropout of its own for each process

    def on_train_end(self) -> None:
        gc.unfreeze()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["bptt"] = {
            "format": FORMAT,
            "data": self.task.identity,
            "encoding": self.task.encoding,
            "counters": asdict(self.counters),
            "place": asdict(self.stream_position),
            "loss": (float(self._loss_sum), self._loss_weight),
            "estimator": self.estimator.state_dict(),
            "processes": gathered({"carry": self.carry.tensors(), "random": random_state(self.device)}),
        }
        # Lightning counts an epoch that was cut short as over, and in one to come the batches of the one before.
        loops = checkpoint["loops"]["fit_loop"]
        early = loops["epoch_progress"]["current"]["processed"] - self.stream_position.epoch
        if self.stream_position.batch == 0:
            batches = loops["epoch_loop.batch_progress"]
            batches |= {"current": dict.fromkeys(batches["current"], 0), "is_last_batch": False}
        elif early > 0:
            for counts in loops["epoch_progress"].values():
                counts["processed"] = counts["completed"] = counts["processed"] - early
            checkpoint["epoch"] -= early

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        found = checkpoint["bptt"]
        # Lightning loads the weights before it converts the model to its precision, which would round them.
        self.model.to(next(weight.dtype for weight in checkpoint["state_dict"].values() if weight.is_floating_point()))
        self.counters = Counters(**found["counters"])
        self.stream_position.epoch, self.stream_position.batch = found["place"]["epoch"], found["place"]["batch"]
        self._loss_sum, self._loss_weight = float(found["loss"][0]), found["loss"][1]
        self.estimator.load_state_dict(found["estimator"])
        self._resumed = found["processes"]
        if len(self._resumed) != self.trainer.world_size:
            raise ValueError(
                f"a run must be resumed with as many processes as it had, {len(self._resumed)}, got "
                f"{self.trainer.world_size}; set trainer.devices and trainer.num_nodes as they were"
            )

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.model.parameters())
        if self.schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.schedule.scheduler(optimizer)}

    def on_validation_epoch_start(self) -> None:
        self.evaluation.begin()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluation.add(self.model, batch)

    def on_validation_epoch_end(self) -> None:
        self.report("validation")

    def on_test_epoch_start(self) -> None:
        self.evaluation.begin()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluation.add(self.model, batch)

    def on_test_epoch_end(self) -> None:
        self.report("test")

    def report(self, split: str) -> None:
        scores = {f"{split}/{name}": score for name, score in self.evaluation.scores().items()}
        self.write({name: float(score) for name, score in scores.items()})
        self.log_dict(scores, logger=False, batch_size=self.task.batch_size, sync_dist=several())
