"""Layers whose passes in training cannot be computed again, as with a dropout or a counter of their own in `step`.

BPTT through their forward pass has the values of that pass. All that calls `step` again would have others.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import nn

from bptt.buffers import buffers, differ
from bptt.layers.adapter import Adapter
from bptt.layers.base import Layer
from bptt.random_state import random_state, restore_random_state
from bptt.shapes import Features, leaves

SIZE = 2  # timesteps and sequences of the trial


def repeats(layer: Layer) -> bool:
    """True if a second pass in training mode has the values of the first one, and neither draws random numbers.

    True also for a layer that raises an error for the inputs of this trial, which are 0 and 1.
    """
    if is_ours(layer):
        return True
    with tried(layer) as (twin, inputs), torch.no_grad(), suppress(Exception):  # a cell may refuse these inputs
        state, before = twin.initial_state(SIZE), random_state(inputs.device)
        (first, last), (again, end) = twin(inputs, state), twin(inputs, state)
        after = random_state(inputs.device)
        pairs = zip([first, *leaves(last)], [again, *leaves(end)])
        same = all(torch.allclose(one, other, rtol=1e-5, atol=1e-7, equal_nan=True) for one, other in pairs)
        return same and all(torch.equal(before[name], after[name]) for name in before)
    return True


def changes_buffers(layer: Layer) -> bool:
    """True if a pass in training mode changes buffers, such as the running mean of a batch normalisation."""
    if is_ours(layer):
        return False
    with tried(layer) as (twin, inputs), torch.no_grad(), suppress(Exception):
        before = buffers(twin)
        twin(inputs, twin.initial_state(SIZE))
        return differ(before, buffers(twin))
    return False


def is_ours(layer: Layer) -> bool:
    """True for the layers of this package, which repeat."""
    return type(layer).__module__.startswith("bptt.layers.") and not isinstance(layer, Adapter)


@contextmanager
def tried(layer: Layer) -> Iterator[tuple[Layer, Features]]:
    """A copy in training mode, and one-hot inputs for it. After the block torch's random state is as it was."""
    example = next(layer.parameters(), torch.empty(0))
    before = random_state(example.device)
    ones = torch.eye(max(2, layer.input_size), layer.input_size).to(example.device, example.real.dtype)
    times = torch.arange(SIZE)
    try:
        yield copy.deepcopy(layer).train(), ones[(times[:, None] + times) % len(ones)]
    finally:
        restore_random_state(before, example.device)


def silence(layer: Layer) -> None:
    """Let a layer draw no random numbers: it goes to evaluation mode.

    Kernels of torch, which on CUDA have a backward pass in training mode alone, lose their dropout instead.
    """
    for module in layer.modules():
        if isinstance(module, nn.RNNBase):
            module.dropout = 0.0
        else:
            module.training = False
