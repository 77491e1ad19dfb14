"""Layers that draw random numbers of their own in training, as for a dropout within `step`.

BPTT through their forward pass has the numbers that were drawn. All that calls `step` again would draw others.
"""

import copy

import torch
from torch import nn

from bptt.layers.adapter import Adapter
from bptt.layers.base import Layer
from bptt.random_state import random_state, restore_random_state

SIZE = 2  # timesteps and sequences of the trial


def draws_random_numbers(layer: Layer) -> bool:
    """True if a pass in training mode draws random numbers. Leaves the layer and torch's random state as they are."""
    if type(layer).__module__.startswith("bptt.layers.") and not isinstance(layer, Adapter):
        return False
    example = next(layer.parameters(), torch.empty(0))
    before = random_state(example.device)
    try:
        twin = copy.deepcopy(layer).train()
        with torch.no_grad():
            twin(example.new_ones(SIZE, SIZE, layer.input_size), twin.initial_state(SIZE))
        after = random_state(example.device)
    finally:
        restore_random_state(before, example.device)
    return not all(torch.equal(before[name], after[name]) for name in before)


def silence(layer: Layer) -> None:
    """Let a layer draw no random numbers, by evaluation mode; on CUDA torch's kernels must stay in training mode."""
    for module in layer.modules():
        if isinstance(module, nn.RNNBase):
            module.dropout = 0.0
        else:
            module.training = False
