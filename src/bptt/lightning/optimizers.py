"""Optimizers in their fastest form."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

FUSED: tuple[type[Optimizer], ...] = (Adam, AdamW, SGD)
CONFLICTING = {"fused", "foreach", "capturable", "differentiable"}  # arguments by which a user has chosen already
PRECISE = (torch.float32, torch.float64)


def fused_where_possible(
    make: Callable[[Iterable[nn.Parameter]], Optimizer], parameters: Iterable[nn.Parameter], *, scaled: bool
) -> Optimizer:
    """The optimizer with torch's fused kernel, which updates all numbers of a parameter in one pass.

    For a small network the unfused loop over tensors takes longer than the rest of an update. Results differ by
    rounding. Not used on devices without the kernel; for half precision, where torch 2.13's SGD leaves weights on the
    CPU as they are; nor with float16's loss scaling: `scaled` gradients would be
    unscaled inside the kernel, so that they could not be clipped.
    """
    trained = list(parameters)
    fits = (
        isinstance(make, partial)
        and make.func in FUSED
        and not CONFLICTING & make.keywords.keys()
        and not scaled
        and all(each.device.type in ("cpu", "cuda") and each.dtype in PRECISE for each in trained)
    )
    return make(trained, fused=True) if fits else make(trained)  # type: ignore[call-arg]
