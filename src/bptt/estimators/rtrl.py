"""Real-time recurrent learning."""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bptt.contracts import at_least
from bptt.estimators.forward_mode import ForwardMode, Joined, Linearised, Theta, Transition, check_size

Influence = Float[Tensor, "B S P"]


class RTRL(ForwardMode):
    """The exact gradient, forward in time (Williams & Zipser 1989): J_t = (∂s_t/∂s_{t−1}) J_{t−1} + (∂s_t/∂θ)_direct.

    J_t = ∂s_t/∂θ is the whole influence (B, S, P). Memory is O(B·S·P) for any T and time O(B·S²·P) a timestep, so it
    suits small networks. With frozen parameters, or `update` sequence, it equals full BPTT to rounding.

    max_entries: a ValueError refuses an influence of more numbers.
    """

    def __init__(self, stride: int, *, update: Literal["chunk", "sequence"] = "chunk", max_entries: int = 100_000_000):
        super().__init__(stride, update=update)
        at_least(1, max_entries=max_entries)
        self.max_entries = max_entries

    def begin(self, transition: Transition, initial: Joined) -> Influence:
        check_size(self.max_entries, transition, transition.num_states)
        return transition.initial_vjp(initial, transition.units())

    def advance(self, steps: Linearised, influence: Influence) -> Iterator[Influence]:
        units = steps.transition.units()
        for group in steps.groups(len(units[0])):
            for direct, jacobian in zip(group.vjp(units.expand(len(group.before), -1, -1, -1)), group.jacobian()):
                influence = torch.baddbmm(direct, jacobian, influence)
                yield influence

    def gradient(self, influence: Influence, direct: Joined) -> Theta:
        return torch.einsum("bs,bsp->p", direct, influence)
