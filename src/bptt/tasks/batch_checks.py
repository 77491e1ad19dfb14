"""Checks of a task's batches before training, so that an error names the task and its fault."""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from bptt.contracts import at_least, refusal
from bptt.tasks.base import SPLITS, Batch, Split, Task

ROWS = 1000  # predictions that a metric is tried with


def check_task(task: Task) -> None:
    """Check the metrics, and the first batch of each split. Raises ValueError with one line."""
    check_metrics(task)
    for split in SPLITS:
        number: Any = task.num_batches(split)
        at_least(0, **{f"num_batches('{split}') of {type(task).__name__}": number})
        if number:
            batch = task.batch(split, 0)
            check_batch(task, batch, split)
            if split == "train":
                check_same(task, batch, task.batch(split, 0), split)
                check_scoring(task, batch, split)


def check_metrics(task: Task) -> None:
    """Check that `metrics` returns metrics by their names, none of them that of the loss."""
    metrics, named = task.metrics(), f"metrics of {type(task).__name__}"
    if not isinstance(metrics, Mapping) or not all(isinstance(each, Metric) for each in metrics.values()):
        got = {name: type(each).__name__ for name, each in metrics.items()} if isinstance(metrics, Mapping) else metrics
        raise ValueError(refusal(named, "metrics of torchmetrics by their names", got))
    if "loss" in metrics:
        raise ValueError(refusal(named, "of other names than loss, which is the task's own", "loss", "rename it"))


def check_batch(task: Task, batch: Batch, split: Split) -> None:
    """Check shapes, ids, finite numbers, and that there is a loss.

    Raises ValueError with one line: the task, the contract, the values received, and the remedy if there is one.
    """
    if not isinstance(batch, Batch):
        raise ValueError(refusal(f"batch('{split}', 0) of {type(task).__name__}", "a Batch", batch))
    inputs, targets, num_sequences = batch.inputs, batch.targets, task.batch_size
    for name, values in (("inputs", inputs), ("targets", targets)):
        if not isinstance(values, Tensor):
            refuse(task, split, name, "a tensor", type(values).__name__)
    shape = tuple(inputs.shape)
    wanted = f"(T, B, D) with B = {num_sequences}, D = {task.input_size}, or token ids (T, B)"
    if len(shape) not in (2, 3) or shape[0] < 1:
        refuse(task, split, "inputs", wanted, shape)
    if shape[1] != num_sequences:
        first = shape[0] == num_sequences
        refuse(task, split, "inputs", wanted, shape, "time comes first: transpose(0, 1)" if first else "")
    if len(shape) == 3:
        if not inputs.is_floating_point():
            remedy = "convert features with .float()"
            refuse(task, split, "inputs", "floating point if they are features (T, B, D)", inputs.dtype, remedy)
        if shape[2] != task.input_size:
            refuse(task, split, "inputs", wanted, shape)
        if not inputs.isfinite().all():
            refuse(task, split, "inputs", "finite", first_not_finite(inputs))
    else:
        check_ids(task, split, "token ids", inputs, task.input_size)
    mask, reset = batch.mask, batch.reset
    if mask is not None:
        if mask.dtype != torch.bool or mask.shape != shape[:2]:
            refuse(task, split, "the mask", f"boolean {shape[:2]}", f"{mask.dtype} {tuple(mask.shape)}")
        if not mask.any() and not any_loss(task, split):
            remedy = "let each part have known targets: see task.fractions, for sequences task.split_seed or task.split"
            wanted = f"the mask of a {split} batch of {type(task).__name__} must be true somewhere"
            raise ValueError(f"{wanted}, got no timestep with a loss in any; {remedy}")
    if reset is not None and (reset.dtype != torch.bool or tuple(reset.shape) not in (shape[:2], shape[1:2])):
        refuse(task, split, "reset", f"boolean {shape[:2]} or {shape[1:2]}", f"{reset.dtype} {tuple(reset.shape)}")
    if targets.shape[:2] != shape[:2]:
        refuse(task, split, "targets", f"(T, B, …) with the inputs' T and B {shape[:2]}", tuple(targets.shape))
    inside = batch.inside(targets)
    if targets.is_floating_point():
        allowed = inside.isfinite() | inside.isnan() if task.missing_targets else inside.isfinite()
        if not allowed.all():
            refuse(task, split, "targets with a loss", "finite", first_not_finite(inside))
    elif targets.dim() == 2 and task.output_size > 1 and targets.dtype != torch.bool:
        check_ids(task, split, "class ids", inside, task.output_size)
    check_errors(task, batch, split)


def check_same(task: Task, batch: Batch, again: Batch, split: Split) -> None:
    """Check that a training batch is the same when it is asked for again: a resumed run and the measures ask again."""

    def same(first: Tensor, second: Tensor) -> bool:
        return torch.equal(first.nan_to_num(), second.nan_to_num())

    inputs = same(batch.inputs, again.inputs)
    if not (inputs and same(batch.inside(batch.targets), again.inside(again.targets))):
        remedy = "draw augmentations, too, from bptt.tasks.synthetic.generator(seed, split, index)"
        refuse(task, split, "targets" if inputs else "inputs", "the same at every call", "other values", remedy)


def check_errors(task: Task, batch: Batch, split: Split) -> None:
    """Check that the task's `errors` accept its targets and return one loss for each timestep."""
    shape = tuple(batch.inputs.shape[:2])
    predictions = torch.zeros(*shape, task.output_size)
    wanted = f"{shape}, one for each timestep, from predictions {tuple(predictions.shape)}"
    try:
        errors = task.errors(predictions, batch.targets)
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        refuse(task, split, "errors", wanted, f"targets {tuple(batch.targets.shape)} and the error: {reason}")
        return
    if not isinstance(errors, Tensor) or tuple(errors.shape) != shape:
        refuse(task, split, "errors", wanted, tuple(errors.shape) if isinstance(errors, Tensor) else errors)
    if not batch.inside(errors).isfinite().all():
        refuse(task, split, "errors", "finite for predictions 0", first_not_finite(batch.inside(errors)))


def check_scoring(task: Task, batch: Batch, split: Split) -> None:
    """Check that the metrics accept the targets of a batch, with random predictions, and come to numbers."""
    targets = batch.inside(batch.targets)[:ROWS]
    predictions = torch.randn(len(targets), task.output_size, generator=torch.Generator().manual_seed(0))
    for name, metric in task.metrics().items() if len(targets) else ():
        try:
            metric.update(predictions, targets)
        except Exception as error:
            shapes = f"{tuple(predictions.shape)} and {tuple(targets.shape)}"
            wanted = f"one that accepts predictions and targets {shapes}"
            got = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            refuse(task, split, f"metric {name}", wanted, got)
        value: Any = 0.0
        with suppress(Exception), warnings.catch_warnings(action="ignore"):  # some need more than one batch
            value = metric.compute()
        for each in value.values() if isinstance(value, Mapping) else [value]:
            if not (isinstance(each, Real) or (isinstance(each, Tensor) and each.numel() == 1)):
                got = str(tuple(each.shape)) if isinstance(each, Tensor) else type(each).__name__
                refuse(task, split, f"metric {name}", "one number, or several by name", got)


def check_ids(task: Task, split: Split, name: str, ids: Tensor, number: int) -> None:
    if ids.is_floating_point():
        refuse(task, split, name, "integers", ids.dtype, "features are (T, B, D), D = 1 too")
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < number:
        refuse(task, split, name, f"from 0 to {number - 1}", f"{int(ids.min())} to {int(ids.max())}")


def any_loss(task: Task, split: Split) -> bool:
    """True if a batch of the split has a timestep with a loss: a series may begin with a gap."""
    return any(sum(task.batch(split, index).weights()) for index in range(task.num_batches(split)))


def first_not_finite(values: Tensor) -> str:
    """The first value that is not finite, with its index."""
    index = tuple((~values.isfinite()).nonzero()[0].tolist())
    return f"{float(values[index])} at {list(index)}"


def refuse(task: Task, split: Split, name: str, wanted: str, got: object, remedy: str = "") -> None:
    text = f"{name} of {type(task).__name__}'s first {split} batch must be {wanted}, got {got}"
    raise ValueError(text + (f"; {remedy}" if remedy else ""))
