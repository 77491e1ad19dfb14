"""Dropout of recurrent weights, one mask for a whole forward pass (Merity, Keskar & Socher 2018)."""

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

from bptt.layers.twin import with_tensors

M = TypeVar("M", bound=nn.Module)
Masks = Mapping[str, Tensor]  # 0 or 1/(1 − p) for every weight, by the parameter's name


def masked(module: M, masks: Masks, *, detached: bool = False) -> M:
    """A module that shares everything with the given one except the masked parameters, which are θ ∘ mask.

    Gradients pass through the product to θ, unless `detached` makes it a parameter of its own.
    """
    weights = {name: module.get_parameter(name) for name in masks}
    if detached:
        return with_tensors(module, {name: nn.Parameter(own.detach() * masks[name]) for name, own in weights.items()})
    return with_tensors(module, {name: own * masks[name] for name, own in weights.items()})
