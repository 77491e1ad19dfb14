"""Modules that share everything with another one except some of its tensors."""

import weakref
from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def with_tensors(module: M, tensors: Mapping[str, Tensor]) -> M:
    """A module that shares everything with the given one except the parameters and buffers named, which are `tensors`.

    Gradients pass through tensors that were computed from the module's own to these.
    """
    twin = type(module).__new__(type(module))  # copy.copy refuses modules with torch's parametrizations
    twin.__dict__.update(module.__dict__)
    replaced = [kind for kind in ("_parameters", "_buffers") if tensors.keys() & getattr(module, kind).keys()]
    for kind in (*replaced, "_modules"):  # the others are shared: a forward pass may assign to its buffers
        twin.__dict__[kind] = dict(getattr(module, kind))
    inner: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = tensor
        else:
            twin.__dict__["_parameters" if head in module._parameters else "_buffers"][head] = tensor
    for head, own in inner.items():
        twin.__dict__["_modules"][head] = with_tensors(module.get_submodule(head), own)
    if isinstance(twin, nn.RNNBase):  # keeps its weights in a list as well
        weights = [getattr(twin, name) for name in twin._flat_weights_names]
        twin._flat_weights, twin._flat_weight_refs = weights, [weakref.ref(weight) for weight in weights]
    return twin
