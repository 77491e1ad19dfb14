"""The hand-derived adjoint against autograd of a graph unrolled cell by cell."""

from functools import partial
from typing import Any, NamedTuple, TypedDict, Unpack

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import oracles
from support.gradients import gradient_at
from support.layer_kinds import ANY_SIZE as KINDS
from torch import Tensor

from bptt.layers import Layer, LSTMState, Record
from bptt.shapes import leaves, map_state

kinds = pytest.mark.parametrize("kind", KINDS)
sizes = given(
    T=st.integers(1, 9), B=st.integers(1, 3), D=st.integers(1, 3), H=st.integers(1, 5), number=st.integers(0, 10**6)
)


class Sizes(TypedDict):
    """Arguments that `sizes` draws: T, B, D, H, and the seed of the random numbers."""

    T: int
    B: int
    D: int
    H: int
    number: int


class Case(NamedTuple):
    """A recorded pass of one layer, its gradients from above (seed) and from later timesteps (final)."""

    layer: Layer
    record: Record
    seed: Tensor
    final: Any


def case(kind: str, T: int, B: int, D: int, H: int, number: int, dtype: torch.dtype = torch.float64) -> Case:
    torch.manual_seed(number)
    layer = KINDS[kind](D, H).to(dtype)

    def state() -> Any:
        return map_state(torch.randn_like, layer.initial_state(B))

    inputs, initial = torch.randn(T, B, D, dtype=dtype), map_state(torch.tanh, state())
    with torch.no_grad():
        outputs, final = layer(inputs, initial)
    return Case(
        layer, Record(inputs, initial, outputs, final), torch.randn(T, B, layer.hidden_size, dtype=dtype), state()
    )


def unrolled(kind: str, example: Case, *, final: bool = True) -> dict[str, Tensor]:
    """Autograd's gradients, in float64, of Σ_t g_t · h_t plus the final state times its gradient."""
    layer, record = example.layer, example.record
    weights = [weight.detach().double().requires_grad_() for weight in oracles.layer_weights(layer)]
    inputs = record.inputs.double().requires_grad_()
    initial = tuple(leaf.double().requires_grad_() for leaf in leaves(record.initial))
    (states,) = oracles.unroll(oracles.CELLS[kind], [weights], inputs, [initial])
    objective = sum((state[0] * seed.double()).sum() for state, seed in zip(states, example.seed))
    if final:
        objective = objective + sum((a * b.double()).sum() for a, b in zip(states[-1], leaves(example.final)))
    objective.backward()
    found = {"inputs": gradient_at(inputs)}
    for index, start in enumerate(initial):
        found[f"states.{index}"] = torch.stack([gradient_at(state[index]) for state in states])
        found[f"initial.{index}"] = gradient_at(start)
    return found | {name: gradient_at(weight) for (name, _), weight in zip(layer.named_parameters(), weights)}


def by_hand(example: Case, *, final: bool = True, method: Any = None) -> dict[str, Tensor]:
    """The layer's own gradients under the same names."""
    method = method or example.layer.gradients
    states, inputs, parameters = method(example.record, example.seed, example.final if final else None)
    found = {f"states.{index}": leaf for index, leaf in enumerate(leaves(states.states))}
    found |= {f"initial.{index}": leaf for index, leaf in enumerate(leaves(states.initial))}
    return found | {"inputs": inputs} | parameters


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Compare tensor by tensor: an error in a small tensor must not hide behind a large one."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].shape == value.shape, name
        assert float((got[name] - value).norm()) <= tolerance * float(value.norm()), name


@kinds
@sizes
def test_all_gradients_are_autograds(kind: str, **sizes: Unpack[Sizes]) -> None:
    example = case(kind, **sizes)
    assert_same(by_hand(example), unrolled(kind, example), 1e-10)


@kinds
@sizes
def test_all_gradients_are_autograds_in_single_precision(kind: str, **sizes: Unpack[Sizes]) -> None:
    """All tensors together: a sum that cancels to almost 0 keeps the rounding error of its terms."""
    example = case(kind, **sizes, dtype=torch.float32)
    found = by_hand(example)
    assert all(value.dtype == torch.float32 for value in found.values())
    assert oracles.relative_error(found, unrolled(kind, example)) <= 1e-6


@kinds
def test_each_gradient_is_autograds_in_single_precision(kind: str) -> None:
    """Sizes are chosen such that no sum cancels to almost 0."""
    example = case(kind, 30, 8, 5, 16, 1, torch.float32)
    assert_same(by_hand(example), unrolled(kind, example), 1e-6)


@kinds
@sizes
def test_no_final_gradient_is_a_zero_one(kind: str, **sizes: Unpack[Sizes]) -> None:
    example = case(kind, **sizes)
    assert_same(by_hand(example, final=False), unrolled(kind, example, final=False), 1e-10)


@kinds
def test_long_sequence(kind: str) -> None:
    """Over hundreds of timesteps a small error in one step's factor would grow."""
    example = case(kind, 300, 2, 3, 16, 1)
    assert_same(by_hand(example), unrolled(kind, example), 1e-10)


@kinds
@pytest.mark.parametrize("generic", [False, True], ids=["by hand", "by autograd"])
@given(B=st.integers(1, 3), num_losses=st.integers(2, 4))
def test_several_losses_side_by_side(kind: str, generic: bool, B: int, num_losses: int) -> None:
    layer, record, seed, final = case(kind, 7, B, 2, 4, 1)
    owner: Any = Layer if generic else type(layer)
    seeds = [seed * scale + scale for scale in range(num_losses)]
    finals = [map_state(lambda leaf, by=scale: leaf * by, final) for scale in range(num_losses)]
    joint = torch.cat(seeds, 1), map_state(lambda *parts: torch.cat(parts), *finals)
    alone = owner.adjoint(layer, record, *joint)
    found = owner.gradients(layer, record, *joint, parameters=False)
    assert found.parameters == {}
    for number, (one, end) in enumerate(zip(seeds, finals)):
        part = slice(number * B, (number + 1) * B)
        expected = owner.gradients(layer, record, one, end)
        torch.testing.assert_close(found.inputs[:, part], expected.inputs)
        for states in (alone, found.states):
            torch.testing.assert_close(leaves(states.columns(part).states), leaves(expected.states.states))
            torch.testing.assert_close(leaves(states.columns(part).initial), leaves(expected.states.initial))


@kinds
@sizes
def test_adjoint_without_weight_gradients_is_the_same(kind: str, **sizes: Unpack[Sizes]) -> None:
    layer, record, seed, final = case(kind, **sizes)
    alone, whole = layer.adjoint(record, seed, final), layer.gradients(record, seed, final).states
    assert all(map(torch.equal, leaves(alone.states), leaves(whole.states)))
    assert all(map(torch.equal, leaves(alone.initial), leaves(whole.initial)))
    assert alone.hidden is leaves(alone.states)[0]


@kinds
@sizes
def test_override_equals_generic_fallback(kind: str, **sizes: Unpack[Sizes]) -> None:
    """The base class's adjoint and gradients, from `step` alone, equal the layer's own."""
    example = case(kind, **sizes)
    layer = example.layer
    generic = Layer.adjoint(layer, example.record, example.seed, example.final)
    own = layer.adjoint(example.record, example.seed, example.final)
    for one, other in [(own.states, generic.states), (own.initial, generic.initial)]:
        assert type(one) is type(other) is type(example.record.initial)
        torch.testing.assert_close(leaves(one), leaves(other), rtol=1e-12, atol=1e-13)
    assert_same(by_hand(example), by_hand(example, method=partial(Layer.gradients, layer)), 1e-12)


@kinds
@sizes
def test_linear_in_what_comes_in(kind: str, **sizes: Unpack[Sizes]) -> None:
    """The adjoint is linear in seed and final gradient. All measures rely on that."""
    layer, record, seed, final = case(kind, **sizes)
    other, other_final = torch.randn_like(seed), map_state(torch.randn_like, final)
    a, b = torch.randn(2, dtype=seed.dtype).tolist()
    first, second = layer.adjoint(record, seed, final), layer.adjoint(record, other, other_final)
    both = layer.adjoint(record, a * seed + b * other, map_state(lambda x, y: a * x + b * y, final, other_final))
    expected = map_state(lambda x, y: a * x + b * y, tuple(first)[:2], tuple(second)[:2])
    torch.testing.assert_close(leaves(tuple(both)[:2]), leaves(expected), rtol=1e-10, atol=1e-12)


@kinds
@sizes
def test_sequence_in_two_pieces(kind: str, **sizes: Unpack[Sizes]) -> None:
    """The initial gradient of the later piece is the final gradient of the earlier one."""
    layer, record, seed, final = case(kind, **(sizes | {"T": sizes["T"] + 1}))
    cut = (len(seed) + 1) // 2
    with torch.no_grad():
        _, between = layer(record.inputs[:cut], record.initial)
    later = Record(record.inputs[cut:], between, record.outputs[cut:], record.final)
    after = layer.adjoint(later, seed[cut:], final)
    before = layer.adjoint(record.first(cut), seed[:cut], after.initial)
    whole = layer.adjoint(record, seed, final)
    joined = map_state(lambda x, y: torch.cat([x, y]), before.states, after.states)
    torch.testing.assert_close(leaves(joined), leaves(whole.states), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(leaves(before.initial), leaves(whole.initial), rtol=1e-11, atol=1e-13)


def test_memory_cell_gradient_includes_the_path_through_the_output() -> None:
    """With T = 1 and no final gradient, dL/dc = o (1 − tanh² c) ∘ dL/dh, not 0."""
    layer, record, seed, _ = case("lstm", 1, 2, 2, 3, 1)
    h, c = record.outputs[0], record.final.c
    o = h / c.tanh()
    expected = o * (1 - c.tanh() ** 2) * seed[0]
    torch.testing.assert_close(layer.adjoint(record, seed).states.c[0], expected, rtol=1e-12, atol=0)


@kinds
def test_half_precision_record_is_observed_in_full_precision(kind: str) -> None:
    """Gradients of a bfloat16 pass are float32, and differ only by the rounding of its states, 2⁻⁸ each."""
    example = case(kind, 10, 3, 3, 8, 1, torch.float32)
    layer, record = example.layer, example.record
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs, _ = layer(record.inputs, record.initial)
    rounded = example._replace(record=record._replace(outputs=outputs.bfloat16(), inputs=record.inputs.bfloat16()))
    found = by_hand(rounded)
    assert all(value.dtype == torch.float32 for value in found.values())
    assert_same(found, unrolled(kind, example), 0.02)
    with torch.autocast("cpu", torch.bfloat16):
        again = by_hand(rounded)
    assert all(torch.equal(found[name], again[name]) for name in found)


@kinds
def test_no_graph_and_no_gradients_are_left_behind(kind: str) -> None:
    example = case(kind, 3, 2, 2, 4, 1)
    assert not any(value.requires_grad for value in by_hand(example).values())
    assert all(parameter.grad is None for parameter in example.layer.parameters())
    assert not example.record.inputs.requires_grad


def test_lstm_gradients_keep_the_names_of_the_state() -> None:
    layer, record, seed, final = case("lstm", 3, 2, 2, 4, 1)
    found = layer.adjoint(record, seed, final)
    assert isinstance(found.states, LSTMState)
    assert isinstance(found.initial, LSTMState)
    assert torch.equal(found.hidden, found.states.h)


@pytest.mark.parametrize("before", [False, True])
@kinds
def test_vanishing_gradients_are_0_and_never_subnormal(kind: str, before: bool) -> None:
    """Subnormal numbers are flushed for speed, inside the adjoint only."""
    example = case(kind, T=400, B=2, D=2, H=3, number=1, dtype=torch.float32)
    with torch.no_grad():
        for parameter in example.layer.parameters():
            parameter.mul_(0.1)
    seed = torch.zeros_like(example.seed)
    seed[-1] = 1.0
    torch.set_flush_denormal(before)
    try:
        found = example.layer.adjoint(example.record, seed).hidden.abs()
        counts_as_zero = not torch.full((), 1e-40) * 1
    finally:
        torch.set_flush_denormal(False)
    assert counts_as_zero is before
    assert found[0].max() == 0
    assert found[-1].min() == 1
    assert found[found > 0].min() >= torch.finfo(torch.float32).tiny
