"""One run on several processes: each has its own sequences, all have the same weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, nn

from bptt.estimators.base import Update


def several() -> bool:
    """Whether this run has other processes."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


@contextmanager
def all_alive() -> Iterator[None]:
    """What the processes of a run do together; ConnectionError where one of the others has died."""
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
    """The value of every process, by rank; every process must ask."""
    if not several():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def averaged(update: Update, model: nn.Module) -> Update:
    """Make each process's gradient that of all losses over the sum of all divisors, and return the update of all.

    One exchange for each update, however many backward passes it took. A process whose sequences have no loss here
    counts as a gradient of 0, so that all take the same steps.
    """
    if not several():
        return update
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    loss = update.loss.reshape(1)
    gradients = [torch.zeros_like(own) if own.grad is None else own.grad for own in trained]
    divisor = update.weight if update.divisor is None else update.divisor
    parts = [loss * update.weight, *(gradient * divisor for gradient in gradients), loss.new_tensor([divisor])]
    sums = torch.cat([*(part.flatten().to(loss.dtype) for part in parts), loss.new_tensor([update.weight])])
    distributed.all_reduce(sums)
    weight = round(float(sums[-1]))
    if weight:
        total_loss, *totals, whole = sums[:-1].split([part.numel() for part in parts])
        for parameter, total in zip(trained, totals):
            parameter.grad = (total / whole).view_as(parameter).to(parameter.dtype)
        update = update._replace(loss=(total_loss / weight).squeeze())
    return update._replace(weight=weight)


def any_of(value: bool, device: torch.device) -> bool:
    """Whether it is so on any process; every process must ask."""
    if not several():
        return value
    flag = torch.tensor([float(value)], device=device)
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag)
