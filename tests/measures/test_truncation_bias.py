"""The bias of truncation against gradients taken by hand."""

import copy
import math

import pytest
import torch
from masked import loss, make_model, masked_batch

from bptt.estimators import Chunked, Sliding
from bptt.measures import bias, chunk_sizes, estimated_gradient, truncation_bias

pytestmark = pytest.mark.usefixtures("float64")


def test_bias_of_known_vectors() -> None:
    found = bias(
        {"a": torch.tensor([3.0]), "b": torch.tensor([0.0])}, {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    )
    assert found.cosine == pytest.approx(3 / 5)
    assert found.relative == pytest.approx(4 / 5)
    assert found.norm_ratio == pytest.approx(3 / 5)
    assert found.tensors == {"a": 0.0, "b": 1.0}
    assert math.isnan(bias({"a": torch.zeros(1)}, {"a": torch.zeros(1)}).relative)


def test_chunk_sizes() -> None:
    assert chunk_sizes(1) == [1]
    assert chunk_sizes(8) == [1, 2, 4, 8]
    assert chunk_sizes(11) == [1, 2, 4, 8, 11]


@pytest.mark.parametrize("pattern", ["none", "holes", "last"])
def test_updates_are_weighted_by_their_losses(pattern: str) -> None:
    """An estimator that updates by chunk is compared as if it had made one step at the end."""
    model, batch = make_model("lstm", 2), masked_batch(pattern, 11, 2, 3)
    state = model.initial_state(2)
    by_chunk = estimated_gradient(Chunked(3), model, loss, batch, state)
    at_once = estimated_gradient(Chunked(3, update="sequence"), model, loss, batch, state)
    for name in by_chunk:
        torch.testing.assert_close(by_chunk[name], at_once[name])


def test_exact_at_the_whole_length_and_leaves_no_trace() -> None:
    """Weights, gradients, random numbers and dropout of the model stay as they are."""
    model, batch = make_model("gru", 2, dropout=0.5), masked_batch("none", 11, 2, 3)
    model(batch.inputs, model.initial_state(2))[0].sum().backward()
    before = copy.deepcopy(model)
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    draws = torch.get_rng_state()
    sizes = chunk_sizes(11)
    found = truncation_bias(
        model, loss, batch, model.initial_state(2), estimators={size: Chunked(size) for size in sizes}
    )
    assert found[11].relative < 1e-12
    assert found[11].cosine == pytest.approx(1)
    assert found[1].relative > found[4].relative > found[11].relative
    assert torch.equal(torch.get_rng_state(), draws)
    assert model.dropout == 0.5
    for parameter, gradient, twin in zip(model.parameters(), gradients, before.parameters(), strict=True):
        assert torch.equal(parameter, twin)
        assert torch.equal(parameter.grad, gradient)


def test_a_batch_without_a_loss_is_refused() -> None:
    model, batch = make_model("gru"), masked_batch("none", 6, 2, 3)
    batch.mask = torch.zeros(6, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="a batch must have a loss for truncation to bias it, got one without"):
        truncation_bias(model, loss, batch, model.initial_state(2), estimators={2: Chunked(2)})


def test_wider_windows_are_less_biased() -> None:
    model, batch = make_model("elman"), masked_batch("none", 24, 2, 3)
    found = truncation_bias(
        model,
        loss,
        batch,
        model.initial_state(2),
        estimators={"chunked": Chunked(4), "sliding": Sliding(4, 12)},
    )
    assert found["sliding"].relative < found["chunked"].relative


@pytest.mark.parametrize("kind", ["elman", "gru", "lstm"])
def test_half_precision_adds_no_bias_of_its_own(kind: str) -> None:
    """It is that of the same weights in single precision, and none for a chunk of the whole length."""
    half = make_model(kind, 2).bfloat16()
    single = copy.deepcopy(half).float()
    batch = masked_batch("none", 64, 2, 3)
    batch.inputs = batch.inputs.bfloat16()
    chunks = {size: Chunked(size) for size in (4, 64)}
    found = truncation_bias(half, loss, batch, half.initial_state(2), estimators=chunks)
    batch.inputs = batch.inputs.float()
    assert found == truncation_bias(single, loss, batch, single.initial_state(2), estimators=chunks)
    assert found[64].relative < 1e-5
    assert found[4].relative > 1e-3
    assert half.readout.weight.dtype == torch.bfloat16
