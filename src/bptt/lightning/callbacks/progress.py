"""Progress of a run in the terminal.

Longer than 200 lines: one table, its columns and its refresh.
"""

import shlex
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import IO, cast

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from bptt.lightning.callbacks.base import TrainingCallback, run_folder
from bptt.lightning.loggers import writers
from bptt.lightning.module import BPTTModule
from bptt.lightning.terminal import ConsoleStream

FIRST_LINE, LONGEST_PAUSE = 10.0, 300.0  # seconds


class RunProgress(TrainingCallback, ProgressBar):
    """Prints task, model and estimator at the start, a line for each validation, and the run folder at the end.

    On a terminal, a bar shows the batches of the whole run, and the timestep within a batch of several updates.
    Otherwise, a line is printed after 10 seconds, then after pauses that double up to 5 minutes. If output can no
    longer be written, it is discarded and training continues.
    """

    def __init__(self) -> None:
        super().__init__()
        file = cast("IO[str]", ConsoleStream())
        self.console = Console(file=file, highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        self.pause = FIRST_LINE

    def disable(self) -> None:
        self.console.quiet = True

    def enable(self) -> None:
        self.console.quiet = False

    def say(self, text: str) -> None:
        """Print text without rich's markup and emoji codes, because names and paths may contain brackets and colons."""
        self.console.print(text, markup=False, emoji=False)

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None:
        if trainer.is_global_zero:
            self.say(overview(module))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or self.console.quiet:
            return
        assert isinstance(pl_module, BPTTModule)
        if self.console.is_terminal:
            self.bar = RunBar(trainer, pl_module, self.console)
            self.bar.start()
        else:
            self.began = self.printed = time.monotonic()
            self.first = batches_done(pl_module)
            pl_module.after_update.append(self.print_line_if_due)

    def after_batch(self, trainer: Trainer, module: BPTTModule) -> None:
        if self.bar is None and trainer.is_global_zero and not self.console.quiet:
            self.print_line_if_due(trainer, module)

    def print_line_if_due(self, trainer: Trainer, module: BPTTModule) -> None:
        now = time.monotonic()
        if now - self.printed < self.pause:
            return
        self.printed, self.pause = now, min(2 * self.pause, LONGEST_PAUSE)
        done, total, seconds = batches_done(module), num_batches(trainer), now - self.began
        words = [f"batch {int(done):,}"]
        if total is not None:
            left = seconds * (total - done) / max(done - self.first, 1e-9)
            words = [f"{done / total:.0%} done", f"{words[0]}/{total:,}", f"{duration(left)} left"]
        loss = trainer.callback_metrics.get("train/loss")
        words += [f"{duration(seconds)} passed", *([] if loss is None else [f"loss {float(loss):.4g}"])]
        self.say(", ".join(words))

    def after_validation(self, trainer: Trainer, module: BPTTModule) -> None:
        if trainer.is_global_zero:
            at = f"{module.counters.updates:,} updates"
            self.say(f"validation after {at:>16}: {scores(trainer, 'validation')}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def at_end(self, trainer: Trainer, module: BPTTModule, exception: BaseException | None) -> None:
        self._stop()
        if exception is None and trainer.is_global_zero:
            run, here = run_folder(trainer).path, Path.cwd()
            if here in run.parents:  # not within the run folder, which hydra.job.chdir=true enters
                run = run.relative_to(here)
            self.say(f"run folder   {run}")
            if writers(trainer):
                self.say(f"TensorBoard  make tensorboard   (tensorboard --logdir {shlex.quote(str(run))})")

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class RunBar(Progress):
    """Progress bar over the batches of the whole run; fits into 80 columns."""

    def __init__(self, trainer: Trainer, module: BPTTModule, console: Console):
        column = Column(no_wrap=True)
        super().__init__(
            BarColumn(bar_width=8),
            Batches(table_column=column),
            WithinBatch(module, table_column=column.copy()),
            TimeElapsedColumn(table_column=column.copy()),
            TimeRemainingColumn(table_column=column.copy()),
            Losses(trainer, table_column=column.copy()),
            console=console,
            refresh_per_second=2,
        )
        self.module = module
        self.task_id = self.add_task("", total=num_batches(trainer), completed=int(batches_done(module)))

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.tasks:
            self.update(self.task_id, completed=batches_done(self.module))
        return super().get_renderables()


class Batches(ProgressColumn):
    """Completed batches, and the total if it is known."""

    def render(self, task: Task) -> Text:
        return Text(f"batch {int(task.completed):,}" + (f"/{task.total:,.0f}" if task.total is not None else ""))


class WithinBatch(ProgressColumn):
    """The timestep within a batch of several updates."""

    def __init__(self, module: BPTTModule, *, table_column: Column):
        super().__init__(table_column)
        self.module = module

    def render(self, task: Task) -> Text:
        position, length = self.module.timestep_in_batch, self.module.task.length
        return Text(f"t {position:,}/{length:,}" if 0 < position < length else "")


class Losses(ProgressColumn):
    """Latest training and validation loss."""

    def __init__(self, trainer: Trainer, *, table_column: Column):
        super().__init__(table_column)
        self.trainer = trainer

    def render(self, task: Task) -> Text:
        metrics = self.trainer.callback_metrics
        return Text(" ".join(f"{name} {float(metrics[key]):.3g}" for key, name in LOSSES.items() if key in metrics))


LOSSES = {"train/loss": "loss", "validation/loss": "val"}


def batches_done(module: BPTTModule) -> float:
    """Batches trained so far, including the fraction of the current one."""
    return module.counters.batches + min(module.timestep_in_batch / module.task.length, 1)


def num_batches(trainer: Trainer) -> int | None:
    """Batches of the whole run, or None if the number of epochs is unlimited."""
    epochs, batches = trainer.max_epochs, trainer.num_training_batches
    return None if epochs is None or epochs <= 0 or isinstance(batches, float) else int(epochs * batches)


def duration(seconds: float) -> str:
    """Format as hours:minutes:seconds."""
    return str(timedelta(seconds=round(seconds)))


def scores(trainer: Trainer, split: str) -> str:
    """Loss and metrics of a split on one line."""
    metrics = trainer.callback_metrics
    names = [name for name in metrics if name.startswith(f"{split}/")]
    return "  ".join(f"{name.removeprefix(split + '/')} {float(metrics[name]):.4f}" for name in names)


def overview(module: BPTTModule) -> str:
    """Task, model and estimator of a run, with the sizes D, V, B and T explained."""
    task, model = module.task, module.model
    batches = "/".join(f"{task.num_batches(split):,}" for split in ("train", "validation", "test"))
    layers = " → ".join(layer.label for layer in model.levels)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    settings = (
        f"{name} {value}" for name, value in vars(module.estimator).items() if isinstance(value, int | float | str)
    )
    rows = [
        ("task", type(task).__name__),
        *([("", task.contents)] if task.contents else []),
        ("", f"{task.input_size} inputs (D), {task.output_size} outputs (V)"),
        ("", f"{task.batch_size} sequences (B) of {task.length:,} timesteps (T) a batch"),
        ("", f"{batches} batches (train/validation/test)"),
        ("model", f"{layers}, {parameters:,} parameters"),
        ("estimator", ", ".join((type(module.estimator).__name__, *settings))),
    ]
    return "\n".join(f"{name:<11}{text}" for name, text in rows)
