"""Euclidean norms that neither overflow nor underflow."""

import torch
from jaxtyping import Float
from torch import Tensor


def norm(values: Tensor, dim: int | tuple[int, ...] | None = None) -> Float[Tensor, "..."]:
    """‖values‖₂ over `dim` (default: over all), in float64.

    The sum of squares of a float32 vector overflows above 1.8e19 and underflows below 1e-23, although both are well
    inside the range of float32. In float64 every float32 vector has a finite norm, and a norm above 0 unless it is 0.
    """
    found: Tensor = torch.linalg.vector_norm(values.detach(), dim=dim, dtype=torch.float64)
    return found


def joint_norm(tensors: list[Tensor]) -> Float[Tensor, ""]:
    """‖·‖₂ of several tensors joined into one vector, in float64."""
    return torch.linalg.vector_norm(torch.stack([norm(each) for each in tensors]))
