"""Euclidean norms that neither overflow nor underflow."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

SMALLEST = 1e-12  # float32 squares that underflow (below 1e-38) are negligible in norms above it


def norm(values: Tensor, dim: int | tuple[int, ...] | None = None) -> Float[Tensor, "..."]:
    """‖values‖₂ over `dim` (default: over all), in float64.

    The sum of squares of a float32 vector overflows above 1.8e19 and underflows below 1e-23, although both are well
    inside the range of float32. In float64 every float32 vector has a finite norm, and a norm above 0 unless it is 0.
    """
    result: Tensor = torch.linalg.vector_norm(values.detach(), dim=dim, dtype=torch.float64)
    return result


def joint_norm(tensors: Sequence[Tensor]) -> Float[Tensor, ""]:
    """‖·‖₂ of several tensors joined into one vector, in float64."""
    return torch.linalg.vector_norm(torch.stack([norm(each) for each in tensors]))


def total_norm(tensors: Sequence[Tensor]) -> Float[Tensor, ""]:
    """‖·‖₂ of several tensors joined into one vector, by torch's quick kernel.

    In float64 if that kernel's sum of squares overflows or could underflow. Synchronises with the device.
    """
    quick = nn.utils.get_total_norm(tensors)
    return quick if SMALLEST < float(quick) < math.inf else joint_norm(tensors)


def clip_norm(parameters: Sequence[nn.Parameter], largest: float) -> None:
    """Scale the gradients so that their joint norm is at most `largest` (Pascanu, Mikolov & Bengio 2013).

    `torch.nn.utils.clip_grad_norm_` to the bit, except for float32 gradients above 1.8e19, which torch sets to 0, and
    below 1e-23, which torch leaves as they are.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        nn.utils.clip_grads_with_norm_(parameters, largest, total_norm(gradients))
