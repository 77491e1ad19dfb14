"""Measurements in at least float32, without a graph, and quick at subnormal numbers."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

MULTITHREADED = 40_000  # elements: torch distributes elementwise operations from 32,768 on over its threads


@contextmanager
def full_precision_no_grad(example: Tensor) -> Iterator[None]:
    """Disable autograd and autocast, and flush subnormal numbers to 0."""
    with torch.no_grad(), torch.autocast(example.device.type, enabled=False), without_subnormals():
        yield


@contextmanager
def without_subnormals() -> Iterator[None]:
    """Flush numbers below 1.2e-38 (float64: below 2.3e-308) to 0 on this CPU thread.

    A vanishing gradient becomes subnormal within some hundred timesteps, and CPUs compute with subnormal numbers about
    ten times more slowly.
    """
    # OpenMP's worker threads inherit the mode of the thread that starts them, and keep it: start them before.
    if torch.get_num_threads() > 1:
        torch.ones(MULTITHREADED, dtype=torch.float32, device="cpu").mul_(1)
    # torch has no getter for this mode, so a product shows it.
    before = not torch.full((), 1e-40, dtype=torch.float32, device="cpu").mul_(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def in_full_precision(module: M) -> M:
    """The module itself, or a float32 copy if its weights are in half precision. For measurements only."""
    half = any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in module.parameters())
    return copy.deepcopy(module).float() if half else module


def promoted(values: Tensor) -> Tensor:
    """The values detached and in at least float32: half-precision training is measured in full precision."""
    return values.detach().to(torch.promote_types(values.dtype, torch.float32))
