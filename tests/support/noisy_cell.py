"""A cell with a dropout and noise of its own in training."""

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
