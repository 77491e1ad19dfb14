"""Measurements in at least float32, with and without a graph, and quick at subnormal numbers."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from bptt.layers.twin import with_tensors

M = TypeVar("M", bound=nn.Module)

HALF = (torch.float16, torch.bfloat16)
MULTITHREADED = 40_000  # elements: torch distributes elementwise operations from 32,768 on over its threads


@contextmanager
def full_precision_no_grad(example: Tensor) -> Iterator[None]:
    """Disable autograd and autocast, and flush subnormal numbers to 0."""
    with torch.no_grad(), torch.autocast(example.device.type, enabled=False), without_subnormals():
        yield


@contextmanager
def with_graph() -> Iterator[None]:
    """Enable autograd, also within torch.no_grad. ValueError within torch.inference_mode, where it stays disabled."""
    if torch.is_inference_mode_enabled():
        remedy = "use torch.no_grad, or Trainer(inference_mode=False) for hooks of validation"
        raise ValueError(f"a gradient must be computed outside torch.inference_mode, got a call within it; {remedy}")
    with torch.enable_grad():
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
    """The module itself, or a float32 copy if its weights are in half precision. No gradient reaches its weights."""
    half = any(parameter.dtype in HALF for parameter in module.parameters())
    return copy.deepcopy(module).float() if half else module


def promoted_with_graph(module: M) -> M:
    """The module itself, or with its half-precision tensors in float32, so that gradients reach its own weights."""
    tensors = chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    half = {name: each.float() for name, each in tensors if each.dtype in HALF}
    return with_tensors(module, half) if half else module


def promoted(values: Tensor) -> Tensor:
    """The values detached and in at least float32: half-precision training is measured in full precision."""
    return values.detach().to(torch.promote_types(values.dtype, torch.float32))
