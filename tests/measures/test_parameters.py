"""Norms of parameters and gradients, by hand."""

import math
from collections.abc import Sequence

import pytest
import torch
from support.gradients import gradient_at
from torch import Tensor, nn

from bptt.layers import GRU, LSTM
from bptt.measures import gradient_norms, weight_norms
from bptt.model import SequenceModel


def size(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float((tensor.detach().double() ** 2).sum()) for tensor in tensors))


@pytest.fixture
def model() -> SequenceModel:
    model = SequenceModel(
        LSTM,
        input_size=3,
        output_size=2,
        hidden_size=4,
        num_layers=2,
        embedding_size=5,
        learnt_initial_state=True,
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter)
        parameter.grad = torch.randn_like(parameter)
    return model


def test_every_part_and_all_together(model: SequenceModel) -> None:
    assert model.encoder is not None
    assert model.initial is not None
    parts: dict[str, list[Tensor]] = {
        "encoder": [model.encoder.weight],
        "layer1": list(model.layers[0].parameters()),
        "layer2": list(model.layers[1].parameters()),
        "readout": [model.get_parameter("readout.weight"), model.get_parameter("readout.bias")],
        "initial_state": list(model.initial),
        "all": list(model.parameters()),
    }
    found = {name: float(norm) for name, norm in weight_norms(model).items()}
    assert found == pytest.approx({name: size(part) for name, part in parts.items()}, rel=1e-6)
    found = {name: float(norm) for name, norm in gradient_norms(model).items()}
    assert found == pytest.approx({name: size(list(map(gradient_at, part))) for name, part in parts.items()}, rel=1e-6)


def test_parts_that_a_model_does_not_have_are_left_out() -> None:
    model = SequenceModel(GRU, input_size=3, output_size=2, hidden_size=4)
    assert set(weight_norms(model)) == {"layer1", "readout", "all"}


def test_frozen_part_has_gradient_norm_zero(model: SequenceModel) -> None:
    for parameter in model.layers[0].parameters():
        parameter.grad = None
    norms = gradient_norms(model)
    assert float(norms["layer1"]) == 0
    rest = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert float(norms["all"]) == pytest.approx(size(rest), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-36, 1e-25, 1e20, 1e36])
def test_norms_over_the_whole_range_of_single_precision(model: SequenceModel, scale: float) -> None:
    """float32 holds these numbers, but not their squares."""
    expected = {name: float(norm) * scale for name, norm in gradient_norms(model).items()}
    for parameter in model.parameters():
        gradient_at(parameter).mul_(scale)
        parameter.data *= scale
    assert {name: float(norm) for name, norm in gradient_norms(model).items()} == pytest.approx(expected, rel=1e-5)
    weights = {name: float(norm) / scale for name, norm in weight_norms(model).items()}
    assert weights["all"] == pytest.approx(size([p / scale for p in model.parameters()]), rel=1e-5)


def test_norms_are_numbers_without_history(model: SequenceModel) -> None:
    assert not any(norm.requires_grad for norm in [*weight_norms(model).values(), *gradient_norms(model).values()])
