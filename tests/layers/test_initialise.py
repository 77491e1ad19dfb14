"""Initialisations: the weights have the stated distribution, and the gates the stated values."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from support import oracles
from torch import Tensor, nn

from bptt.layers import GRU, LSTM, Elman, Layer, LSTMState
from bptt.layers.initialise import chrono, default, forget_bias, gaussian, identity, orthogonal, sparse, uniform
from bptt.model import SequenceModel

pytestmark = pytest.mark.usefixtures("float64")
H = 6


class OwnCell(Layer):
    """A layer without gates and without a kernel."""

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, self.hidden_size)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        return state


def weights(layer: Layer) -> list[Tensor]:
    return [weight.detach().clone() for weight in oracles.layer_weights(layer)]


@pytest.mark.parametrize("cell", [Elman, GRU, LSTM])
def test_default_draws_everything_from_the_uniform_distribution_of_torch(cell: Any) -> None:
    layer = cell(50, 100)
    before = weights(layer)
    default(layer)
    assert all(map(torch.equal, before, weights(layer)))
    for weight in before:
        assert 0.09 < weight.abs().max() <= 0.1
        assert weight.std() == pytest.approx(0.1 / math.sqrt(3), rel=0.15)


@pytest.mark.parametrize("cell", [Elman, GRU, LSTM])
def test_orthogonal_gate_by_gate(cell: Any) -> None:
    layer = cell(3, H)
    before = weights(layer)
    orthogonal(layer)
    after = weights(layer)
    blocks = after[1].split(H)
    assert len(blocks) == {Elman: 1, GRU: 3, LSTM: 4}[cell]
    for block in blocks:
        torch.testing.assert_close(block @ block.T, torch.eye(H), rtol=0, atol=1e-12)
    assert all(torch.equal(before[k], after[k]) for k in (0, 2, 3)), "only W_hh is drawn again"
    assert len({float(block[0, 0]) for block in blocks}) == len(blocks), "each gate has its own"


def test_identity_without_input_keeps_the_state() -> None:
    """Relu, W = scale · I, biases 0: h_t = scale · h_{t-1} for every h ≥ 0."""
    for scale in (1.0, 0.5):
        layer = Elman(3, H, nonlinearity="relu")
        identity(layer, scale=scale)
        state = torch.rand(2, H)
        assert torch.equal(layer.step(torch.zeros(2, 3), state), scale * state)


def test_identity_draws_small_input_weights() -> None:
    layer = Elman(100, 100, nonlinearity="relu")
    identity(layer)
    assert weights(layer)[0].std() == pytest.approx(0.001, rel=0.05)
    identity(layer, input_std=0.1)
    assert weights(layer)[0].std() == pytest.approx(0.1, rel=0.05)


def test_gaussian_weights_of_their_own_for_inputs_and_readout() -> None:
    torch.manual_seed(1)
    layer, readout = Elman(50, 400), nn.Linear(400, 50)
    for part in (layer, readout):
        gaussian(part, std=0.05, input_std=1.0, linear_std=2.0)
    found = [float(weight.detach().std()) for weight in (layer.weight_ih, layer.weight_hh, readout.weight)]
    assert found == pytest.approx([1.0, 0.05, 2.0], rel=0.03)


def test_linear_maps_are_those_of_encoder_blocks_and_readout() -> None:
    """D of a block is no linear map, and stays N(0, 1)."""
    model = SequenceModel(
        Elman,
        input_size=30,
        output_size=30,
        hidden_size=60,
        embedding_size=200,
        num_layers=2,
        block="glu",
        initialise=partial(gaussian, std=0.05, linear_std=2.0),
    )
    maps = {name: weight for name, weight in model.named_parameters() if weight.dim() == 2 and "kernel" not in name}
    assert set(maps) == {
        "encoder.weight",
        "readout.weight",
        *(f"blocks.{level}.{name}.weight" for level in range(2) for name in ("output", "mix.1")),
    }
    for weight in maps.values():
        assert float(weight.detach().std()) == pytest.approx(2.0, rel=0.05)
    for level in range(2):
        assert float(model.get_parameter(f"blocks.{level}.skip").detach().std()) == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize("part", [Elman(200, 100), GRU(200, 100), LSTM(200, 100), nn.Linear(200, 100)], ids=str)
@pytest.mark.parametrize("std", [0.1, 0.001])
def test_gaussian_weights_and_no_biases(part: Layer | nn.Linear, std: float) -> None:
    gaussian(part, std=std)
    for values in part.parameters():
        if values.dim() == 2:
            assert values.std().item() == pytest.approx(std, rel=0.05)
            assert values.mean().item() == pytest.approx(0, abs=0.05 * std)
            assert values.abs().max() > 3 * std, "a uniform distribution ends at 1.73 of its deviation"
        else:
            assert not values.any()


@pytest.mark.parametrize(("options", "nonzeros", "radius"), [({}, 15, 0.95), ({"num_nonzeros": 4}, 4, 0.95)])
def test_sparse_recurrent_weights_of_a_given_spectral_radius(
    options: dict[str, Any], nonzeros: int, radius: float
) -> None:
    """The spectral radius by its definition: the growth of ‖W^k‖ with k."""
    layer = Elman(60, 50)
    sparse(layer, **options)
    w_x, w_h, b_x, b_h = weights(layer)
    assert (w_h != 0).sum(1).tolist() == [nonzeros] * 50, "each unit listens to as many"
    assert len({tuple(row.nonzero().flatten().tolist()) for row in w_h}) == 50, "each to its own"
    growth = torch.linalg.matrix_power(w_h, 2000).norm() ** (1 / 2000)
    assert growth.item() == pytest.approx(radius, rel=5e-3)
    assert w_x.std().item() == pytest.approx(0.01, rel=0.05)
    assert not b_x.any()
    assert not b_h.any()


def test_sparse_of_a_layer_with_fewer_units() -> None:
    layer = Elman(3, H)
    sparse(layer, spectral_radius=2.0)
    assert torch.linalg.eigvals(weights(layer)[1]).abs().max().item() == pytest.approx(2.0, rel=1e-12)
    assert weights(layer)[1].all()


@pytest.mark.parametrize(
    "part", [Elman(7, 100), GRU(7, 100), LSTM(7, 100), nn.Linear(100, 9), nn.Linear(9, 100)], ids=str
)
def test_uniform_by_the_larger_dimension(part: Layer | nn.Linear) -> None:
    """U(±√(3/n)) has variance 1/n, with n the larger dimension."""
    uniform(part)
    n = 100 * len(getattr(part, "gates", "h"))
    for values in part.parameters():
        if values.dim() == 2:
            assert 0.97 * math.sqrt(3 / n) < values.abs().max() <= math.sqrt(3 / n)
            assert values.std().item() == pytest.approx(math.sqrt(1 / n), rel=0.06)
        else:
            assert not values.any()


def without_weights(layer: Layer) -> None:
    """Set all weights to 0: each gate is then the logistic function of its bias."""
    for weight in oracles.layer_weights(layer)[:2]:
        weight.data.zero_()


@pytest.mark.parametrize("value", [1.0, 5.0, -2.0])
def test_forget_bias_of_an_lstm_sets_how_much_of_the_cell_stays(value: float) -> None:
    layer = LSTM(3, H)
    forget_bias(layer, value=value)
    without_weights(layer)
    c = torch.randn(2, H)
    step = partial(layer.step, torch.zeros(2, 3))
    kept = step(LSTMState(torch.zeros(2, H), c)).c - step(LSTMState(torch.zeros(2, H), torch.zeros(2, H))).c
    torch.testing.assert_close(kept, c / (1 + math.exp(-value)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("value", [1.0, 5.0, -2.0])
def test_forget_bias_of_a_gru_sets_how_much_of_the_state_stays(value: float) -> None:
    layer = GRU(3, H)
    forget_bias(layer, value=value)
    without_weights(layer)
    # The candidate's bias on the recurrent side goes through r alone, so the rest does not depend on h.
    h = torch.randn(2, H)
    kept = layer.step(torch.zeros(2, 3), h) - layer.step(torch.zeros(2, 3), torch.zeros(2, H))
    torch.testing.assert_close(kept, h / (1 + math.exp(-value)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("cell", "untouched"), [(LSTM, {"i", "g", "o"}), (GRU, {"r", "n"})])
def test_forget_bias_does_not_change_the_other_gates(cell: Any, untouched: set[str]) -> None:
    layer = cell(3, H)
    before = weights(layer)
    forget_bias(layer)
    after = weights(layer)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    for gate, *sides in zip(layer.gates, *(side.split(H) for side in before[2:] + after[2:])):
        same = torch.equal(sides[0], sides[2]) and torch.equal(sides[1], sides[3])
        assert same == (gate in untouched), gate


def test_chrono_of_an_lstm() -> None:
    """Σ of both biases: b_f = log u with u in [1, max_lag − 1], b_i = −b_f; u spreads over its range."""
    layer = LSTM(1, 2000)
    chrono(layer, max_lag=50)
    *_, b_x, b_h = weights(layer)
    b_i, b_f, b_g, _ = (b_x + b_h).split(2000)
    u = b_f.exp()
    assert 1 <= u.min() < 1.5
    assert 48.5 < u.max() <= 49
    assert u.mean() == pytest.approx(25, rel=0.05)
    torch.testing.assert_close(b_i, -b_f, rtol=0, atol=1e-15)
    assert b_g.abs().max() < 0.05, "the other gates keep torch's default"


def test_chrono_of_a_gru_spreads_the_time_constants() -> None:
    """1 / (1 − z) with z = σ(log u) is 1 + u: between 2 and max_lag timesteps."""
    layer = GRU(1, 2000)
    chrono(layer, max_lag=50)
    *_, b_x, b_h = weights(layer)
    _, b_z, _ = (b_x + b_h).split(2000)
    constants = 1 / (1 - torch.sigmoid(b_z))
    assert 2 - 1e-9 <= constants.min() < 2.5
    assert 49.5 < constants.max() <= 50 + 1e-9


@pytest.mark.parametrize(
    ("initialise", "layer", "wanted"),
    [
        (orthogonal, OwnCell(2, 3), "an Elman, GRU or LSTM layer"),
        (gaussian, OwnCell(2, 3), "an Elman, GRU or LSTM layer"),
        (uniform, OwnCell(2, 3), "an Elman, GRU or LSTM layer"),
        (sparse, GRU(2, 3), "an Elman layer"),
        (sparse, OwnCell(2, 3), "an Elman layer"),
        (identity, GRU(2, 3), "an Elman layer"),
        (identity, LSTM(2, 3), "an Elman layer"),
        (forget_bias, Elman(2, 3), "an LSTM or GRU layer"),
        (forget_bias, OwnCell(2, 3), "an LSTM or GRU layer"),
        (partial(chrono, max_lag=9), Elman(2, 3), "an LSTM or GRU layer"),
    ],
)
def test_wrong_layer_is_refused_in_one_line(initialise: Any, layer: Layer, wanted: str) -> None:
    name = getattr(initialise, "func", initialise).__name__
    with pytest.raises(ValueError) as refused:
        initialise(layer)
    message = str(refused.value)
    assert message == (f"initialisation {name} needs {wanted}, got {type(layer).__name__}; use initialisation=default")


@pytest.mark.parametrize("max_lag", [2, 0, -5, 3.5])
def test_chrono_needs_a_lag_above_two(max_lag: Any) -> None:
    with pytest.raises(ValueError, match="max_lag must be an integer >= 3, got"):
        chrono(LSTM(2, 3), max_lag=max_lag)


def test_model_initialises_every_layer() -> None:
    model = SequenceModel(
        LSTM, input_size=3, output_size=2, hidden_size=H, num_layers=3, initialise=partial(forget_bias, value=7.0)
    )
    for level in range(3):
        _, _, b_x, b_h = oracles.layer_weights(model, f"layers.{level}.")
        assert torch.equal((b_x + b_h)[H : 2 * H], torch.full((H,), 7.0))


def make_model(initialise: Any) -> SequenceModel:
    """Model with the same draws of torch's default initialisation."""
    torch.manual_seed(5)
    return SequenceModel(
        partial(Elman, nonlinearity="relu"),
        input_size=50,
        output_size=40,
        hidden_size=30,
        embedding_size=60,
        initialise=initialise,
    )


@pytest.mark.parametrize(
    ("initialise", "std"),
    [
        (gaussian, 0.1),
        (sparse, 0.01),
        (partial(identity, linear_std=0.001), 0.001),
        (uniform, None),
    ],
)
def test_encoder_and_readout_of_the_papers_that_name_them(initialise: Any, std: float | None) -> None:
    model = make_model(initialise)
    for linear, larger in (("encoder", 60), ("readout", 40)):
        expected = std or math.sqrt(1 / larger)
        assert model.get_parameter(f"{linear}.weight").std().item() == pytest.approx(expected, rel=0.1)
    assert not model.get_parameter("readout.bias").any()


@pytest.mark.parametrize("initialise", [orthogonal, identity])
def test_encoder_and_readout_stay_torchs_by_the_others(initialise: Any) -> None:
    found, torchs = make_model(initialise), make_model(default)
    for name in ("encoder.weight", "readout.weight", "readout.bias"):
        assert torch.equal(found.state_dict()[name], torchs.state_dict()[name])


def test_encoder_and_readout_stay_torchs_by_those_of_gates() -> None:
    for initialise in (forget_bias, partial(chrono, max_lag=9)):
        linear = nn.Linear(4, 3)
        before = [value.clone() for value in linear.parameters()]
        initialise(linear)
        assert all(map(torch.equal, before, linear.parameters()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_nonzeros": 0}, "num_nonzeros must be an integer >= 1, got 0"),
        ({"spectral_radius": 0}, "spectral_radius must be a number in"),
        ({"std": 0.0}, "std must be a number in"),
        ({"std": 1e-40}, "std must be a number in"),
    ],
)
def test_sparse_refuses_what_leaves_no_weights(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sparse(Elman(2, 3), **options)


@pytest.mark.parametrize("part", [LSTM(30, 40), nn.Linear(50, 60)], ids=["layer", "readout"])
def test_uniform_within_a_bound(part: Any) -> None:
    """All weights and biases alike."""
    uniform(part, bound=0.1)
    for parameter in part.parameters():
        assert 0.08 < parameter.abs().max() <= 0.1
        assert parameter.min() < 0 < parameter.max()
    with pytest.raises(ValueError, match=r"bound must be a number in \(0, inf\), got 0"):
        uniform(part, bound=0)
