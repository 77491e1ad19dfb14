"""e-prop and RFLO against their published formulas written out as loops, and against autograd of a cut graph."""

from typing import Any

import pytest
import torch
from support import oracles
from support.fixed_batches import random_batch
from support.masked_batches import KINDS, TwoSpeeds, loss, make_mask, make_model
from torch import Tensor, nn

from bptt.estimators import RFLO, EProp, Estimator, Full
from bptt.estimators.eprop import feedback_matrix
from bptt.estimators.transition import Transition
from bptt.layers import Elman, Layer
from bptt.model import SequenceModel
from bptt.tasks import Batch

pytestmark = pytest.mark.usefixtures("float64")
T, B, H = 7, 2, 4


def estimated(estimator: Estimator, model: SequenceModel, batch: Batch) -> dict[str, Tensor]:
    model.zero_grad()
    list(estimator.updates(model, loss, batch, model.initial_state(batch.batch_size)))
    return oracles.grads(model)


def recurrent(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: gradient for name, gradient in gradients.items() if not name.startswith("readout")}


def logistic_slope(value: Tensor) -> Tensor:
    return value * (1 - value)


def traces(kind: str, weights: list[Tensor], x: Tensor, h: Tensor, c: Tensor, before: Any) -> tuple[Any, ...]:
    """One timestep of one sequence: new h and c, ∂h/∂W per row and column of [W_ih, W_hh, b_ih, b_hh], and the traces.

    By Murray's and Bellec's formulas: a gate's row i has the factor ∂(state of unit i)/∂(preactivation of the gate),
    times the vector that the row multiplies. before: traces of every gate (G, H, D + H + 2).
    """
    w_x, w_h, b_x, b_h = weights
    seen = torch.cat([x, h, torch.ones(2)])
    if kind == "elman":
        h = torch.tanh(w_x @ x + w_h @ h + b_x + b_h)
        now = ((1 - h**2)[:, None] * seen)[None]
        return h, c, now, now
    if kind == "gru":
        (xr, xz, xn), (hr, hz, hn) = (w_x @ x + b_x).view(3, H), (w_h @ h + b_h).view(3, H)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        slope = (1 - z) * (1 - n**2)
        factors = [slope * hn * logistic_slope(r), (h - n) * logistic_slope(z), slope]
        direct = torch.stack([factor[:, None] * seen for factor in factors])
        columns = torch.arange(len(seen))
        from_hidden = ((columns >= len(x)) & (columns < len(x) + H)) | (columns == len(seen) - 1)
        direct[2, :, from_hidden] *= r[:, None]  # the reset gate scales W_hn h + b_hn
        now = z[:, None] * before + direct
        return n + z * (h - n), c, now, now
    i, f, g, o = (w_x @ x + b_x + w_h @ h + b_h).view(4, H)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    factors = [g * logistic_slope(i), c * logistic_slope(f), i * (1 - g**2), torch.zeros(H)]
    now = f[:, None] * before + torch.stack([factor[:, None] * seen for factor in factors])
    c = f * c + i * g
    of_h = (o * (1 - torch.tanh(c) ** 2))[:, None] * now
    of_h[3] = (torch.tanh(c) * logistic_slope(o))[:, None] * seen
    return o * torch.tanh(c), c, of_h, now


@pytest.mark.parametrize("kind", ["elman", "gru", "lstm"])
@pytest.mark.parametrize("feedback", ["readout", "random"])
def test_published_formulas(kind: str, feedback: Any) -> None:
    """Trace times learning signal, timestep by timestep and sequence by sequence; `feedback=random` is RFLO."""
    model, batch = make_model(kind), random_batch(T, B)
    weights = [each.detach() for each in oracles.layer_weights(model, "layers.0.")]
    v, bias = (model.get_parameter(f"readout.{name}").detach() for name in ("weight", "bias"))
    back = v.T if feedback == "readout" else feedback_matrix(H, 2, seed=3)
    total = torch.zeros(len(weights[0]) // H, H, 2 + H + 2)
    for b in range(B):
        h, c, trace = torch.zeros(H), torch.zeros(H), torch.zeros_like(total)
        for t in range(T):
            h, c, of_h, trace = traces(kind, weights, batch.inputs[t, b], h, c, trace)
            error = 2 * (v @ h + bias - batch.targets[t, b]) / (T * B)
            total = total + (back @ error)[:, None] * of_h
    w_x, w_h, b_x, b_h = total.flatten(0, 1).split([2, H, 1, 1], 1)
    names = [f"layers.0.kernel.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    expected = dict(zip(names, (w_x, w_h, b_x.squeeze(1), b_h.squeeze(1))))
    found = estimated(EProp(3, update="sequence", feedback=feedback, seed=3), model, batch)
    assert oracles.relative_error(recurrent(found), expected) < 1e-10
    if feedback == "random":
        rflo = estimated(RFLO(3, update="sequence", seed=3), model, batch)
        assert all(torch.equal(rflo[name], found[name]) for name in found)
        assert oracles.relative_error(estimated(RFLO(3, update="sequence", seed=4), model, batch), found) > 0.1


def cut_cell(kind: str, weights: list[Tensor], x: Tensor, state: oracles.CellState) -> oracles.CellState:
    """A cell whose recurrent weights see a constant."""
    if kind in ("lru", "mingru"):
        return oracles.CELLS[kind](weights, x, state)
    held = tuple(part.detach() for part in state)
    if kind == "lstm":
        return oracles.lstm_cell(weights, x, (held[0], state[1]))
    (new,) = oracles.CELLS[kind](weights, x, held)
    if kind == "gru":
        w_x, w_h, b_x, b_h = (each[H : 2 * H] for each in weights)
        z = torch.sigmoid(x @ w_x.T + b_x + held[0] @ w_h.T + b_h)
        new = new + z.detach() * (state[0] - held[0])
    return (new,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_layers", "learnt", "embedding_size"), [(1, True, 3), (2, True, None)])
def test_autograd_of_a_cut_graph(kind: str, num_layers: int, learnt: bool, embedding_size: int | None) -> None:
    """For each layer's parameters, recurrent weights see constants, and the layers above only their state at t."""
    model = SequenceModel(
        KINDS[kind],
        input_size=2,
        output_size=2,
        hidden_size=H,
        num_layers=num_layers,
        learnt_initial_state=learnt,
        embedding_size=embedding_size,
    )
    for parameter in model.initial or ():
        nn.init.normal_(parameter)
    batch = random_batch(T, B, mask=make_mask("random", T, B, 3))
    parts = 2 if kind == "lstm" else 1

    def gradient(own: int) -> dict[str, Tensor]:
        states, predictions = oracles.learnt_states(kind, model, B), []
        for x in batch.inputs:
            below = x if model.encoder is None else x @ model.encoder.weight.T
            for level in range(num_layers):
                before = tuple(part.detach() for part in states[level]) if level > own else states[level]
                states[level] = cut_cell(kind, oracles.layer_weights(model, f"layers.{level}."), below, before)
                below = states[level][0]
            predictions.append(below @ model.readout.weight.T + model.readout.bias)
        error = oracles.squared_error(torch.stack(predictions), batch.targets, batch.mask)
        return oracles.gradients(error, model)

    by_level, expected = [gradient(own) for own in range(num_layers)], {}
    for name in by_level[0]:
        head, number, *_ = name.split(".")
        level = {"layers": number, "initial": number}.get(head, "0")
        expected[name] = by_level[int(level) // (parts if head == "initial" else 1)][name]
    found = estimated(EProp(3, update="sequence"), model, batch)
    assert oracles.relative_error(found, expected) < 1e-10
    exact = estimated(Full(), model, batch)
    error = oracles.relative_error(found, exact)
    assert error < 1e-10 if kind in ("lru", "mingru") and num_layers == 1 else error > 1e-3


def test_readout_and_own_cells() -> None:
    """The readout's gradient is exact; a cell whose output acts on its own unit's other states alone is followed."""
    model, batch = make_model("gru", 2), random_batch(T, B)
    exact = estimated(Full(), model, batch)
    for estimator in (EProp(3, update="sequence"), RFLO(3, update="sequence")):
        found = estimated(estimator, model, batch)
        for name in ("readout.weight", "readout.bias"):
            torch.testing.assert_close(found[name], exact[name], rtol=1e-10, atol=1e-13)
    model = SequenceModel(TwoSpeeds, input_size=2, output_size=2, hidden_size=H)
    found = estimated(EProp(3, update="sequence"), model, batch)
    assert oracles.relative_error(found, estimated(Full(), model, batch)) < 1e-10


class OwnElman(Layer):
    """A cell that does not say which of its paths pass through recurrent weights."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.cell = Elman(input_size, hidden_size)

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, self.hidden_size)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        return self.cell.step(input, state)


def test_cells_without_a_known_leak_are_refused() -> None:
    model = SequenceModel(OwnElman, input_size=2, output_size=2, hidden_size=H)
    message = "need a layer that defines `step_within_units`, got OwnElman; use estimator=snap or rtrl"
    with pytest.raises(ValueError, match=message):
        estimated(EProp(3), model, random_batch(T, B))


@pytest.mark.parametrize(("kind", "numbers"), [("gru", 1), ("lstm", 2), ("mingru", 1), ("lru", 2)])
def test_traces_hold_as_many_numbers_as_parameters(kind: str, numbers: int) -> None:
    """One for each state tensor of a unit: h and c of an LSTM, both parts of a complex unit."""
    model = make_model(kind)
    transition = Transition(model, model.initial_state(B), "step_within_units")
    trace = EProp(3).begin(transition, transition.initial)
    assert sum(values.numel() for values in trace.values) == numbers * B * transition.num_parameters


@pytest.mark.parametrize(("block", "width"), [("glu", 6), ("mlp", 6), ("residual", None)])
def test_random_feedback_reaches_blocks_and_encoder(block: Any, width: int | None) -> None:
    """A loss that is linear in the predictions has one error for V and −V, and no gradient but the readout's has V."""
    sizes: dict[str, Any] = {"input_size": 2, "output_size": 2, "hidden_size": H, "num_layers": 2}
    model = SequenceModel(Elman, **sizes, block=block, embedding_size=width)
    batch = random_batch(T, B)

    def found() -> dict[str, Tensor]:
        model.zero_grad()
        updates = RFLO(3, update="sequence").updates(
            model, lambda made, part: (made * part.targets).sum() / (T * B), batch, model.initial_state(B)
        )
        list(updates)
        return {name: gradient.clone() for name, gradient in oracles.grads(model).items()}

    first = found()
    with torch.no_grad():
        dict(model.named_parameters())["readout.weight"].neg_()
    assert all(gradient.any() for gradient in first.values())
    torch.testing.assert_close(found(), first)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("readout."))
    torch.testing.assert_close(recurrent(found()), recurrent(first))


def test_a_cell_without_a_known_leak_is_refused_before_training() -> None:
    model = SequenceModel(OwnElman, input_size=2, output_size=2, hidden_size=H)
    with pytest.raises(ValueError, match="need a layer that defines `step_within_units`, got OwnElman"):
        EProp(1).check(model, B, T)
