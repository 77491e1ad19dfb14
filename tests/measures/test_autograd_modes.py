"""Measures enable autograd themselves, and refuse torch.inference_mode, where it stays disabled."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bptt import measures
from bptt.estimators import Chunked
from bptt.layers import LRU, LSTM, Elman, Layer, Record
from bptt.model import SequenceModel
from bptt.tasks.base import Batch

pytestmark = pytest.mark.usefixtures("float64")
T, B, D, H = 8, 2, 3, 4


class Leaky(Layer):
    """A cell that is differentiated by autograd."""

    recurrent = ("drive.weight",)

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.drive = nn.Linear(input_size + hidden_size, hidden_size)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.drive.weight.new_zeros(batch_size, self.hidden_size)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        return 0.5 * state + 0.5 * torch.tanh(self.drive(torch.cat([input, state], -1)))


def squared(predictions: Tensor, batch: Batch) -> Tensor:
    return (predictions - batch.targets).square().mean()


def ones(record: Record) -> Tensor:
    return torch.ones_like(record.outputs)


OF_A_RECORD: dict[str, Callable[[Layer, Record], Any]] = {
    "adjoint": lambda layer, record: layer.adjoint(record, ones(record)).hidden,
    "gradients": lambda layer, record: layer.gradients(record, ones(record)).parameters,
    "singular values": measures.singular_values,
    "exponents": lambda layer, record: measures.lyapunov_exponents(layer, record, num_exponents=2),
    "flossing": lambda layer, record: measures.flossing(layer, record, num_exponents=2).detach(),
    "omega": lambda layer, record: measures.omega(
        layer, [record], [measures.Pass(0, [record], [ones(record)], [None], [None]).adjoint(0, layer)]
    ).detach(),
}
OF_A_BATCH: dict[str, Callable[[SequenceModel, Batch, Any], Any]] = {
    "manual gradients": lambda model, batch, state: measures.manual_gradients(model, squared, batch, state),
    "per-sequence gradients": lambda model, batch, state: measures.per_sequence_gradients(model, squared, batch, state),
    "exact flows": lambda model, batch, state: (
        measures.exact_flows(model, squared, batch, state, num_sequences=B)[0].by_timestep
    ),
    "truncation bias": lambda model, batch, state: (
        measures.truncation_bias(model, squared, batch, state, {2: Chunked(2)})[2].tensors
    ),
}
kinds = pytest.mark.parametrize("kind", [Leaky, Elman, LSTM, LRU])


def measure(model: SequenceModel, batch: Batch, name: str) -> Any:
    state = model.initial_state(B)
    if name in OF_A_BATCH:
        return OF_A_BATCH[name](model, batch, state)
    with torch.no_grad():
        _, _, (record,) = model(batch.inputs, state)
    return OF_A_RECORD[name](next(iter(model.levels)), record)


@kinds
@pytest.mark.parametrize("name", [*OF_A_RECORD, *OF_A_BATCH])
def test_numbers_are_right_or_refused_whatever_the_mode(kind: Any, name: str) -> None:
    model = SequenceModel(kind, input_size=D, output_size=2, hidden_size=H)
    batch = Batch(torch.randn(T, B, D), torch.randn(T, B, 2))
    expected = measure(model, batch, name)
    with torch.no_grad():
        torch.testing.assert_close(measure(model, batch, name), expected, rtol=0, atol=0)
    with torch.inference_mode():
        try:
            found = measure(model, batch, name)
        except ValueError as refused:
            message = str(refused)
            assert message.startswith("a gradient must be computed outside torch.inference_mode, got a call within it;")
            assert "\n" not in message
        else:  # a recursion or scan by hand
            torch.testing.assert_close(found, expected)
            assert kind is not Leaky
