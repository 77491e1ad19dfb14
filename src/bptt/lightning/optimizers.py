"""Fused optimizers, and parameter groups with their own settings."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from bptt.contracts import between, one_of, refusal, true_or_false
from bptt.model import SequenceModel

FUSED: tuple[type[Optimizer], ...] = (Adam, AdamW, SGD)
CONFLICTING = {"fused", "foreach", "capturable", "differentiable"}  # if set by the user, nothing is changed
DTYPES = (torch.float32, torch.float64)
GROUPS = ("recurrent", "biases", "encoder", "readout")
REST = "others"

MakeOptimizer = Callable[[Iterable[Any]], Optimizer]
Settings = Mapping[str, Mapping[str, Any]]


def parameter_groups(model: SequenceModel, settings: Settings) -> list[Any]:
    """The model's parameters, or parameter groups with their own `settings`, for a torch optimizer.

    `recurrent`: weights that multiply the state, W_hh. `biases`: other vectors, such as biases and gains of norms.
    `encoder` and `readout`: their matrices. All other parameters form the first group. Each parameter belongs to
    exactly one group.

    ValueError for a group without parameters in this model.
    """
    if not settings:
        return list(model.parameters())
    for name in settings:
        one_of(GROUPS, **{"each name in optimizer.groups": name})
    members: dict[str, list[nn.Parameter]] = {REST: [], **{name: [] for name in settings}}
    for parameter, kind in kinds(model):
        members[kind if kind in settings else REST].append(parameter)
    for name, own in members.items():
        if not own and name in settings:
            wanted = f"left out for a model without parameters of this kind ({', '.join(GROUPS)})"
            raise ValueError(refusal(f"optimizer.groups.{name}", wanted, dict(settings[name])))
    return [{"params": own, **settings.get(name, {})} for name, own in members.items() if own]


def check_epsilon(optimizer: Optimizer, *, precision: str) -> None:
    """Raise ValueError for an ε of Adam and the like that is 0 in float16 weights: the first step would divide by 0."""
    for group in optimizer.param_groups if precision == "16-true" else []:
        epsilon = group.get("eps")  # a tuple in Adafactor
        if isinstance(epsilon, int | float) and not torch.tensor(float(epsilon), dtype=torch.float16):
            remedy = "say +optimizer.eps=0.0001, or trainer.precision=16-mixed"
            raise ValueError(refusal("optimizer.eps", "above 0 in float16", epsilon, remedy))


def kinds(model: SequenceModel) -> list[tuple[nn.Parameter, str]]:
    """Every parameter with its kind, in the model's order."""
    recurrent = {id(layer.get_parameter(name)) for layer in model.levels for name in layer.recurrent}
    ends = {id(each): kind for kind in ("encoder", "readout") for each in _parameters(getattr(model, kind))}

    def kind(parameter: nn.Parameter) -> str:
        if id(parameter) in recurrent:
            return "recurrent"
        return "biases" if parameter.dim() < 2 else ends.get(id(parameter), REST)

    return [(parameter, kind(parameter)) for parameter in model.parameters()]


def _parameters(part: nn.Module | None) -> list[nn.Parameter]:
    return [] if part is None else list(part.parameters())


def checked_settings(make: MakeOptimizer, given: Any) -> dict[str, dict[str, Any]]:
    """Settings by group, without groups that are None or empty.

    ValueError for settings that the optimizer does not have, or of a wrong type.
    """
    if not isinstance(given, Mapping | None):
        raise ValueError(refusal("optimizer.groups", f"settings by the names {', '.join(GROUPS)}", given))
    settings = {str(name): own for name, own in (given or {}).items() if own is not None and own != {}}
    known = make([nn.Parameter(torch.zeros(1))]).defaults if settings else {}
    for name, own in settings.items():
        if not isinstance(own, Mapping):
            raise ValueError(refusal(f"optimizer.groups.{name}", "settings such as {weight_decay: 0}", own))
        for key, value in own.items():
            one_of(sorted(known), **{f"each setting in optimizer.groups.{name}": key})
            named: dict[str, Any] = {f"optimizer.groups.{name}.{key}": value}
            if isinstance(known[key], bool):
                true_or_false(**named)
            elif isinstance(known[key], int | float):
                between(0, float("inf"), **named)
    return settings


def fused_where_possible(make: MakeOptimizer, parameters: Iterable[Any], *, scaled: bool) -> Optimizer:
    """Optimizer with torch's fused kernel if that is possible, else without.

    For a small network, the unfused loop over tensors takes longer than the rest of an update. Results differ by
    rounding. The fused kernel is not used
    - on devices without it;
    - in half precision, because torch 2.13's fused SGD does not change such weights on the CPU;
    - with float16 loss scaling (`scaled`), because the kernel would unscale the gradients itself, after clipping.

    parameters: parameters, or parameter groups as returned by `parameter_groups`.
    """
    given = list(parameters)
    trained = [each for one in given for each in (one["params"] if isinstance(one, dict) else [one])]
    possible = (
        isinstance(make, partial)
        and make.func in FUSED
        and not CONFLICTING & make.keywords.keys()
        and not scaled
        and all(each.device.type in ("cpu", "cuda") and each.dtype in DTYPES for each in trained)
    )
    return make(given, fused=True) if possible else make(given)  # type: ignore[call-arg]  # all of FUSED have it
