"""Residual blocks around the layers: formulas, gradients of every level, and the measures on them."""

from functools import partial
from typing import Any

import pytest
import torch
from support import oracles
from support.fixed_batches import random_batch
from support.masked_batches import KINDS, loss
from torch import Tensor, nn

from bptt.estimators import Full
from bptt.estimators.adaptive import gradients_by_lag
from bptt.layers import Elman
from bptt.measures import exact_flows, manual_gradients
from bptt.model import SequenceModel
from bptt.shapes import leaves

pytestmark = pytest.mark.usefixtures("float64")
every = pytest.mark.parametrize("block", ["glu", "mlp", "norm", "residual", "norm_residual"])
kinds = pytest.mark.parametrize("kind", KINDS)


def make(kind: str, block: Any, num_layers: int = 2, **options: Any) -> SequenceModel:
    settings: dict[str, Any] = {"hidden_size": 4, "embedding_size": 3 if block in ("glu", "mlp") else 4, **options}
    return SequenceModel(KINDS[kind], input_size=2, output_size=2, num_layers=num_layers, block=block, **settings)


def predictions_by_hand(kind: str, model: SequenceModel, inputs: Tensor, block: str) -> tuple[Tensor, Any]:
    """Timestep by timestep, with every map written out, and each layer's states."""
    named = dict(model.named_parameters())
    depth, states, history, found = len(model.layers), model.initial_state(inputs.shape[1]), [], []
    now: list[Any] = [tuple(leaves(state)) for state in states]
    for x in inputs:
        stream = x @ named["encoder.weight"].T
        for level in range(depth):
            part = {name.removeprefix(f"blocks.{level}."): value for name, value in named.items()}
            if block in ("norm", "residual", "norm_residual"):
                u = stream if block == "residual" else nn.functional.layer_norm(stream, (4,)) * part["norm.weight"]
                u = u if block == "residual" else u + part["norm.bias"]
                now[level] = oracles.CELLS[kind](oracles.layer_weights(model, f"layers.{level}."), u, now[level])
                for leaf in now[level]:
                    leaf.retain_grad()
                stream = now[level][0] if block == "norm" else stream + now[level][0]
                continue
            centred = stream - stream.mean(-1, keepdim=True)
            u = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            u = u * part["norm.weight"] + part["norm.bias"]
            now[level] = oracles.CELLS[kind](oracles.layer_weights(model, f"layers.{level}."), u, now[level])
            for leaf in now[level]:
                leaf.retain_grad()
            y = now[level][0] @ part["output.weight"].T + part["skip"] * u
            if block == "glu":
                value, gate = (nn.functional.gelu(y) @ part["mix.1.weight"].T + part["mix.1.bias"]).chunk(2, -1)
                stream = stream + value / (1 + torch.exp(-gate))
            else:
                inner = nn.functional.gelu(y @ part["mix.0.weight"].T + part["mix.0.bias"])
                stream = stream + inner @ part["mix.2.weight"].T + part["mix.2.bias"]
        history.append(list(now))
        found.append(stream @ named["readout.weight"].T + named["readout.bias"])
    return torch.stack(found), history


@kinds
@every
def test_predictions_and_gradients(kind: str, block: str) -> None:
    model, inputs, direction = make(kind, block), torch.randn(7, 3, 2), torch.randn(7, 3, 2)
    predictions, _, _ = model(inputs, model.initial_state(3))
    expected, _ = predictions_by_hand(kind, model, inputs, block)
    torch.testing.assert_close(predictions, expected, rtol=1e-10, atol=1e-12)
    got = oracles.gradients((predictions * direction).sum(), model)
    assert oracles.relative_error(got, oracles.gradients((expected * direction).sum(), model)) < 1e-10


@kinds
@every
def test_manual_bptt_through_the_stack(kind: str, block: str) -> None:
    """λ_t of every layer, from the gradient at the readout's inputs, past the layers as well as through them."""
    model, inputs, direction = make(kind, block, 3), torch.randn(6, 2, 2), torch.randn(6, 2, 2)
    predictions, history = predictions_by_hand(kind, model, inputs, block)
    (predictions * direction).sum().backward()
    with torch.no_grad():
        _, _, records = model(inputs, model.initial_state(2))
        found = model.gradients(records, direction @ model.get_parameter("readout.weight"))
    for level, layer in enumerate(found):
        expected = [torch.stack([now[level][k].grad for now in history]) for k in range(len(history[0][level]))]
        torch.testing.assert_close(leaves(layer.states.states), expected, rtol=1e-9, atol=1e-12)
        for name, gradient in layer.parameters.items():
            torch.testing.assert_close(gradient, model.layers[level].get_parameter(name).grad, rtol=1e-9, atol=1e-12)


@every
def test_manual_bptt_passes_the_dropout_masks(block: str) -> None:
    model, inputs, direction = make("gru", block, 3, dropout=0.4), torch.randn(6, 2, 2), torch.randn(6, 2, 2)
    predictions, _, records = model(inputs, model.initial_state(2))
    assert all(set(record.mask.unique().tolist()) == {0.0, 1 / 0.6} for record in records)
    torch.testing.assert_close(model.readout(model.top(records)), predictions)
    (predictions * direction).sum().backward()
    readout = model.get_parameter("readout.weight")
    for level, layer in enumerate(model.gradients(records, direction @ readout.detach())):
        for name, gradient in layer.parameters.items():
            torch.testing.assert_close(gradient, model.layers[level].get_parameter(name).grad, rtol=1e-9, atol=1e-12)


@every
def test_gradient_by_lag_is_that_of_a_batch_with_only_the_last_loss(block: str) -> None:
    """Checked by timestep and by lag, over one segment and over several."""
    model, batch = make("lstm", block, 3), random_batch(10, 3)
    last = torch.zeros(10, 3, dtype=torch.bool)
    last[8] = True
    until = torch.arange(10).unsqueeze(1).expand(-1, 3) <= 8
    every = exact_flows(model, loss, random_like(batch, until), model.initial_state(3), num_sequences=3)
    alone = exact_flows(model, loss, random_like(batch, last), model.initial_state(3), num_sequences=3)
    for one, other in zip(every, alone):
        for name, norms in one.by_lag.items():
            torch.testing.assert_close(norms, other.by_lag[name], rtol=1e-9, atol=1e-12)
            by_time = other.by_timestep[name][:9].flip(0)
            torch.testing.assert_close(norms[: len(by_time)], by_time, rtol=1e-9, atol=1e-12)


def random_like(batch: Any, mask: Tensor) -> Any:
    return type(batch)(batch.inputs, batch.targets, mask, None)


@every
def test_full_in_segments_is_plain_autograd(block: str) -> None:
    model, batch = make("lru", block), random_batch(9, 2)
    predictions, _, _ = model(batch.inputs, model.initial_state(2))
    expected = oracles.gradients(loss(predictions, batch), model)
    list(Full(4).updates(model, loss, batch, model.initial_state(2)))
    assert oracles.relative_error(oracles.grads(model), expected) < 1e-10


def test_gradients_by_lag_of_the_adaptive_estimator() -> None:
    """∂L_s/∂h_{s−k} from the readout's gradient at the residual stream."""
    model, window = make("gru", "glu", 2), random_batch(6, 2)
    found = gradients_by_lag(model, loss, window, model.initial_state(2))
    predictions, history = predictions_by_hand("gru", model, window.inputs, "glu")
    (predictions[-1] - window.targets[-1]).square().sum().backward()
    expected = torch.stack([torch.cat([state[0].grad for state in now], -1) for now in reversed(history)])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_the_stream_is_as_wide_as_the_embedding_and_by_default_as_the_state() -> None:
    assert make("gru", "glu").readout.in_features == 3
    assert make("gru", "glu", embedding_size=None).readout.in_features == 4


def test_what_does_not_work_with_blocks_is_refused() -> None:
    model, batch = make("elman", "glu"), random_batch(4, 2)
    with pytest.raises(ValueError, match=r"manual gradients need a model without residual blocks"):
        manual_gradients(model, loss, batch, model.initial_state(2))
    options: Any = {"input_size": 2, "output_size": 4, "hidden_size": 4, "block": "glu", "readout": "identity"}
    with pytest.raises(ValueError, match=r"readout must be linear with model.block, got 'identity'"):
        SequenceModel(Elman, **options)
    with pytest.raises(ValueError, match=r"block must be none or glu or mlp or norm or .*, got 'gru'"):
        SequenceModel(partial(Elman), **{**options, "block": "gru"})
