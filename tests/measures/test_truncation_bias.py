"""The bias of truncation against gradients taken by hand."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from support.gradients import gradient_at
from support.masked_batches import loss, make_model, masked_batch
from torch import Tensor, nn

from bptt.estimators import Chunked, Full, Sliding
from bptt.layers import Elman
from bptt.measures import bias, chunk_sizes, estimated_gradient, last_timesteps_with_loss, truncation_bias
from bptt.measures.truncation_bias import gradient_noise
from bptt.model import SequenceModel
from bptt.shapes import detach, map_state
from bptt.tasks import Batch

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


@pytest.mark.parametrize("scale", [1e-37, 1e-25, 1e25, 1e37])
def test_bias_over_the_whole_range_of_single_precision(scale: float) -> None:
    """float32 holds these numbers, but not their squares."""
    exact, truncated = torch.tensor([3.0, 4.0]).float(), torch.tensor([3.0, 0.0]).float()
    found = bias({"a": truncated * scale}, {"a": exact * scale})
    expected = (3 / 5, 4 / 5, 3 / 5, 4 / 5)
    assert (found.cosine, found.relative, found.norm_ratio, found.tensors["a"]) == pytest.approx(expected, rel=1e-6)


def test_chunk_sizes() -> None:
    assert chunk_sizes(1) == [1]
    assert chunk_sizes(8) == [1, 2, 4, 8]
    assert chunk_sizes(11) == [1, 2, 4, 8, 11]
    assert chunk_sizes(11, longest=9) == [1, 2, 4, 8]
    assert chunk_sizes(11, longest=5, also=7) == [1, 2, 4, 7]
    assert chunk_sizes(11, also=20) == [1, 2, 4, 8, 11, 20]


def by_hand(model: SequenceModel, batch: Batch, borders: list[int]) -> dict[str, Tensor]:
    """Autograd's gradient of the mean loss, with the state detached at the borders; the first state is learnt."""
    model.zero_grad()
    state, whole = model.initial_state(batch.batch_size), sum(batch.weights())
    for start, stop in pairwise([0, *borders, batch.num_timesteps]):
        part = batch.between(start, stop)
        predictions, state, _ = model(part.inputs, state)
        if weight := sum(part.weights()):
            (loss(predictions, part) * weight / whole).backward()
        state = detach(state)
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return found


@pytest.mark.parametrize("size", [1, 3, 4, 5, 16])
@pytest.mark.parametrize("num_timesteps", [7, 9, 13])
def test_chunks_are_counted_from_the_beginning_of_the_batch(size: int, num_timesteps: int) -> None:
    """The last 7, 9 or 13 of 13 timesteps, with the borders where training has them."""
    model, batch = make_model("gru"), masked_batch("none", 13, 2, 3)
    part, state, start = last_timesteps_with_loss(model, batch, model.initial_state(2), num_timesteps)
    found = truncation_bias(model, loss, part, state, {size: Chunked(size)}, start=start, whole=batch)[size]
    twin = copy.deepcopy(model)
    twin.initial_state = lambda batch_size: state  # type: ignore[method-assign]  # instead of the learnt one
    borders = [border - start for border in range(size, 13, size) if border > start]
    expected = bias(by_hand(twin, part, borders), by_hand(twin, part, []))
    assert found.relative == pytest.approx(expected.relative, rel=1e-9, abs=1e-12)
    assert found.cosine == pytest.approx(expected.cosine, rel=1e-9)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_sliding_strides_are_counted_from_the_beginning_of_the_batch(size: int) -> None:
    """A window of one stride is a chunk."""
    model, batch = make_model("gru"), masked_batch("none", 13, 2, 3)
    part, state, start = last_timesteps_with_loss(model, batch, model.initial_state(2), 9)
    estimators = {"sliding": Sliding(size, size), "chunked": Chunked(size)}
    found = truncation_bias(model, loss, part, state, estimators, start=start, whole=batch)
    assert found["sliding"].relative == pytest.approx(found["chunked"].relative, rel=1e-9)


@pytest.mark.parametrize("kind", ["elman", "lstm"])
def test_learnt_initial_state_is_one_of_the_parameters(kind: str) -> None:
    """Sequences that begin with it contribute, those with a carried state do not; windows reach it repeatedly."""
    model, batch = make_model(kind, 2, learnt=True), masked_batch("none", 9, 3, 3)
    state = model.initial_state(3)
    found = truncation_bias(model, loss, batch, state, {2: Chunked(2), "sliding": Sliding(1, 4), 9: Chunked(9)})
    expected = bias(by_hand(model, batch, [2, 4, 6, 8]), by_hand(model, batch, []))
    assert found[2].relative == pytest.approx(expected.relative, rel=1e-9)
    assert found[2].tensors == pytest.approx(expected.tensors, rel=1e-9)
    assert found[9].relative < 1e-12
    assert 0 < found["sliding"].tensors["initial.0"] < found[2].tensors["initial.0"]

    carried = map_state(lambda leaf: torch.cat([leaf[:1], torch.randn_like(leaf[1:])]), state)
    mixed = estimated_gradient(Full(), model, loss, batch, carried)
    alone = estimated_gradient(Full(), model, loss, batch.columns(slice(1)), model.initial_state(1))
    for name in [name for name in alone if name.startswith("initial.")]:
        torch.testing.assert_close(mixed[name], alone[name] / 3)


class Started(Elman):
    """Elman's equations from a state that the cell learns."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.start = nn.Parameter(torch.randn(hidden_size))

    def initial_state(self, batch_size: int) -> Tensor:
        return self.start.expand(batch_size, -1)


def test_an_initial_state_that_a_cell_has_learnt() -> None:
    model, batch = SequenceModel(Started, input_size=2, output_size=2, hidden_size=4), masked_batch("none", 9, 3, 3)
    found = truncation_bias(model, loss, batch, model.initial_state(3), {2: Chunked(2)})
    expected = bias(by_hand(model, batch, [2, 4, 6, 8]), by_hand(model, batch, []))
    assert found[2].relative == pytest.approx(expected.relative, rel=1e-9)
    assert found[2].tensors["layers.0.start"] == pytest.approx(expected.tensors["layers.0.start"], rel=1e-9)


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
    gradients = [gradient_at(parameter).clone() for parameter in model.parameters()]
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
        assert torch.equal(gradient_at(parameter), gradient)


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


@pytest.mark.parametrize("kind", ["elman", "gru", "lstm", "lru", "mingru"])
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


def test_noise_over_batches_and_draws() -> None:
    """The variances between and within batches add up, and draws that are equal count once."""
    source = torch.Generator().manual_seed(0)
    means = 10 + torch.randn(2000, 1, 4, generator=source)
    draws = means + 2 * torch.randn(2000, 3, 4, generator=source)
    found = gradient_noise([[{"w": each} for each in of_batch] for of_batch in draws])
    assert found == pytest.approx(math.sqrt((1 + 4) / (100 + 1 + 4)), rel=0.02)
    once = [{"w": each} for each in draws[:4, 0]]
    expected = (draws[:4, 0].var(0).sum() / draws[:4, 0].square().sum(1).mean()).sqrt()
    assert gradient_noise([[each] for each in once]) == pytest.approx(float(expected))
    assert gradient_noise([[each] * 5 for each in once]) == pytest.approx(float(expected))
    assert math.isnan(gradient_noise([once]))
