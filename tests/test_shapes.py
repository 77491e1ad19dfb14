"""Shapes are types, checked while the tests run; states are any nested tuples of tensors."""

from typing import NamedTuple

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from bptt.layers import GRU, LSTM, Record
from bptt.model import SequenceModel
from bptt.shapes import detach, leaves, map_state
from bptt.tasks import Batch


class Pair(NamedTuple):
    fast: Tensor
    slow: tuple[Tensor, Tensor]


def numbers(*shape: int) -> Tensor:
    return torch.arange(float(torch.Size(shape).numel())).view(shape)


def test_leaves_are_in_the_order_of_the_structure() -> None:
    tensors = [torch.full((1, 1), float(index)) for index in range(4)]
    state = (Pair(tensors[0], (tensors[1], tensors[2])), tensors[3])
    assert all(one is other for one, other in zip(leaves(state), tensors, strict=True))


def test_map_state_keeps_the_structure() -> None:
    state = (Pair(numbers(2, 3), (numbers(2, 1), numbers(1, 3))), numbers(2, 2))
    other = map_state(torch.ones_like, state)
    joined = map_state(torch.add, state, other)
    assert type(joined) is tuple
    assert type(joined[0]) is Pair
    assert type(joined[0].slow) is tuple
    for before, after in zip(leaves(state), leaves(joined), strict=True):
        assert torch.equal(after, before + 1)
    assert torch.equal(map_state(torch.neg, numbers(2, 2)), -numbers(2, 2)), "a bare tensor is a state"


def test_map_state_of_states_that_differ_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        map_state(torch.add, (numbers(1), numbers(1)), (numbers(1),))


def test_detach_cuts_the_gradient_and_keeps_the_numbers() -> None:
    source = numbers(2, 3).requires_grad_()
    state = Pair(source * 2, (source * 3, source * 4))
    cut = detach(state)
    assert not any(leaf.requires_grad for leaf in leaves(cut))
    assert all(map(torch.equal, leaves(cut), leaves(state)))


# What the hook in conftest.py must catch, so that a green run says something about shapes.


def test_batch_needs_one_time_axis_and_one_batch_axis() -> None:
    Batch(numbers(5, 2, 3), numbers(5, 2))
    with pytest.raises(TypeCheckError):
        Batch(numbers(5, 2, 3), numbers(4, 2))
    with pytest.raises(TypeCheckError):
        Batch(numbers(5, 2, 3), numbers(5, 2), mask=torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(TypeCheckError):
        Batch(numbers(5, 2, 3), numbers(5, 2), mask=torch.ones(5, 2))
    with pytest.raises(TypeCheckError):
        Batch(numbers(5, 2, 3), numbers(5, 2), reset=torch.ones(5, dtype=torch.bool))


def test_step_needs_as_many_states_as_inputs() -> None:
    with pytest.raises(TypeCheckError):
        GRU(3, 4).step(torch.zeros(2, 3), torch.zeros(1, 4))


def test_adjoint_needs_a_seed_of_three_axes() -> None:
    layer = LSTM(3, 4)
    outputs, final = layer(torch.zeros(5, 2, 3), layer.initial_state(2))
    with pytest.raises(TypeCheckError):
        layer.adjoint(Record(torch.zeros(5, 2, 3), layer.initial_state(2), outputs, final), torch.zeros(2, 4))


def test_plain_types_are_left_to_the_package_to_refuse() -> None:
    with pytest.raises(ValueError, match=r"hidden_size must be an integer >= 1, got 2\.5"):
        SequenceModel(GRU, input_size=1, output_size=1, hidden_size=2.5)  # type: ignore[arg-type]  # what is tested
