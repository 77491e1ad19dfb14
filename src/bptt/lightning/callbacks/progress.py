"""What a person sees while a run goes on."""

import math
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from bptt.lightning.callbacks.base import TrainingCallback, run_folder
from bptt.lightning.module import BPTTModule


class RunProgress(TrainingCallback, ProgressBar):
    """A table of task, model and estimator at the start; a bar over the batches of the whole run; a line a validation;
    and at the end where everything lies.

    Where a batch has many updates, the bar also shows the timestep within the batch. Where the output is no terminal
    there is no bar.
    """

    def __init__(self) -> None:
        super().__init__()
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar: Progress | None = None

    def disable(self) -> None:
        self.console.quiet = True

    def enable(self) -> None:
        self.console.quiet = False

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None:
        if trainer.is_global_zero:
            self.console.print(overview(module))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or not self.console.is_terminal or self.console.quiet:
            return
        assert isinstance(pl_module, BPTTModule)
        columns = (
            TextColumn("training"), BarColumn(), Batches(), WithinBatch(pl_module),
            TimeElapsedColumn(), TextColumn("<"), TimeRemainingColumn(), Losses(trainer),
        )  # fmt: skip
        self.bar = Progress(*columns, console=self.console, refresh_per_second=2)
        total = trainer.num_training_batches * (trainer.max_epochs or 1)
        known = math.isfinite(total) and total > 0
        self.bar.add_task("", total=total if known else None, completed=pl_module.counters.batches)
        self.bar.start()

    def after_batch(self, trainer: Trainer, module: BPTTModule) -> None:
        if self.bar is not None:
            self.bar.advance(self.bar.task_ids[0])

    def after_validation(self, trainer: Trainer, module: BPTTModule) -> None:
        if trainer.is_global_zero:
            at = f"{module.counters.updates:,} updates"
            self.console.print(f"validation after {at:>16}: {scores(trainer, 'validation')}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def at_end(self, trainer: Trainer, module: BPTTModule, exception: BaseException | None) -> None:
        self._stop()
        if exception is None and trainer.is_global_zero:
            run = run_folder(trainer).path
            run = run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run
            self.console.print(f"run folder   {run}\nTensorBoard  make tensorboard   (tensorboard --logdir {run})")

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class Batches(ProgressColumn):
    """Batches so far, and how many there will be where that is known."""

    def render(self, task: Task) -> Text:
        return Text(f"batch {task.completed:,.0f}" + (f"/{task.total:,.0f}" if task.total is not None else ""))


class WithinBatch(ProgressColumn):
    """The timestep within a batch, where a batch has several updates."""

    def __init__(self, module: BPTTModule):
        super().__init__()
        self.module = module

    def render(self, task: Task) -> Text:
        position, length = self.module.timestep_in_batch, self.module.task.length
        return Text(f"timestep {position:,}/{length:,}" if position < length else "")


class Losses(ProgressColumn):
    """The last losses."""

    def __init__(self, trainer: Trainer):
        super().__init__()
        self.trainer = trainer

    def render(self, task: Task) -> Text:
        metrics = self.trainer.callback_metrics
        return Text("  ".join(f"{name} {float(metrics[name]):.4g}" for name in LOSSES if name in metrics))


LOSSES = ("train/loss", "validation/loss")


def scores(trainer: Trainer, split: str) -> str:
    """A split's loss and metrics on one line."""
    metrics = trainer.callback_metrics
    names = [name for name in metrics if name.startswith(f"{split}/")]
    return "  ".join(f"{name.removeprefix(split + '/')} {float(metrics[name]):.4f}" for name in names)


def overview(module: BPTTModule) -> str:
    """What is about to be trained on what."""
    task, model = module.task, module.model
    batches = "/".join(f"{task.num_batches(split):,}" for split in ("train", "validation", "test"))
    sizes = f"D {task.input_size}, V {task.output_size}, B {task.batch_size}, T {task.length} a batch"
    rows = [("task", type(task).__name__, f"{sizes}; {batches} batches (train/validation/test)")]
    layers = " → ".join(f"{type(layer).__name__}({layer.hidden_size})" for layer in model.layers)
    rows.append(("model", layers, f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters"))
    settings = ", ".join(
        f"{name} {value}" for name, value in vars(module.estimator).items() if isinstance(value, int | float | str)
    )
    rows.append(("estimator", type(module.estimator).__name__, settings))
    width = max(len(middle) for _, middle, _ in rows)
    return "\n".join(f"{name:<11}{middle:<{width}}   {detail}" for name, middle, detail in rows)
