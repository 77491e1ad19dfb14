"""Norms and norm clipping of float32 gradients near the ends of the exponent's range."""

import copy
import math

import pytest
import torch
from support.gradients import gradient_at
from torch import nn

from bptt.measures.norms import clip_norm, total_norm


def parameters(scale: float) -> list[nn.Parameter]:
    found = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(2))]
    for parameter in found[:2]:
        parameter.grad = scale * torch.randn_like(parameter)
    return found


@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1e-20, 1e-6, 1.0, 1e6, 1e20, 1e37])
def test_of_any_size(scale: float) -> None:
    gradients = [parameter.grad for parameter in parameters(scale) if parameter.grad is not None]
    exact = math.sqrt(sum(value**2 for gradient in gradients for value in gradient.double().flatten().tolist()))
    assert float(total_norm(gradients)) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e18])
def test_torchs_clipping_to_the_bit(scale: float) -> None:
    own = parameters(scale)
    other = copy.deepcopy(own)
    for mine, theirs in zip(own, other):
        theirs.grad = None if mine.grad is None else mine.grad.clone()
    clip_norm(own, 0.25)
    nn.utils.clip_grad_norm_(other, 0.25)
    for mine, theirs in zip(own, other):
        assert (mine.grad is None) == (theirs.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, gradient_at(theirs))


@pytest.mark.parametrize("scale", [1e20, 1e37])
def test_a_large_gradient_keeps_its_direction(scale: float) -> None:
    own = parameters(scale)
    exact = torch.cat([parameter.grad.double().flatten() for parameter in own if parameter.grad is not None])
    clip_norm(own, 0.25)
    clipped = torch.cat([parameter.grad.double().flatten() for parameter in own if parameter.grad is not None])
    torch.testing.assert_close(clipped, 0.25 * exact / exact.norm(), rtol=1e-5, atol=0)


def test_nothing_to_clip() -> None:
    clip_norm([nn.Parameter(torch.zeros(2))], 1.0)
