"""The Jacobian product of the recurrence against Jacobians that are formed and multiplied explicitly."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import oracles
from support.layer_kinds import KINDS as LAYERS
from torch import Tensor

from bptt.layers import Elman, Layer, Record
from bptt.measures import frobenius_norms, jacobian_products, lyapunov_exponents, singular_values
from bptt.shapes import leaves, map_state

pytestmark = pytest.mark.usefixtures("float64")

D = 3
kinds = pytest.mark.parametrize("kind", LAYERS)
W_HH = "kernel.weight_hh_l0"


def recorded(kind: str, T: int = 9, B: int = 2, H: int = 4, *, always_on: bool = False) -> tuple[Layer, Record]:
    """A random pass; `always_on` keeps relu units above 0, since a unit that is off has the exponent −∞."""
    layer = LAYERS[kind](D, H)
    if kind == "irnn" and always_on:
        with torch.no_grad():
            layer.kernel.bias_ih_l0 += 4
            layer.kernel.weight_hh_l0 *= 0.5
    inputs, initial = (
        torch.randn(T, B, D),
        map_state(lambda leaf: torch.randn_like(leaf).tanh(), layer.initial_state(B)),
    )
    with torch.no_grad():
        return layer, Record(inputs, initial, *layer(inputs, initial))


def step_jacobians(kind: str, layer: Layer, record: Record, sequence: int) -> list[np.ndarray]:
    """∂s_t/∂s_{t−1} of the whole state s = h or (h, c), of one sequence at each timestep, each formed by autograd."""
    weights = [weight.detach() for weight in oracles.layer_weights(layer)]
    state = tuple(leaf[sequence : sequence + 1] for leaf in leaves(record.initial))
    width = state[0].shape[1]
    found = []
    for input in record.inputs[:, sequence : sequence + 1]:

        def flat(stacked: Tensor, input: Tensor = input) -> Tensor:
            return torch.cat(oracles.CELLS[kind](weights, input, stacked.split(width, 1)), 1)

        before = torch.cat(state, 1)
        found.append(torch.autograd.functional.jacobian(flat, before).reshape(before.numel(), -1).numpy())
        state = flat(before).split(width, 1)
    return found


def products(jacobians: list[np.ndarray], size: int) -> np.ndarray:
    """∂h_T/∂h_t for t = 1 … T, the block of h; multiplied up from the end."""
    product, found = np.eye(len(jacobians[0])), []
    for jacobian in reversed(jacobians):
        found.append(product)
        product = product @ jacobian
    return np.stack(found[::-1])[:, :size, :size]


def qr_exponents(jacobians: list[np.ndarray], count: int) -> np.ndarray:
    """Mean of log |diag R| over a QR decomposition at every timestep, from the last to the first.

    From the documented start: Gaussian vectors of seed 0, made orthonormal.
    """
    drawn = torch.randn(len(jacobians[0]), count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis, total = np.linalg.qr(drawn.numpy())[0], np.zeros(count)
    for jacobian in reversed(jacobians):
        basis, upper = np.linalg.qr(jacobian.T @ basis)
        total += np.log(np.abs(np.diag(upper)))
    return np.sort(total / len(jacobians))[::-1]


@kinds
@pytest.mark.parametrize("sequence", [0, 1])
def test_products_are_explicit_products(kind: str, sequence: int) -> None:
    layer, record = recorded(kind)
    truth = products(step_jacobians(kind, layer, record, sequence), 4)
    found = jacobian_products(layer, record, sequence=sequence)
    np.testing.assert_allclose(found, truth, rtol=1e-9, atol=1e-12)
    assert torch.equal(found[-1], torch.eye(4))


def test_products_of_a_tanh_network_are_the_textbooks() -> None:
    """∂h_T/∂h_t = ∏ diag(1 − h_s²) W_hh for s = T … t + 1."""
    layer, record = recorded("elman", T=7, B=1, H=5)
    weight, h = layer.get_parameter(W_HH).detach(), record.outputs[:, 0]
    product = torch.eye(5)
    for t in reversed(range(7)):
        torch.testing.assert_close(jacobian_products(layer, record)[t], product, rtol=1e-10, atol=1e-13)
        product = product @ torch.diag(1 - h[t] ** 2) @ weight


@kinds
def test_singular_values_are_numpys(kind: str) -> None:
    layer, record = recorded(kind)
    truth = np.linalg.svd(products(step_jacobians(kind, layer, record, 1), 4), compute_uv=False)
    np.testing.assert_allclose(singular_values(layer, record, sequence=1), truth, rtol=1e-8, atol=1e-12)


@given(T=st.integers(1, 8), H=st.integers(1, 6), number=st.integers(0, 10**6))
def test_singular_values_descend_and_multiply_to_the_determinant(T: int, H: int, number: int) -> None:
    """|det ∂h_T/∂h_t| = ∏ |det W| ∏ (1 − h²), whatever the sizes."""
    torch.manual_seed(number)
    layer, record = recorded("elman", T, 1, H)
    values = singular_values(layer, record)
    assert values.shape == (T, H)
    assert bool((values.diff(dim=1) <= 0).all())
    determinant = abs(float(torch.linalg.det(layer.get_parameter(W_HH).detach())))
    each = np.log(determinant) + (1 - record.outputs[:, 0] ** 2).log().sum(1).numpy()
    difference = values.log().sum(1) - torch.tensor([each[t + 1 :].sum() for t in range(T)])
    rounding = 1e-14 * values[:, 0] / values[:, -1]  # small singular values have the rounding errors of the largest
    assert bool((difference.abs() <= 1e-6 + rounding).all())


@kinds
def test_frobenius_norms_are_within_their_sampling_error(kind: str) -> None:
    """With n probes the relative standard error is at most 1/√(2n), the case of a single singular value."""
    layer, record = recorded(kind)
    truth = np.linalg.norm(products(step_jacobians(kind, layer, record, 1), 4), axis=(1, 2))
    probes = 20_000
    generator = torch.Generator().manual_seed(7)
    found = frobenius_norms(layer, record, num_probes=probes, generator=generator, sequence=1)
    np.testing.assert_allclose(found, truth, rtol=5 / np.sqrt(2 * probes))


def test_probes_with_a_generator_do_not_change_the_random_state_of_training() -> None:
    layer, record = recorded("gru")
    before = torch.get_rng_state()
    first = frobenius_norms(layer, record, generator=torch.Generator().manual_seed(7))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, frobenius_norms(layer, record, generator=torch.Generator().manual_seed(7)))


@pytest.mark.parametrize("kind", ["elman", "irnn", "gru", "lstm"])
@pytest.mark.parametrize("num_exponents", [1, 3])
def test_lyapunov_exponents_are_those_of_explicit_jacobians(kind: str, num_exponents: int) -> None:
    """The whole state has them: an LSTM 2 H. Those of diagonal recurrences need no QR: test_diagonal.py."""
    layer, record = recorded(kind, T=40, H=6, always_on=True)
    truth = qr_exponents(step_jacobians(kind, layer, record, 1), num_exponents)
    found = lyapunov_exponents(layer, record, num_exponents=num_exponents, sequence=1)
    np.testing.assert_allclose(found, truth, rtol=1e-8)


@kinds
def test_lyapunov_exponents_of_the_whole_state(kind: str) -> None:
    """All of them together: the mean logarithm of the Jacobians' determinants."""
    layer, record = recorded(kind, T=12, H=4, always_on=True)
    jacobians = step_jacobians(kind, layer, record, 0)
    volume = np.mean([np.linalg.slogdet(jacobian)[1] for jacobian in jacobians])
    found = lyapunov_exponents(layer, record, num_exponents=len(jacobians[0]))
    assert len(found) == (8 if kind == "lstm" else 4)
    assert bool((found.diff() <= 0).all())
    assert float(found.sum()) == pytest.approx(volume, rel=1e-8)


@kinds
@pytest.mark.parametrize("stride", [2, 5, 7])
def test_stride_between_decompositions_makes_no_difference(kind: str, stride: int) -> None:
    """This also holds if the stride does not divide the length."""
    layer, record = recorded(kind, T=23, H=6, always_on=True)
    every = lyapunov_exponents(layer, record, num_exponents=3)
    found = lyapunov_exponents(layer, record, num_exponents=3, stride=stride)
    torch.testing.assert_close(found, every, rtol=1e-6, atol=0)


def linear_recurrence(weight: Tensor, T: int, dtype: torch.dtype = torch.float32) -> tuple[Layer, Record]:
    """h_t = W h_{t−1} + 1 of a relu layer, whose units are all on."""
    layer = Elman(1, len(weight), nonlinearity="relu").to(dtype)
    with torch.no_grad():
        layer.weight_hh.copy_(weight)
        layer.bias_ih.fill_(1)
        layer.bias_hh.fill_(0)
    outputs = torch.ones(T, 1, len(weight), dtype=dtype)
    return layer, Record(torch.zeros(T, 1, 1, dtype=dtype), outputs[0], outputs, None)


@pytest.mark.parametrize("factors", [(0.5, 0.9), (0.9, 0.5), (0.1, 0.2, 0.95, 0.3)])
def test_the_largest_exponent_is_found_whatever_its_direction(factors: tuple[float, ...]) -> None:
    """Each coordinate is an invariant direction here, so a start along one of them would stay there."""
    layer, record = linear_recurrence(torch.diag(torch.tensor(factors)), 400)
    (found,) = lyapunov_exponents(layer, record, num_exponents=1)
    assert float(found) == pytest.approx(np.log(max(factors)), abs=0.01)


@pytest.mark.parametrize("number", range(10))
def test_the_largest_exponent_of_relu_networks_that_are_partly_off(number: int) -> None:
    """The growth of the product's norm, formed explicitly."""
    torch.manual_seed(number)
    layer, record = recorded("irnn", T=60, H=40)
    product, growth = np.eye(40), 0.0
    for jacobian in reversed(step_jacobians("irnn", layer, record, 0)):
        product = product @ jacobian
        growth += np.log(np.linalg.norm(product))
        product /= np.linalg.norm(product)
    (found,) = lyapunov_exponents(layer, record, num_exponents=1)
    assert float(found) == pytest.approx(growth / 60, abs=0.1)


def test_exponents_that_rounding_hides_are_nan() -> None:
    """Rank 2 of 3: the third vector is rounding after one step. A Jacobian of 0 is known: −∞."""
    layer, record = linear_recurrence(torch.diag(torch.tensor([0.0, 0.5, 0.9])), 50)
    found = lyapunov_exponents(layer, record, num_exponents=3)
    assert found[:2].isfinite().all()
    assert bool(found[2].isnan())
    layer, record = linear_recurrence(torch.zeros(3, 3), 5)
    assert lyapunov_exponents(layer, record, num_exponents=2).tolist() == [-np.inf, -np.inf]


def test_frobenius_norms_over_the_whole_range_of_single_precision() -> None:
    """W = 2I and W = I/2 over 120 steps: squares of the products are beyond float32 on both sides."""
    for factor in (2.0, 0.5):
        layer, record = linear_recurrence(factor * torch.eye(5), 120)
        found = frobenius_norms(layer, record, num_probes=400)
        expected = np.sqrt(5) * factor ** np.arange(119.0, -1, -1)
        np.testing.assert_allclose(found, expected, rtol=0.1)
        np.testing.assert_allclose(singular_values(layer, record)[:, 0], expected / np.sqrt(5), rtol=1e-5)


def test_diverged_network_has_no_singular_values() -> None:
    """Products that overflow raise no error: they are NaN, and smaller lags have finite values."""
    layer, record = recorded("irnn", T=400, H=3, always_on=True)
    with torch.no_grad():
        layer.get_parameter(W_HH).copy_(torch.eye(3) * 10)
        record = Record(record.inputs, record.initial, *layer(record.inputs, record.initial))
    record = record._replace(outputs=record.outputs.nan_to_num(posinf=1.0).clamp(min=1))
    values = singular_values(layer, record)
    assert not values[0].isfinite().any()
    torch.testing.assert_close(values[-3], torch.full((3,), 100.0))


def test_measures_leave_no_graph_and_no_gradient() -> None:
    layer, record = recorded("lstm")
    found = [
        jacobian_products(layer, record),
        singular_values(layer, record),
        frobenius_norms(layer, record),
        lyapunov_exponents(layer, record, num_exponents=2),
    ]
    assert not any(values.requires_grad for values in found)
    assert all(parameter.grad is None for parameter in layer.parameters())


@pytest.mark.parametrize(
    "measure", [jacobian_products, singular_values, frobenius_norms, partial(lyapunov_exponents, num_exponents=1)]
)
@pytest.mark.parametrize("sequence", [-1, 2])
def test_a_sequence_that_is_not_there_is_refused(measure: Any, sequence: int) -> None:
    with pytest.raises(ValueError, match=r"^sequence must be a number in \[0, 2\), got "):
        measure(*recorded("gru"), sequence=sequence)


@pytest.mark.parametrize("num_exponents", [0, 9])
def test_a_state_has_so_many_exponents(num_exponents: int) -> None:
    with pytest.raises(ValueError, match=r"^num_exponents must be a number in \[1, 8\], got "):
        lyapunov_exponents(*recorded("lstm"), num_exponents=num_exponents)
