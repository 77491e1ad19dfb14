"""Checks of a layer before training, so that an error names the method at fault."""

import copy
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bptt.contracts import refusal
from bptt.layers.adapter import Adapter
from bptt.layers.base import Layer
from bptt.layers.diagonal import DiagonalLayer
from bptt.shapes import Features, Outputs, State, leaves, map_state

SIZE = 2  # timesteps and sequences of the check


@torch.no_grad()
def check_layer(layer: Layer) -> None:
    """Check what the methods of a layer return for T = 2 timesteps of B = 2 sequences, in evaluation mode.

    `initial_state` must return tensors (B, ·), the first of them h (B, H), and `step` must return such a state, the
    same one when it is called again. `forward` must return h of two steps and the last state: training calls `forward`,
    and the measures differentiate `step`. An `Adapter` needs `forward` alone. Works on a copy, and leaves torch's
    random state as it is. Raises ValueError with one line.
    """
    with torch.random.fork_rng(devices=[]):
        _check(copy.deepcopy(layer).eval())


def _check(layer: Layer) -> None:
    kind, hidden = type(layer).__name__, (SIZE, layer.hidden_size)
    name, adapted = f"{kind}.initial_state({SIZE})", isinstance(layer, Adapter)
    initial = result_of(name, layer.initial_state, SIZE)
    shapes = shapes_of(initial)
    if is_state(initial) and any(leaf.is_complex() for leaf in leaves(initial)):
        remedy = "keep the real and the imaginary part as two tensors, see torch.view_as_real"
        raise ValueError(refusal(name, "real tensors", shapes, remedy))
    if not is_state(initial) or not (adapted or shapes_of(leaves(initial)[0]) == hidden):
        raise ValueError(refusal(name, f"a tensor ({SIZE}, ·), or a tuple of them, the first one h {hidden}", shapes))
    if any(leaf.dim() > 2 for leaf in leaves(initial)):
        remedy = "flatten a matrix to (B, n·m) there, and unflatten it in `step`"
        raise ValueError(refusal(name, f"tensors ({SIZE}, ·) with one row a sequence", shapes, remedy))
    inputs = torch.ones(SIZE, SIZE, layer.input_size)
    if isinstance(layer, DiagonalLayer):
        check_coefficients(layer, inputs)
    expected = None if adapted else steps(layer, inputs, initial)
    name, wanted = f"{kind}.forward(inputs, state)", ((SIZE, *hidden), shapes)
    results = result_of(name, layer.forward, inputs, initial)
    if shapes_of(results) != wanted:
        raise ValueError(refusal(name, f"outputs and final state, {wanted}", shapes_of(results)))
    if expected is not None and not agree(results, expected, tolerance=1e-2):
        raise ValueError(f"{name} must be the states of {kind}.step, one by one, got other values")


def check_coefficients(layer: DiagonalLayer, inputs: Features) -> None:
    """ValueError unless a and b have a value for each unit at all timesteps, and at one of them."""
    name = f"{type(layer).__name__}.coefficients(inputs)"
    for part in (inputs, inputs[0]):
        result = result_of(name, layer.coefficients, part)
        each = torch.Size((*part.shape[:-1], layer.hidden_size))
        tensors = result if isinstance(result, tuple | list) else ()
        found = [value.shape for value in tensors if isinstance(value, Tensor)]
        if found not in ([each, each], [each[-1:], each]):
            wanted = f"a and b {tuple(each)} for inputs {tuple(part.shape)}"
            remedy = "it is called with all timesteps (T, B, D), and with one (B, D)"
            raise ValueError(refusal(name, wanted, shapes_of(result), remedy))


def steps(layer: Layer, inputs: Features, state: State) -> tuple[Outputs, State]:
    """h after each of two steps and the last state; ValueError if `step` does not do what `check_layer` says."""
    name, shapes, outputs = f"{type(layer).__name__}.step(input, state)", shapes_of(state), []
    for input in inputs:
        copies = map_state(torch.clone, (input, state))
        after = result_of(name, layer.step, input, state)
        if shapes_of(after) != shapes:
            raise ValueError(refusal(name, f"a state like the one before, {shapes}", shapes_of(after)))
        if not agree((input, state), copies, tolerance=0):
            raise ValueError(f"{name} must leave its arguments as they are, got changed ones; change none in place")
        if not agree(after, layer.step(input, state), tolerance=0):
            remedy = "leave random numbers to model.dropout, or draw them in training mode alone"
            raise ValueError(f"{name} must be the same when it is called again, got another state; {remedy}")
        state = after
        outputs.append(leaves(state)[0])
    return torch.stack(outputs), state


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
    """True for a tensor (B, ·), and for a tuple of states."""
    if isinstance(value, Tensor):
        return value.dim() > 1 and len(value) == SIZE
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
        torch.allclose(*pair, rtol=tolerance, atol=tolerance / 100)
        for pair in pairs
        if all(bool(each.isfinite().all()) for each in pair)
    )
