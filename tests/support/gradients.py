"""Gradients that a backward pass has left at tensors."""

from torch import Tensor


def gradient_at(tensor: Tensor) -> Tensor:
    """`.grad` of a tensor that a backward pass has reached."""
    assert tensor.grad is not None
    return tensor.grad
