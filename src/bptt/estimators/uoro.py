"""Unbiased online recurrent optimization."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bptt.contracts import valid_seed
from bptt.estimators.forward_mode import ForwardMode
from bptt.estimators.transition import Joined, Linearised, Theta, Transition
from bptt.layers.full_precision import promoted

EPSILON = 1e-7


class RankOne(NamedTuple):
    """s̃ (B, S) and θ̃ (B, P): their outer product estimates the influence of each sequence."""

    state: Joined
    theta: Float[Tensor, "B P"]


class UORO(ForwardMode):
    """An unbiased estimate of the gradient, forward in time, by rank-one influences (Tallec & Ollivier 2018).

    s̃_t = ρ0 (∂s_t/∂s_{t−1}) s̃_{t−1} + ρ1 ν  and  θ̃_t = θ̃_{t−1}/ρ0 + νᵀ(∂s_t/∂θ)_direct/ρ1,  with random signs ν (B, S).
    Then E[s̃_t θ̃_tᵀ] = ∂s_t/∂θ, so for frozen parameters the expected gradient is that of full BPTT. The variance grows
    with T and S; ρ0 and ρ1 reduce it by balancing the norms of s̃ and θ̃ of each sequence. Memory is O(B·P) for any T
    and time O(B·P) a timestep.

    seed: seed of the signs, which are the same in every process.
    """

    def __init__(self, stride: int, *, update: Literal["chunk", "sequence"] = "chunk", seed: int = 0):
        super().__init__(stride, update=update)
        valid_seed(seed=seed)
        self.generator = torch.Generator().manual_seed(seed)

    def begin(self, transition: Transition, initial: Joined) -> RankOne:
        signs = self._signs(initial)
        return RankOne(signs, transition.initial_vjp(initial, signs.unsqueeze(1)).squeeze(1))

    def advance(self, steps: Linearised, influence: RankOne) -> Iterator[RankOne]:
        for group in steps.groups(1):
            drawn = torch.stack([self._signs(before) for before in group.before])
            for t, pulled in enumerate(group.vjp(drawn.unsqueeze(2)).squeeze(2)):
                signs, pushed = drawn[t], group.jvp(t, influence.state)
                old, new = balance(influence.theta, pushed), balance(pulled, signs)
                influence = RankOne(old * pushed + new * signs, influence.theta.div_(old).addcdiv_(pulled, new))
                yield influence

    def gradient(self, influence: RankOne, direct: Joined) -> Theta:
        return (direct * influence.state).sum(1) @ influence.theta

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.generator.set_state(state_dict["generator"])

    def _signs(self, state: Joined) -> Joined:
        return torch.randint(2, state.shape, generator=self.generator).to(promoted(state)) * 2 - 1


def balance(theta: Float[Tensor, "B P"], state: Joined) -> Float[Tensor, "B 1"]:
    """ρ = √(‖θ̃‖/‖s̃‖), which gives ρ s̃ and θ̃/ρ equal norms; EPSILON keeps it away from 0 and ∞."""
    theta_norm, state_norm = (part.norm(dim=1, keepdim=True) for part in (theta, state))
    return (theta_norm / (state_norm + EPSILON)).sqrt() + EPSILON
