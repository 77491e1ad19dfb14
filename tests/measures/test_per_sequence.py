"""The gradient of every sequence, against a backward pass for each of them."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.masked_batches import TwoSpeeds, loss, masked_batch, masks

from bptt.layers import GRU, LRU, LSTM, Elman, MinGRU
from bptt.measures import per_sequence_gradients
from bptt.model import SequenceModel
from bptt.tasks import Batch

pytestmark = pytest.mark.usefixtures("float64")
LAYERS: dict[str, Any] = {"elman": Elman, "gru": GRU, "lstm": LSTM, "lru": LRU, "mingru": MinGRU, "own": TwoSpeeds}


@given(
    kind=st.sampled_from(list(LAYERS)),
    num_layers=st.integers(1, 2),
    embedding_size=st.sampled_from([None, 3]),
    length=st.integers(1, 7),
    pattern=masks,
    with_reset=st.booleans(),
    number=st.integers(0, 10**6),
)
def test_they_are_those_of_separate_backward_passes(
    kind: str, num_layers: int, embedding_size: int | None, length: int, pattern: str, with_reset: bool, number: int
) -> None:
    torch.manual_seed(number)
    model = SequenceModel(
        LAYERS[kind],
        input_size=2,
        output_size=2,
        hidden_size=4,
        num_layers=num_layers,
        embedding_size=embedding_size,
    )
    batch = masked_batch(pattern, length, 3, 3)
    if with_reset:
        batch.reset = torch.rand(length, 3) < 0.3
    state = model.initial_state(3)
    found = per_sequence_gradients(model, loss, batch, state)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all(parameter.grad is None for parameter in model.parameters())
    mask = torch.ones(length, 3, dtype=torch.bool) if batch.mask is None else batch.mask
    for index in range(3):
        predictions, _, _ = model(batch.inputs, state, batch.resets)
        own = mask & (torch.arange(3) == index)
        alone = Batch(batch.inputs, batch.targets, own)
        share = own.sum() / mask.sum()
        objective = loss(predictions, alone) * share if share else 0 * predictions.sum()
        truth = torch.autograd.grad(objective, list(model.parameters()), materialize_grads=True)
        for (name, got), expected in zip(
            found.items(), (dict(zip(dict(model.named_parameters()), truth))[n] for n in found)
        ):
            torch.testing.assert_close(got[index], expected, rtol=1e-10, atol=1e-12, msg=name)


def test_residual_blocks_are_refused() -> None:
    model = SequenceModel(GRU, input_size=3, output_size=2, hidden_size=4, block="glu")
    batch = masked_batch("none", 3, 2, 3)
    with pytest.raises(ValueError, match="per-sequence gradients need a model without residual blocks"):
        per_sequence_gradients(model, loss, batch, model.initial_state(2))
