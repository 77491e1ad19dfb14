"""With dropped recurrent weights, measures are those of a layer that has the pass's weights as its own."""

import copy

import pytest
import torch
from torch import Tensor, nn

from bptt.layers import GRU, LSTM, Elman, Layer, Record
from bptt.layers.weight_dropout import Masks
from bptt.measures import (
    flossing,
    frobenius_norms,
    jacobian_products,
    lyapunov_exponents,
    omega,
)
from bptt.measures.passes import Pass, joined_records

pytestmark = pytest.mark.usefixtures("float64")
T, B, D, H = 9, 2, 3, 4
KINDS = [Elman, GRU, LSTM]


def drawn(layer: Layer, inputs: Tensor) -> tuple[Layer, Masks, Record]:
    """A copy of the layer with masked weights, the masks, and a record of a pass with them."""
    torch.manual_seed(1)
    masks = {name: nn.functional.dropout(torch.ones_like(layer.get_parameter(name)), 0.5) for name in layer.recurrent}
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        for name, mask in masks.items():
            twin.get_parameter(name).mul_(mask)
        initial = layer.initial_state(inputs.shape[1])
        outputs, final = twin(inputs, initial)
    return twin, masks, Record(inputs, initial, outputs, final)


@pytest.mark.parametrize("kind", KINDS)
def test_measures_of_a_pass_with_dropped_weights(kind: type[Layer]) -> None:
    layer = kind(D, H)
    twin, masks, own = drawn(layer, torch.randn(T, B, D))
    record = own._replace(weight_masks=masks)
    torch.testing.assert_close(jacobian_products(layer, record), jacobian_products(twin, own))
    torch.testing.assert_close(frobenius_norms(layer, record), frobenius_norms(twin, own))
    exponents = [
        lyapunov_exponents(each, its, num_exponents=2) for each, its in ((layer, record), (twin, own), (layer, own))
    ]
    torch.testing.assert_close(exponents[0], exponents[1])
    assert not torch.equal(exponents[0], exponents[2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("regulariser", ["omega", "flossing"])
def test_regularisers_of_a_pass_with_dropped_weights(kind: type[Layer], regulariser: str) -> None:
    layer = kind(D, H)
    twin, masks, own = drawn(layer, torch.randn(T, B, D))
    record = own._replace(weight_masks=masks)
    seed = torch.randn(T, B, H)

    def value(each: Layer, its: Record) -> Tensor:
        if regulariser == "flossing":
            return flossing(each, its, num_exponents=2)
        return omega(each, [its], [each.adjoint(its, seed)])

    found, expected = value(layer, record), value(twin, own)
    torch.testing.assert_close(found, expected)
    names = list(layer.recurrent)
    gradients = torch.autograd.grad(found, [layer.get_parameter(name) for name in names])
    wanted = torch.autograd.grad(expected, [twin.get_parameter(name) for name in names])
    for name, gradient, other in zip(names, gradients, wanted):
        torch.testing.assert_close(gradient, other * masks[name])


def test_passes_with_weights_of_their_own_are_not_joined() -> None:
    layer = Elman(D, H)
    _, masks, own = drawn(layer, torch.randn(T, B, D))
    for weight_masks, length in ((None, 2 * T), (masks, T)):
        record = own._replace(weight_masks=weight_masks)
        passes = [Pass(start, [record], [None], [None], [None]) for start in (0, T)]
        (joined,) = joined_records(passes)
        assert len(joined.inputs) == length
        assert joined.weight_masks is weight_masks
