"""A foreign module behaves as a layer, and torch's own ones as the layers made for them."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from bptt.layers import GRU, LSTM, Adapter, Layer, Record
from bptt.shapes import leaves

pytestmark = pytest.mark.usefixtures("float64")

T, B, D, H = 6, 3, 2, 4


def zeros(count: int, levels: int, batch_size: int) -> Tensor | tuple[Tensor, ...]:
    """The state of torch's modules."""
    states = tuple(torch.zeros(levels, batch_size, H) for _ in range(count))
    return states if count > 1 else states[0]


def adapted(kind: Callable[..., nn.RNNBase], count: int, levels: int = 1) -> Adapter:
    return Adapter(kind(D, H, levels), D, H, initial=partial(zeros, count, levels), batch_dim=1)


@pytest.mark.parametrize(("kind", "count", "twin"), [(nn.LSTM, 2, LSTM), (nn.GRU, 1, GRU)])
def test_forward_and_adjoint_are_those_of_the_stock_layer(
    kind: Callable[..., nn.RNNBase], count: int, twin: type[Layer]
) -> None:
    layer, stock = adapted(kind, count), twin(D, H)
    stock.get_submodule("kernel").load_state_dict(layer.module.state_dict())
    inputs, seed = torch.randn(T, B, D), torch.randn(T, B, H)
    found = []
    for each in (layer, stock):
        state = each.initial_state(B)
        outputs, final = each(inputs, state)
        adjoint = each.adjoint(Record(inputs, state, outputs, final), seed)
        found.append([outputs, *leaves(final), adjoint.hidden, *leaves(adjoint.initial)])
    for own, theirs in zip(*found, strict=True):
        torch.testing.assert_close(own, theirs, rtol=0, atol=1e-10)


def test_the_state_of_several_levels_is_carried_whole() -> None:
    layer = adapted(nn.LSTM, 2, levels=3)
    inputs = torch.randn(T, B, D)
    state = layer.initial_state(B)
    assert [leaf.shape for leaf in leaves(state)] == [(B, 3 * H)] * 2
    whole, final = layer(inputs, state)
    first, between = layer(inputs[:4], state)
    second, after = layer(inputs[4:], between)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(leaves(after), leaves(final), rtol=0, atol=1e-12)
    expected, (hidden, _) = layer.module(inputs)
    torch.testing.assert_close(whole, expected, rtol=0, atol=0)
    assert torch.equal(leaves(final)[0].view(B, 3, H).transpose(0, 1), hidden)


class Leaky(nn.Module):
    """h_t = ½ h_{t−1} + tanh(W x_t), a module of one's own with the batch in front."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(D, H)

    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for x in inputs:
            state = state / 2 + torch.tanh(self.weight(x))
            outputs.append(state)
        return torch.stack(outputs), state


def test_an_own_module() -> None:
    layer = Adapter(Leaky(), D, H, initial=lambda batch_size: torch.zeros(batch_size, H))
    inputs, state = torch.randn(T, B, D), layer.initial_state(B)
    outputs, final = layer(inputs, state)
    assert torch.equal(final, outputs[-1])
    seed = torch.zeros(T, B, H)
    seed[-1] = 1
    found = layer.adjoint(Record(inputs, state, outputs, final), seed)
    assert torch.equal(found.hidden, torch.stack([torch.full((B, H), 0.5**lag) for lag in reversed(range(T))]))
