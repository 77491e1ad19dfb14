"""Kernel, equations and oracle give the same states and gradients. A sequence may be cut anywhere."""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import oracles
from support.layer_kinds import ANY_SIZE as KINDS
from support.layer_kinds import STOCK
from torch import Tensor

from bptt.layers import Elman, Layer, LSTMState
from bptt.layers.stock import StockLayer
from bptt.shapes import leaves, map_state

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", KINDS)


class Sizes(NamedTuple):
    T: int
    B: int
    D: int
    H: int


sizes = st.builds(Sizes, st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6))


def some_pass(kind: str, size: Sizes) -> tuple[Layer, Tensor, Any]:
    """A layer, inputs, and a nonzero initial state."""
    layer = KINDS[kind](size.D, size.H)
    inputs = torch.randn(size.T, size.B, size.D, requires_grad=True)
    state = map_state(lambda leaf: torch.randn_like(leaf).requires_grad_(), layer.initial_state(size.B))
    return layer, inputs, state


def by_steps(layer: Layer, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
    outputs = []
    for input in inputs.unbind():
        state = layer.step(input, state)
        outputs.append(leaves(state)[0])
    return torch.stack(outputs), state


def by_oracle(kind: str, layer: Layer, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
    levels, initial = [oracles.layer_weights(layer)], [tuple(leaves(state))]
    (states,) = oracles.unroll(oracles.CELLS[kind], levels, inputs, initial)
    return torch.stack([each[0] for each in states]), states[-1]


def everything(layer: Layer, inputs: Tensor, state: Any, outputs: Tensor, final: Any) -> list[Tensor]:
    """Outputs, final state, and the gradients of a random linear function of both."""
    torch.manual_seed(7)
    ends = [outputs, *leaves(final)]
    cotangents = [torch.randn_like(end) for end in ends]
    sources = [inputs, *leaves(state), *layer.parameters()]
    return [*ends, *torch.autograd.grad(ends, sources, cotangents)]


@kinds
@given(size=sizes)
def test_kernel_equals_steps_equals_oracle(kind: str, size: Sizes) -> None:
    layer, inputs, state = some_pass(kind, size)
    expected = everything(layer, inputs, state, *by_oracle(kind, layer, inputs, state))
    by_kernel = everything(layer, inputs, state, *layer(inputs, state))
    stepwise = everything(layer, inputs, state, *by_steps(layer, inputs, state))
    torch.testing.assert_close(by_kernel, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(stepwise, expected, rtol=1e-10, atol=1e-12)


@kinds
def test_oracle_of_another_kind_disagrees(kind: str) -> None:
    """The oracle distinguishes kinds with weights of equal shape, so the agreement above is meaningful."""
    layer, inputs, state = some_pass(kind, Sizes(5, 2, 3, 4))
    outputs, _ = layer(inputs, state)
    other = {"elman": "irnn", "irnn": "elman"}.get(kind)
    if other is None:  # each gate, or each unit of a layer without gates, with another one's rows
        rolled = [weight.roll(4 if kind in STOCK else 1, 0) for weight in oracles.layer_weights(layer)]
        (states,) = oracles.unroll(oracles.CELLS[kind], [rolled], inputs, [tuple(leaves(state))])
        wrong = torch.stack([each[0] for each in states])
    else:
        wrong, _ = by_oracle(other, layer, inputs, state)
    assert (outputs - wrong).abs().max() > 1e-3


@kinds
def test_state_begins_at_zero_and_keeps_its_type(kind: str) -> None:
    layer = KINDS[kind](3, 5)
    state = layer.initial_state(2)
    assert all(leaf.shape == (2, layer.hidden_size) and not leaf.any() for leaf in leaves(state))
    _, final = layer(torch.randn(4, 2, 3), state)
    assert type(final) is type(state) is type(layer.step(torch.randn(2, 3), state))
    assert isinstance(state, LSTMState) == (kind == "lstm")


@kinds
@given(size=sizes, data=st.data())
def test_any_split_with_carried_state_gives_the_same_outputs(kind: str, size: Sizes, data: st.DataObject) -> None:
    layer, inputs, state = some_pass(kind, size)
    whole, final = layer(inputs, state)
    cuts = sorted(data.draw(st.sets(st.integers(1, size.T)), label="cuts") - {size.T})
    pieces = []
    for part in inputs.tensor_split(cuts):
        outputs, state = layer(part, state)
        pieces.append(outputs)
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(leaves(state), leaves(final), rtol=1e-12, atol=1e-13)


@kinds
@pytest.mark.parametrize(("input_size", "hidden_size"), [(0, 3), (3, 0), (True, 3), (2.5, 3)])
def test_sizes_below_one_or_no_integers_are_refused(kind: str, input_size: Any, hidden_size: Any) -> None:
    with pytest.raises(ValueError, match=r"(input|hidden)_size must be an integer >= 1, got"):
        KINDS[kind](input_size, hidden_size)


def test_unknown_nonlinearity_is_refused() -> None:
    word: Any = "sigmoid"
    with pytest.raises(ValueError, match="nonlinearity must be tanh or relu, got 'sigmoid'"):
        Elman(2, 3, nonlinearity=word)


@pytest.mark.parametrize("kind", ["elman", "irnn", "gru"])
@given(size=sizes)
def test_loop_equals_kernel(kind: str, size: Sizes) -> None:
    layer, inputs, state = some_pass(kind, size)
    assert isinstance(layer, StockLayer)
    outputs, final = layer.kernel(inputs, state.unsqueeze(0))
    torch.testing.assert_close(
        everything(layer, inputs, state, *layer(inputs, state)),
        everything(layer, inputs, state, outputs, final.squeeze(0)),
        rtol=1e-11,
        atol=1e-13,
    )


def test_loop_refuses_weights_that_changed_before_the_backward_pass() -> None:
    layer, inputs, state = some_pass("gru", Sizes(3, 2, 2, 4))
    outputs, _ = layer(inputs, state)
    with torch.no_grad():
        next(layer.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()
