"""One run on several processes: each has its own sequences, all have the same weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import Trainer
from torch import distributed, nn

from bptt.estimators.base import Update


def several() -> bool:
    """True if the run has several processes."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


@contextmanager
def all_alive() -> Iterator[None]:
    """Turn the failure of a collective operation into a ConnectionError: another process of the run has died."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise
        raise ConnectionError(
            "all processes of a run must stay until its end, but one of them is gone; "
            "resume=auto goes on from the last checkpoint"
        ) from error


def gathered(value: Any) -> list[Any]:
    """The value of every rank. Collective: every rank must call it."""
    if not several():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def averaged(update: Update, model: nn.Module) -> Update:
    """Make each process's gradient that of all losses over the sum of all divisors, and return the update of all.

    One exchange for each update, however many backward passes it took. A process whose sequences have no loss here
    counts as a gradient of 0, so that all take the same steps. A parameter without a gradient anywhere stays so.
    """
    if not several():
        return update
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    loss = update.loss.reshape(1).to(torch.promote_types(update.loss.dtype, torch.float32))
    gradients = [torch.zeros_like(own) if own.grad is None else own.grad for own in trained]
    counts = loss.new_tensor([update.weight, update.denominator, *(float(own.grad is not None) for own in trained)])
    parts = [counts, loss * update.weight, *(gradient * update.denominator for gradient in gradients)]
    sums = torch.cat([part.flatten().to(loss.dtype) for part in parts])
    distributed.all_reduce(sums)
    counts, total_loss, *totals = sums.split([part.numel() for part in parts])
    weight = round(float(counts[0]))
    if weight:
        for parameter, total, own in zip(trained, totals, counts[2:].tolist()):
            parameter.grad = (total / counts[1]).view_as(parameter).to(parameter.dtype) if own else None
        update = update._replace(loss=(total_loss / weight).squeeze())
        if update.divisor is not None:
            update = update._replace(divisor=float(counts[1]))
    return update._replace(weight=weight)


def let_further_ones_end(trainer: Trainer) -> None:
    """Let the processes that the first one has started end by themselves.

    Lightning would kill them, and then the first one, whose exit code would no longer be that of the signal.
    """
    started = getattr(trainer.strategy.launcher, "procs", None)
    if started:
        started.clear()


def any_of(value: bool, device: torch.device) -> bool:
    """True if `value` is true on any rank. Collective: every rank must call it."""
    if not several():
        return value
    flag = torch.tensor([float(value)], device=device)
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag)
