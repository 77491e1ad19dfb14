"""The layers' fast recursions against the textbook's, timestep by timestep."""

from functools import partial
from typing import Any

import pytest
import textbook
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import oracles

from bptt.layers import GRU, LSTM, Elman, Record
from bptt.shapes import leaves, map_state

pytestmark = pytest.mark.usefixtures("float64")
PAIRS: dict[str, tuple[Any, Any]] = {
    "elman": (Elman, textbook.elman),
    "irnn": (partial(Elman, nonlinearity="relu"), partial(textbook.elman, relu=True)),
    "gru": (GRU, textbook.gru),
    "lstm": (LSTM, textbook.lstm),
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("in_training", [False, True], ids=["manual BPTT", "backward pass"])
@given(T=st.integers(1, 9), B=st.integers(1, 3), D=st.integers(1, 3), H=st.integers(1, 5))
def test_fast_recursion_is_the_textbooks(kind: str, in_training: bool, T: int, B: int, D: int, H: int) -> None:
    cell, plain = PAIRS[kind]
    layer = cell(D, H)
    initial, final = (map_state(torch.randn_like, layer.initial_state(B)) for _ in range(2))
    inputs, seed, weights = torch.randn(T, B, D), torch.randn(T, B, H), oracles.layer_weights(layer)
    with torch.no_grad():
        expected = plain(weights, inputs, initial, seed, final)

    if in_training:
        sources = [inputs.requires_grad_(), *(leaf.requires_grad_() for leaf in leaves(initial)), *weights]
        outputs, last = layer(inputs, initial)
        found = torch.autograd.grad([outputs, *leaves(last)], sources, [seed, *leaves(final)])
        wanted = [expected.inputs, *expected.initial, *expected.weights]
    else:
        with torch.no_grad():
            outputs, last = layer(inputs, initial)
        manual = layer.gradients(Record(inputs, initial, outputs, last), seed, final)
        found = (*leaves(manual.states.states), *leaves(manual.states.initial), manual.inputs)
        found = (*found, *manual.parameters.values())
        wanted = [*expected.states, *expected.initial, expected.inputs, *expected.weights]
    torch.testing.assert_close(list(found), wanted, rtol=1e-10, atol=1e-12)
