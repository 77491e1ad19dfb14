"""Models and masked batches that gradient estimators are tried on."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from bptt.layers import Layer
from bptt.model import SequenceModel
from bptt.tasks import Batch
from support.fixed_batches import FixedBatches, random_batch
from support.layer_kinds import KINDS as KINDS

MASKS = ("none", "random", "last", "one", "holes", "early", "lengths")
masks = st.sampled_from(MASKS)
loss = FixedBatches([random_batch(1, 1)]).loss  # the mean squared error inside the mask, as any task reduces it


def make_model(kind: str, num_layers: int = 1, *, learnt: bool = False, **options: Any) -> SequenceModel:
    model = SequenceModel(
        KINDS[kind],
        input_size=2,
        output_size=2,
        hidden_size=4,
        num_layers=num_layers,
        learnt_initial_state=learnt,
        **options,
    )
    if model.initial is not None:
        for parameter in model.initial:
            nn.init.normal_(parameter)
    return model


def make_mask(pattern: str, timesteps: int, batch_size: int, chunk_size: int) -> Tensor | None:
    """Which timesteps have a loss; always one at least.

    random: half of them. last: the last timestep only. one: one timestep of one sequence. holes: every second chunk has
    none. early: none in the later half. lengths: each sequence ends at a time of its own.
    """
    if pattern == "none":
        return None
    time = torch.arange(timesteps).unsqueeze(1)
    some = torch.rand(timesteps, batch_size) < 0.5
    one = torch.zeros(timesteps, batch_size, dtype=torch.bool)
    one[torch.randint(timesteps, ()), torch.randint(batch_size, ())] = True
    first = (time == 0) & torch.ones(batch_size, dtype=torch.bool)
    return {
        "random": some | one,
        "last": (time == timesteps - 1).expand(-1, batch_size),
        "one": one,
        "holes": (some & (time // chunk_size % 2 == 1)) | (first if timesteps <= chunk_size else time == chunk_size),
        "early": (some & (time < timesteps // 2)) | first,
        "lengths": time <= torch.randint(timesteps, (batch_size,)),
    }[pattern]


def masked_batch(pattern: str, timesteps: int, batch_size: int, chunk_size: int) -> Batch:
    return random_batch(timesteps, batch_size, mask=make_mask(pattern, timesteps, batch_size, chunk_size))


class TwoSpeeds(Layer):
    """h_t = tanh(x_t W + p_{t-1}), p_t = (p_{t-1} + h_t)/2, beside a clock q that no loss sees."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight = nn.Parameter(torch.randn(input_size, hidden_size))

    def initial_state(self, batch_size: int) -> Any:
        zeros = self.weight.new_zeros(batch_size, self.hidden_size)
        return zeros, (zeros, zeros)

    def step(self, input: Tensor, state: Any) -> Any:
        _, (p, q) = state
        h = torch.tanh(input @ self.weight + p)
        return h, ((p + h) / 2, q + 1)
