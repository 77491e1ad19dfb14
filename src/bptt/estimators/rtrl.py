"""Real-time recurrent learning."""

from collections.abc import Iterator
from math import ceil
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bptt.contracts import at_least, one_of
from bptt.estimators import sparse_influence
from bptt.estimators.forward_mode import ForwardMode, Joined, Linearised, Theta, Transition, check_size
from bptt.estimators.sparse_influence import Sparse, find_pattern
from bptt.layers.diagonal import DiagonalLayer
from bptt.model import SequenceModel
from bptt.shapes import leaves

Dense = Float[Tensor, "B S P"]


class Reachable(NamedTuple):
    """Influence on the states that a parameter can reach, and which of them pass it on in time: (G, N) a block."""

    influence: Sparse
    kept: list[Tensor]


class RTRL(ForwardMode):
    """The exact gradient, forward in time (Williams & Zipser 1989): J_t = (∂s_t/∂s_{t−1}) J_{t−1} + (∂s_t/∂θ)_direct.

    J_t = ∂s_t/∂θ is the whole influence (B, S, P). Memory is O(B·S·P) for any T and time O(B·S²·P) a timestep, so it
    suits small networks. With frozen parameters, or `update` sequence, it equals full BPTT to rounding.

    With diagonal recurrences (`bptt.layers.diagonal`) only the numbers that can differ from 0 are carried: a parameter
    of a unit acts on that unit, and on all units of the layers above. For one layer that is P numbers a sequence
    instead of S·P (2 P for complex units), and the gradient is still exact.

    across_layers: `exact`, or `spatial` (Zucchet et al. 2023): a layer's parameters are credited within their own layer
        by its influence, and through the layers above within the same timestep alone. Biased with several layers: it
        drops what a layer's parameters do to the loss by way of the states that the layers above keep in time. Irie et
        al. (2024) discuss what that costs. Exact with one layer.
    max_entries: a ValueError refuses an influence of more numbers.
    """

    def __init__(
        self,
        stride: int,
        *,
        update: Literal["chunk", "sequence"] = "chunk",
        across_layers: Literal["exact", "spatial"] = "exact",
        max_entries: int = 100_000_000,
    ):
        super().__init__(stride, update=update)
        one_of(("exact", "spatial"), across_layers=across_layers)
        at_least(1, max_entries=max_entries)
        self.across_layers = across_layers
        self.max_entries = max_entries

    def begin(self, transition: Transition, initial: Joined) -> Any:
        diagonal = any(isinstance(layer, DiagonalLayer) for layer in transition.model.levels)
        if not diagonal and self.across_layers == "exact":
            check_size(self.max_entries, transition, transition.num_states)
            return transition.initial_vjp(initial, transition.units())
        check_size(self.max_entries, transition, 1)
        levels = level_of_states(transition)
        pattern = find_pattern(transition, reachable_states(transition.model, levels))
        numbers = sum(block.states.numel() * block.parameters.shape[1] for block in pattern.blocks)
        check_size(self.max_entries, transition, max(len(pattern.sums), ceil(numbers / transition.num_parameters)))
        kept = [torch.ones_like(block.states) for block in pattern.blocks]
        if self.across_layers == "spatial":
            own = [levels[block.states] for block in pattern.blocks]
            kept = [(each == each.min(1, keepdim=True).values).long() for each in own]
        return Reachable(
            sparse_influence.begin(transition, initial, pattern), [each.to(transition.theta()) for each in kept]
        )

    def advance(self, steps: Linearised, influence: Any) -> Iterator[Any]:
        if isinstance(influence, Reachable):
            for moved in sparse_influence.advance(steps, influence.influence, influence.kept):
                yield influence._replace(influence=moved)
            return
        units = steps.transition.units()
        for group in steps.groups(len(units[0])):
            for direct, jacobian in zip(group.vjp(units.expand(len(group.before), -1, -1, -1)), group.jacobian()):
                influence = torch.baddbmm(direct, jacobian, influence)
                yield influence

    def restart(self, chosen: Bool[Tensor, " B"], begun: Any, influence: Any) -> Any:
        if isinstance(influence, Reachable):
            return influence._replace(influence=influence.influence.restarted(chosen, begun.influence))
        return super().restart(chosen, begun, influence)

    def gradient(self, influence: Any, direct: Joined) -> Theta:
        if isinstance(influence, Reachable):
            return influence.influence.gradient(direct)
        return torch.einsum("bs,bsp->p", direct, influence)


def level_of_states(transition: Transition) -> Tensor:
    """The layer, counted from the input, that each number of the joined state belongs to, (S,)."""
    sizes = [sum(leaf[0].numel() for leaf in leaves(state)) for state in transition.given]
    return torch.repeat_interleave(torch.tensor(sizes)).to(transition.initial.device)


def reachable_states(model: SequenceModel, levels: Tensor) -> Bool[Tensor, "S S"]:
    """True where the state of the row can be reached from that of the column, now or later.

    From a state of a diagonal layer: its own unit; of another layer: the whole layer; and all layers above.
    """
    reachable = levels.unsqueeze(1) > levels
    for level, layer in enumerate(model.levels):
        (own,) = (levels == level).nonzero(as_tuple=True)
        within = torch.ones(len(own), len(own), dtype=torch.bool, device=levels.device)
        if isinstance(layer, DiagonalLayer):
            unit = torch.arange(len(own), device=levels.device) // (2 if layer.complex_units else 1)
            within = unit.unsqueeze(1) == unit
        reachable[own.unsqueeze(1), own] = within
    return reachable
