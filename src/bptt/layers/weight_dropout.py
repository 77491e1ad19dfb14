"""Dropout of recurrent weights, one mask for a whole forward pass (Merity, Keskar & Socher 2018)."""

import copy
import weakref
from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
Masks = Mapping[str, Tensor]  # 0 or 1/(1 − p) for every weight, by the parameter's name


def masked(module: M, masks: Masks, *, detached: bool = False) -> M:
    """A module that shares everything with the given one except the masked parameters, which are θ ∘ mask.

    Gradients pass through the product to θ, unless `detached` makes it a parameter of its own.
    """
    twin = copy.copy(module)
    twin.__dict__["_parameters"], twin.__dict__["_modules"] = dict(module._parameters), dict(module._modules)
    inner: dict[str, dict[str, Tensor]] = {}
    for name, mask in masks.items():
        head, _, rest = name.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = mask
            continue
        weight = module.get_parameter(head)
        twin.__dict__["_parameters"][head] = nn.Parameter(weight.detach() * mask) if detached else weight * mask
    for head, own in inner.items():
        twin.__dict__["_modules"][head] = masked(module.get_submodule(head), own, detached=detached)
    if isinstance(twin, nn.RNNBase):  # keeps its weights in a list as well
        weights = [getattr(twin, name) for name in twin._flat_weights_names]
        twin._flat_weights, twin._flat_weight_refs = weights, [weakref.ref(weight) for weight in weights]
    return twin
