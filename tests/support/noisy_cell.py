"""Cells with a dropout and noise of their own in training, with buffers that change, and with inputs of one kind."""

import torch
from torch import Tensor, nn

from bptt.layers import Layer


class Noisy(Layer):
    """h_t = dropout(tanh(W [x_t, h_{t−1}] + b)) + ε_t, with ε_t in training alone."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.drive = nn.Linear(input_size + hidden_size, hidden_size)
        self.dropout = nn.Dropout(0.2)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.drive.weight.new_zeros(batch_size, self.hidden_size)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        after: Tensor = self.dropout(torch.tanh(self.drive(torch.cat([input, state], -1))))
        return after + 0.1 * torch.randn_like(after) if self.training else after


class Normalised(Layer):
    """h_t = tanh(batch_norm(W [x_t, h_{t−1}] + b) / (1 + .01 n)), where n counts timesteps of training if `counts`."""

    def __init__(self, input_size: int, hidden_size: int, *, counts: bool = False):
        super().__init__(input_size, hidden_size)
        self.drive = nn.Linear(input_size + hidden_size, hidden_size)
        self.norm = nn.BatchNorm1d(hidden_size)
        self.counts = counts
        self.register_buffer("count", torch.zeros(()))
        self.count: Tensor

    def initial_state(self, batch_size: int) -> Tensor:
        return self.drive.weight.new_zeros(batch_size, self.hidden_size)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        factor = 1 + 0.01 * self.count
        if self.training and self.counts:
            self.count = self.count + 1
        return torch.tanh(self.norm(self.drive(torch.cat([input, state], -1))) / factor)


class Lazy(Normalised):
    """h_t = tanh(W [x_t, h_{t−1}] + b) ∘ m of inputs 0 and 1; m and the last state have the size of the batch."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.register_buffer("mask", None)
        self.register_buffer("last", torch.zeros(1, hidden_size))
        self.mask: Tensor | None
        self.last: Tensor

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        if not bool(((input == 0) | (input == 1)).all()):
            raise ValueError("inputs must be 0 or 1")
        if self.mask is None or len(self.mask) != len(input):
            self.mask = torch.ones(len(input), 1)
        after = torch.tanh(self.drive(torch.cat([input, state], -1))) * self.mask
        self.last = after.detach()
        return after
