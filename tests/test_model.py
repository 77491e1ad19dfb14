"""The model against one unrolled graph on its own parameters."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import oracles
from support.layer_kinds import ALL as KINDS
from torch import nn

from bptt.layers import LSTM, MinGRU
from bptt.model import SequenceModel
from bptt.shapes import leaves, map_state

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", KINDS)
D, V = 4, 3


def make(kind: str, **options: Any) -> SequenceModel:
    settings: dict[str, Any] = {"input_size": D, "output_size": V, "hidden_size": 6, **options}
    model = SequenceModel(KINDS[kind], **settings)
    if model.initial is not None:
        for parameter in model.initial:
            nn.init.normal_(parameter)
    return model


@kinds
@given(
    num_layers=st.integers(1, 3),
    timesteps=st.integers(1, 8),
    batch_size=st.integers(1, 3),
    embedding_size=st.sampled_from([None, 2, 6]),
    learnt=st.booleans(),
)
def test_predictions_states_and_gradients(
    kind: str, num_layers: int, timesteps: int, batch_size: int, embedding_size: int | None, learnt: bool
) -> None:
    model = make(kind, num_layers=num_layers, embedding_size=embedding_size, learnt_initial_state=learnt)
    inputs, direction = torch.randn(timesteps, batch_size, D), torch.randn(timesteps, batch_size, V)
    predictions, final, _ = model(inputs, model.initial_state(batch_size))
    expected = oracles.run_model(kind, model, inputs)
    torch.testing.assert_close(predictions, expected.predictions, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(leaves(final), [leaf for state in expected.final for leaf in state])
    got = oracles.gradients((predictions * direction).sum(), model)
    reference = oracles.gradients((expected.predictions * direction).sum(), model)
    assert oracles.relative_error(got, reference) < 1e-10


@kinds
@pytest.mark.parametrize("embedding_size", [None, 3])
@pytest.mark.parametrize("integer", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_token_ids_count_as_one_hot_features(kind: str, embedding_size: int | None, integer: torch.dtype) -> None:
    """Tested with and without an embedding. A linear map of a one-hot vector is one of its columns."""
    model = make(kind, num_layers=2, embedding_size=embedding_size)
    tokens = torch.randint(D, (7, 3))
    direction = torch.randn(7, 3, V)
    predictions, _, records = model(tokens.to(integer), model.initial_state(3))
    expected = oracles.run_model(kind, model, oracles.one_hot(tokens, D)).predictions
    torch.testing.assert_close(predictions, expected, rtol=1e-12, atol=1e-13)
    assert records[0].inputs.shape == (7, 3, embedding_size or D)
    got = oracles.gradients((predictions * direction).sum(), model)
    assert oracles.relative_error(got, oracles.gradients((expected * direction).sum(), model)) < 1e-10
    as_features, _, _ = model(oracles.one_hot(tokens, D), model.initial_state(3))
    torch.testing.assert_close(as_features, predictions, rtol=1e-12, atol=1e-13)


def test_features_arrive_in_the_weights_precision() -> None:
    """Tasks give float32; models in float64 and bfloat16 convert it."""
    for kind in (torch.float64, torch.bfloat16):
        model = make("gru").to(kind)
        predictions, _, _ = model(torch.randn(4, 2, D, dtype=torch.float32), model.initial_state(2))
        assert predictions.dtype == kind


@kinds
def test_learnt_initial_state_gets_the_gradient_of_all_sequences(kind: str) -> None:
    """All sequences share it: its gradient is the sum over sequences of dL/d(state before timestep 1)."""
    model = make(kind, num_layers=2, learnt_initial_state=True)
    state = model.initial_state(3)
    for leaf in leaves(state):
        assert leaf.shape == (3, 6)
        assert torch.equal(leaf[0], leaf[2])
    inputs = torch.randn(6, 3, D)
    (model(inputs, state)[0] ** 2).sum().backward()

    apart = [tuple(leaf.detach().clone().requires_grad_() for leaf in leaves(part)) for part in state]
    unrolled = oracles.run_model(kind, model, inputs, apart)
    separate = torch.autograd.grad((unrolled.predictions**2).sum(), [leaf for part in apart for leaf in part])
    assert model.initial is not None
    assert len(separate) == len(model.initial)
    for parameter, each in zip(model.initial, separate):
        assert parameter.shape == (1, 6)
        torch.testing.assert_close(parameter.grad, each.sum(0, keepdim=True), rtol=1e-10, atol=1e-12)


def test_learnt_initial_state_begins_as_the_layers_own() -> None:
    model = SequenceModel(LSTM, input_size=D, output_size=V, hidden_size=5, num_layers=2, learnt_initial_state=True)
    plain = SequenceModel(LSTM, input_size=D, output_size=V, hidden_size=5, num_layers=2)
    assert all(map(torch.equal, leaves(model.initial_state(3)), leaves(plain.initial_state(3))))
    assert "initial.0" not in dict(plain.named_parameters())


@kinds
def test_dropout_acts_only_between_layers(kind: str) -> None:
    """The oracle with the recorded masks between layers, and nowhere else, gives the same predictions and gradients."""
    model = make(kind, num_layers=3, dropout=0.4)
    inputs, direction = torch.randn(6, 2, D), torch.randn(6, 2, V)
    predictions, _, records = model(inputs, model.initial_state(2))
    masks = [record.mask for record in records]
    assert masks[-1] is None
    assert all(set(mask.unique().tolist()) == {0.0, 1 / 0.6} for mask in masks[:2])
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0][0], masks[0][1]), "drawn independently at every timestep"
    expected = oracles.run_model(kind, model, inputs, masks=masks[:2]).predictions
    torch.testing.assert_close(predictions, expected, rtol=1e-10, atol=1e-12)
    got = oracles.gradients((predictions * direction).sum(), model)
    assert oracles.relative_error(got, oracles.gradients((expected * direction).sum(), model)) < 1e-10


def test_dropout_has_the_share_it_is_given() -> None:
    model = make("gru", num_layers=2, dropout=0.3, hidden_size=50)
    _, _, records = model(torch.randn(40, 20, D), model.initial_state(20))
    dropped = float((records[0].mask == 0).double().mean())
    assert dropped == pytest.approx(0.3, abs=0.01)  # 40,000 draws: four standard deviations
    assert float(records[0].mask.mean()) == pytest.approx(1, abs=0.015), "the mean stays"


def test_dropout_is_off_in_evaluation_and_with_one_layer() -> None:
    inputs = torch.randn(5, 2, D)
    single, stack = make("lstm", dropout=0.5), make("lstm", num_layers=2, dropout=0.5).eval()
    for model in (single, stack):
        predictions, _, records = model(inputs, model.initial_state(2))
        assert all(record.mask is None for record in records)
        torch.testing.assert_close(predictions, oracles.run_model("lstm", model, inputs).predictions)


@kinds
def test_record_holds_references(kind: str) -> None:
    """Records refer to the tensors of the pass, without copies."""
    model = make(kind, num_layers=2)
    inputs, state = torch.randn(5, 2, D), map_state(torch.randn_like, model.initial_state(2))
    _, final, records = model(inputs, state)
    lower, upper = records
    assert lower.inputs.data_ptr() == inputs.data_ptr()
    assert upper.inputs is lower.outputs
    for record, before, after in zip(records, state, final):
        assert record.initial is before
        assert record.final is after
        assert record.outputs.shape == (5, 2, 6)
        torch.testing.assert_close(record.outputs[-1], leaves(record.final)[0], rtol=0, atol=0)


@kinds
def test_advance_gives_the_state_of_forward(kind: str) -> None:
    model = make(kind, num_layers=3, dropout=0.5)
    inputs, state = torch.randn(7, 2, D), map_state(torch.randn_like, model.initial_state(2))
    torch.manual_seed(5)
    _, final, _ = model(inputs, state)
    torch.manual_seed(5)
    assert all(map(torch.equal, leaves(model.advance(inputs, state)), leaves(final)))


@kinds
def test_wrong_number_of_states_is_an_error(kind: str) -> None:
    model, shallow = make(kind, num_layers=2), make(kind)
    with pytest.raises(ValueError, match="zip"):
        model(torch.randn(3, 2, D), shallow.initial_state(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be an integer >= 1, got 0"),
        ({"num_layers": 0}, "num_layers must be an integer >= 1, got 0"),
        ({"num_layers": 1.5}, "num_layers must be an integer >= 1, got 1.5"),
        ({"embedding_size": 0}, "embedding_size must be an integer >= 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"dropout must be a number in \[0, 1\), got -0.1"),
        ({"dropout": float("nan")}, r"dropout must be a number in \[0, 1\), got nan"),
        ({"dropout": "0.5"}, r"dropout must be a number in \[0, 1\), got '0.5'"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("gru", **options)


@pytest.mark.parametrize("layer", [LSTM, MinGRU])
@pytest.mark.parametrize(
    ("shape", "number", "message"),
    [
        ((5, 2, 3), 4, r"state must be that of 2 sequences, B of inputs \[5, 2, 3\], got 4; .*drop_last=True"),
        ((2, 5, 3), 2, r"state must be that of 5 sequences"),  # batch first
        ((0, 2, 3), 2, r"inputs must be features \(T, B, 3\) .*, with T, B >= 1, got \[0, 2, 3\]"),
        ((5, 2, 4), 2, r"inputs must be features \(T, B, 3\) or token ids \(T, B\), time first, .*got \[5, 2, 4\]"),
    ],
)
def test_sizes_that_do_not_fit(layer: Any, shape: tuple[int, ...], number: int, message: str) -> None:
    """Such as those of an epoch's last, smaller batch: one line for every layer, not that of a kernel."""
    model = SequenceModel(layer, input_size=3, output_size=2, hidden_size=4)
    for run in (model.forward, model.advance):
        with pytest.raises(ValueError, match=message):
            run(torch.randn(shape), model.initial_state(number))
