"""Diagonal linear recurrences: the scan against the loop, and what their equations promise."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gradients import gradient_at
from torch import Tensor

from bptt.layers import LRU, RGLRU, DiagonalLayer, Layer, MinGRU, MinLSTM, Record
from bptt.layers.scan import scan
from bptt.measures import eigenvalues, jacobian_products, lyapunov_exponents, memory_length
from bptt.measures.memory import saved_tensor_bytes

pytestmark = pytest.mark.usefixtures("float64")
KINDS: dict[str, Any] = {"lru": LRU, "mingru": MinGRU, "minlstm": MinLSTM, "rg_lru": RGLRU}
kinds = pytest.mark.parametrize("kind", KINDS)
directions = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


def by_loop(a: Tensor, b: Tensor, before: Tensor, *, reverse: bool) -> Tensor:
    hidden: dict[int, Tensor] = {}
    for t in reversed(range(len(b))) if reverse else range(len(b)):
        before = hidden[t] = (a if a.dim() == 1 else a[t]) * before + b[t]
    return torch.stack([hidden[t] for t in range(len(b))])


@directions
@given(
    length=st.integers(1, 700),
    constant=st.booleans(),
    is_complex=st.booleans(),
    losses=st.integers(1, 2),
    zeros=st.booleans(),
)
def test_scan_equals_loop(
    reverse: bool, length: int, constant: bool, is_complex: bool, losses: int, zeros: bool
) -> None:
    """Ragged lengths around blocks and blocks of blocks; a = 0 cuts what comes before."""
    dtype = torch.complex128 if is_complex else torch.float64
    a = torch.rand(3, dtype=dtype) if constant else torch.rand(length, 1, 2, 3, dtype=dtype)
    a = a / a.abs().clamp(min=1)
    if zeros and not constant:
        a[torch.rand(length) < 0.1] = 0
    b, before = torch.randn(length, losses, 2, 3, dtype=dtype), torch.randn(losses, 2, 3, dtype=dtype)
    found = scan(a, b, before, reverse=reverse)
    torch.testing.assert_close(found, by_loop(a, b, before, reverse=reverse), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("is_complex", "constant", "reverse"),
    [(True, True, False), (False, False, True)],
    ids=["complex constant", "real varying in reverse"],
)
def test_long_memory_over_many_timesteps(is_complex: bool, constant: bool, reverse: bool) -> None:
    """|a| = 1 − 1e-6 over 1e5 timesteps: at 1e-10 in double precision, at 1e-5 in single."""
    single, double = (torch.complex64, torch.complex128) if is_complex else (torch.float32, torch.float64)
    a = ((1 - 1e-6) * torch.exp((1j if is_complex else 0) * torch.tensor([0.1, 3.0]))).to(single)
    b, before = torch.randn(100_000, 1, 2, dtype=single), torch.randn(1, 2, dtype=single)
    if not constant:
        a = a.expand_as(b).clone()
    exact = [each.to(double) for each in (a, b, before)]
    expected = by_loop(*exact, reverse=reverse)
    assert (scan(*exact, reverse=reverse) - expected).norm() < 1e-10 * expected.norm()
    assert (scan(a, b, before, reverse=reverse).to(double) - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("kind", ["lru", "mingru"])
def test_full_bptt_over_many_timesteps(kind: str) -> None:
    """Ten times the saved tensors for ten times the timesteps, and a gradient that reaches the first input."""
    layer, saved = KINDS[kind](1, 2), []
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name == "log_nu":
                parameter.fill_(math.log(-math.log1p(-1e-6)))
            elif name == "gate.bias":
                parameter.fill_(math.log(1e-6))  # a = σ(−z) = 1 − 1e-6
            elif name == "gate.weight":
                parameter.zero_()
    for length in (10_000, 100_000):
        inputs = torch.randn(length, 1, 1, requires_grad=True)
        with saved_tensor_bytes() as measured:
            outputs, _ = layer(inputs, layer.initial_state(1))
            outputs[-1, 0].norm().backward()
        saved.append(measured.peak)
    first, last = gradient_at(inputs).flatten()[[0, -1]].abs()
    assert 0 < first < 10 * last
    if kind == "mingru":
        assert float(first / last) == pytest.approx((1 - 1e-6) ** 99_999, rel=1e-5)
    assert saved[1] / saved[0] == pytest.approx(10, rel=0.01)


@kinds
@settings(max_examples=10)
@given(T=st.integers(1, 80), B=st.integers(1, 2), pairs=st.integers(1, 3), data=st.data())
def test_layer_equals_its_steps_and_autograd(kind: str, T: int, B: int, pairs: int, data: st.DataObject) -> None:
    """Outputs, all gradients, and the adjoint over several blocks, with a carried state and ragged lengths."""
    layer = KINDS[kind](2, 2 * pairs)
    sources = [torch.randn(T, B, 2, requires_grad=True), torch.randn(B, 2 * pairs, requires_grad=True)]
    cut = data.draw(st.integers(0, T), label="cut")
    seed, final = torch.randn(T, B, 2 * pairs), torch.randn(B, 2 * pairs)

    def everything(run: Any) -> list[Tensor]:
        outputs, last = run(*sources)
        cotangents = [seed, final]
        return [outputs, last, *torch.autograd.grad([outputs, last], [*sources, *layer.parameters()], cotangents)]

    def in_two_pieces(inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        pieces = []
        for part in (inputs[:cut], inputs[cut:]):
            if len(part):
                outputs, state = layer(part, state)
                pieces.append(outputs)
        return torch.cat(pieces), state

    expected = everything(lambda inputs, state: Layer.forward(layer, inputs, state))
    torch.testing.assert_close(everything(layer), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(everything(in_two_pieces), expected, rtol=1e-10, atol=1e-12)
    record = Record(sources[0].detach(), sources[1].detach(), expected[0].detach(), None)
    found, generic = layer.adjoint(record, seed, final), Layer.adjoint(layer, record, seed, final)
    torch.testing.assert_close(tuple(found), tuple(generic), rtol=1e-10, atol=1e-12)


@kinds
def test_backward_pass_gives_its_adjoint_to_callbacks(kind: str) -> None:
    layer = KINDS[kind](2, 4)
    inputs, seed = torch.randn(50, 2, 2), torch.randn(50, 2, 4)
    outputs, final = layer(inputs, layer.initial_state(2))
    received: list[Any] = []
    layer.on_adjoint(outputs, received.append)
    (outputs * seed).sum().backward()
    (found,) = received
    expected = layer.adjoint(Record(inputs, layer.initial_state(2), outputs.detach(), final), seed)
    torch.testing.assert_close(tuple(found), tuple(expected), rtol=1e-12, atol=1e-13)


@kinds
def test_jacobian_is_the_product_of_a(kind: str) -> None:
    """∂h_T/∂h_t = ∏ diag(a), and the Lyapunov exponents are the means of log |a|."""
    layer: DiagonalLayer = KINDS[kind](2, 4)
    inputs, state = torch.randn(40, 1, 2), layer.initial_state(1)
    with torch.no_grad():
        outputs, final = layer(inputs, state)
        a = layer.coefficients(inputs)[0].expand(40, 1, 4)[:, 0]
    record = Record(inputs, state, outputs, final)
    if layer.complex_units:
        a = torch.view_as_complex(a.unflatten(-1, (-1, 2)).contiguous())
        products = torch.stack([a[t + 1 :].prod(0) for t in range(40)])
        expected = torch.stack([torch.block_diag(*map(rotation, row)) for row in products])
        exponents = a.abs().log().mean(0).repeat_interleave(2)
    else:
        expected = torch.stack([a[t + 1 :].prod(0).diag() for t in range(40)])
        exponents = a.log().mean(0)
    torch.testing.assert_close(jacobian_products(layer, record), expected, rtol=1e-10, atol=1e-14)
    found = lyapunov_exponents(layer, record, num_exponents=4)
    torch.testing.assert_close(found, exponents.sort(descending=True).values, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(lyapunov_exponents(layer, record, num_exponents=1), found[:1])
    values = eigenvalues(layer, record)
    assert values.shape == (1 if kind == "lru" else 40, 2 if kind == "lru" else 4)
    torch.testing.assert_close(values.expand(40, -1), a.to(values.dtype), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(memory_length(torch.tensor([0.0, 0.9, 1.0])), torch.tensor([1.0, 10.0, math.inf]))


def rotation(value: Tensor) -> Tensor:
    """The Jacobian of v ↦ value · v by (Re v, Im v), transposed as the adjoint gives it: rows are seeds."""
    return torch.tensor([[value.real, -value.imag], [value.imag, value.real]])


@kinds
def test_graph_does_not_grow_with_time(kind: str) -> None:
    """The graph has as many nodes for 20 timesteps as for 2000."""
    layer = KINDS[kind](2, 4)

    def num_nodes(timesteps: int) -> int:
        outputs, _ = layer(torch.randn(timesteps, 1, 2), layer.initial_state(1))
        seen, queue = set(), [outputs.grad_fn]
        while queue:
            node = queue.pop()
            if node is not None and node not in seen:
                seen.add(node)
                queue.extend(each for each, _ in node.next_functions)
        return len(seen)

    assert num_nodes(20) == num_nodes(2000)


def test_lru_begins_in_the_ring() -> None:
    """|Λ|² uniform in the ring, phases uniform, stationary variance independent of |Λ|."""
    layer = LRU(3, 4000, min_radius=0.5, max_radius=0.9, max_phase=1.0)
    re, im = layer.coefficients(torch.randn(1, 1, 3))[0].detach().unflatten(0, (-1, 2)).unbind(1)
    squared, phase = re**2 + im**2, torch.atan2(im, re)
    assert 0.5**2 < squared.min() < 0.26
    assert 0.8 < squared.max() <= 0.9**2
    assert float(squared.mean()) == pytest.approx((0.5**2 + 0.9**2) / 2, abs=0.02)
    assert 0 < phase.min() < 0.01
    assert 0.99 < phase.max() <= 1
    assert float(phase.mean()) == pytest.approx(0.5, abs=0.04)
    torch.testing.assert_close(layer.log_gamma.exp().detach(), torch.sqrt(1 - squared))
    assert float(layer.weight.detach().std()) == pytest.approx(1 / math.sqrt(6), rel=0.05)


def test_lru_readout_is_the_complex_output_map() -> None:
    """Re(C h) is a real linear map of the pairs, with columns Re C and −Im C side by side."""
    layer, c = LRU(2, 6), torch.randn(4, 3, dtype=torch.complex128)
    outputs, _ = layer(torch.randn(5, 2, 2), layer.initial_state(2))
    states = torch.view_as_complex(outputs.unflatten(-1, (-1, 2)))
    weight = torch.stack([c.real, -c.imag], -1).flatten(1)
    torch.testing.assert_close(outputs @ weight.T, (states @ c.T).real, rtol=1e-12, atol=1e-13)


def test_rg_lru_begins_in_the_ring() -> None:
    layer = RGLRU(2, 4000, min_radius=0.6, max_radius=0.8)
    power = torch.sigmoid(layer.log_odds.detach()) ** 8
    assert 0.6 < power.min() < 0.61
    assert 0.79 < power.max() < 0.8


def test_rg_lru_with_a_closed_gate_keeps_state_and_finite_gradients() -> None:
    layer = RGLRU(2, 3)
    with torch.no_grad():
        layer.gates.bias.fill_(-1000)
    state = torch.randn(1, 3)
    outputs, _ = layer(torch.randn(4, 1, 2), state)
    outputs.sum().backward()
    torch.testing.assert_close(outputs[-1], state)
    assert all(bool(each.grad.isfinite().all()) for each in layer.parameters() if each.grad is not None)


@pytest.mark.parametrize("cell", [MinGRU, MinLSTM])
def test_positive_candidates(cell: Any) -> None:
    """g(v) = v + ½ for v ≥ 0 and σ(v) below: from a positive state every state is positive."""
    layer = cell(2, 5, candidate="positive")
    inputs = 10 * torch.randn(30, 2, 2)
    outputs, _ = layer(inputs, torch.ones(2, 5))
    assert outputs.min() > 0
    v = inputs @ layer.candidate.weight.T + layer.candidate.bias
    a, b = layer.coefficients(inputs)
    expected = torch.where(v >= 0, v + 0.5, 1 / (1 + torch.exp(-v)))
    torch.testing.assert_close(b / (1 - a), expected, rtol=1e-6, atol=0)


def test_minlstm_with_both_gates_closed_is_finite() -> None:
    layer = MinLSTM(2, 3)
    with torch.no_grad():
        layer.gates.bias.fill_(-2000)
    a, b = layer.coefficients(torch.zeros(1, 1, 2))
    torch.testing.assert_close(a, torch.full_like(a, 0.5))
    assert bool(b.isfinite().all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LRU(2, 5), "hidden_size must be even, with a real and an imaginary part a unit, got 5"),
        (lambda: LRU(2, 4, max_radius=1.0), r"max_radius must be a number in \[0, 1\), got 1.0"),
        (lambda: LRU(2, 4, min_radius=0.9, max_radius=0.5), r"max_radius must be a number in \[0.9, 1\), got 0.5"),
        (lambda: LRU(2, 4, max_phase=7.0), "max_phase must be a number in"),
        (lambda: LRU(2, 4, min_radius=0.0, max_radius=0.0), r"max_radius must be a number in \[1e-15, 1\), got 0.0"),
        (lambda: LRU(2, 4, max_radius=0.99999999), r"max_radius must .*, got 0.99999999; float32 tells .* 0.9999997"),
        (lambda: LRU(2, 4, max_phase=1e-50), r"max_phase must be a number in \[1e-15, 6"),
        (lambda: RGLRU(2, 4, min_radius=0.0), r"min_radius must be a number in \[1e-15, 1\), got 0.0"),
        (lambda: RGLRU(2, 4, max_radius=0.99999999), r"max_radius must .*, got 0.99999999; float32 tells .* 0.9999997"),
        (lambda: KINDS["mingru"](2, 4, candidate="tanh"), "candidate must be linear or positive, got 'tanh'"),
        (lambda: KINDS["minlstm"](2, 4, candidate="tanh"), "candidate must be linear or positive, got 'tanh'"),
    ],
)
def test_bad_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture
def float32() -> Iterator[None]:
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("make", [LRU, RGLRU])
@pytest.mark.parametrize("radii", [(1e-15, 1e-15), (0.9999997, 0.9999997), (0.6, 0.9999997), (1e-15, 0.999)])
def test_layers_with_the_most_extreme_radii_allowed_can_be_trained(make: Any, radii: tuple[float, float]) -> None:
    layer = make(3, 2000, min_radius=radii[0], max_radius=radii[1])
    outputs, _ = layer(torch.randn(5, 1, 3), layer.initial_state(1))
    outputs.square().sum().backward()
    assert outputs.isfinite().all()
    assert outputs.any()
    for parameter in layer.parameters():
        assert parameter.isfinite().all()
        assert gradient_at(parameter).isfinite().all()
