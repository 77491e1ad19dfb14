"""Checks of a layer before training, so that an error names the method at fault."""

import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bptt.contracts import refusal
from bptt.layers.base import Layer
from bptt.shapes import State, leaves, map_state

SIZE = 2  # timesteps and sequences of the check


@torch.no_grad()
def check_layer(layer: Layer) -> None:
    """Check what the methods of a layer return for T = 2 timesteps of B = 2 sequences.

    `initial_state` must return floating-point tensors (B, ·), the first of them h (B, H), and `step` must return such a
    state, the same one when it is called again. `forward` must return h of two steps and the last state: training calls
    `forward`, and the measures differentiate `step`. Raises ValueError with one line.
    """
    kind, hidden = type(layer).__name__, (SIZE, layer.hidden_size)
    name = f"{kind}.initial_state({SIZE})"
    initial = result_of(name, layer.initial_state, SIZE)
    shapes = shapes_of(initial)
    if not is_state(initial) or shapes_of(leaves(initial)[0]) != hidden:
        wanted = f"a floating-point tensor ({SIZE}, ·), or a tuple of them, the first one h {hidden}"
        raise ValueError(refusal(name, wanted, shapes))
    first: State = map_state(torch.ones_like, initial)
    inputs = torch.ones(SIZE, SIZE, layer.input_size)
    name, state, outputs = f"{kind}.step(input, state)", first, []
    for input in inputs:
        copies = map_state(torch.clone, (input, state))
        after = result_of(name, layer.step, input, state)
        if shapes_of(after) != shapes:
            raise ValueError(refusal(name, f"a state like the one before, {shapes}", shapes_of(after)))
        if not agree((input, state), copies, tolerance=0):
            remedy = "change no tensor in place"
            raise ValueError(refusal(name, "a new state, and its arguments as they were", "changed ones", remedy))
        if not agree(after, layer.step(input, state), tolerance=0):
            remedy = "leave random numbers to model.dropout and the model's other dropouts"
            raise ValueError(refusal(name, "the same when it is called again", "another state", remedy))
        state = after
        outputs.append(leaves(state)[0])
    name, expected = f"{kind}.forward(inputs, state)", (torch.stack(outputs), state)
    results = result_of(name, layer.forward, inputs, first)
    if shapes_of(results) != shapes_of(expected):
        raise ValueError(refusal(name, f"outputs and final state, {shapes_of(expected)}", shapes_of(results)))
    if not agree(results, expected, tolerance=1e-2):
        raise ValueError(refusal(name, f"the states of {kind}.step, one by one", "other values"))


def result_of(name: str, method: Callable[..., Any], *arguments: Any) -> Any:
    """What a method returns. An error in it is raised again in one line that names the arguments' shapes."""
    try:
        return method(*arguments)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        shapes = ", ".join(str(shapes_of(each)) for each in arguments)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]} in {place.filename}:{place.lineno}"
        raise ValueError(f"{name} must accept {shapes}, got {reason}; see BPTT_TRACEBACK=1") from error


def is_state(value: Any) -> bool:
    """True for a floating-point tensor (B, ·), and for a tuple of states."""
    if isinstance(value, Tensor):
        return value.is_floating_point() and value.dim() > 1 and len(value) == SIZE
    return isinstance(value, tuple) and bool(value) and all(map(is_state, value))


def shapes_of(value: Any) -> Any:
    """The value with a tuple for each tensor: its shape, and its dtype if that is not the default one."""
    if isinstance(value, Tensor):
        return (*value.shape, *([] if value.dtype == torch.get_default_dtype() else [value.dtype]))
    if isinstance(value, tuple | list):
        shapes = [shapes_of(part) for part in value]
        return shapes if isinstance(value, list) else tuple(shapes)
    return {key: shapes_of(part) for key, part in value.items()} if isinstance(value, dict) else value


def agree(state: State, other: State, *, tolerance: float) -> bool:
    """True if the tensors differ by at most a share of their values, or are not finite."""
    pairs = zip(leaves(state), leaves(other))
    return all(
        torch.allclose(*pair, rtol=tolerance, atol=tolerance)
        for pair in pairs
        if all(bool(each.isfinite().all()) for each in pair)
    )
