"""Real-time recurrent learning."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from bptt.contracts import one_of
from bptt.estimators import diagonal_influence, sparse_influence
from bptt.estimators.diagonal_influence import States
from bptt.estimators.forward_mode import BoundedForwardMode
from bptt.estimators.sparse_influence import Sparse, find_pattern, pattern_in_time, pattern_of_layers
from bptt.estimators.transition import Joined, Linearised, Theta, Transition
from bptt.layers.diagonal import DiagonalLayer


class RTRL(BoundedForwardMode):
    """The exact gradient, forward in time (Williams & Zipser 1989): J_t = (∂s_t/∂s_{t−1}) J_{t−1} + (∂s_t/∂θ)_direct.

    J_t = ∂s_t/∂θ is the whole influence (B, S, P). Memory is O(B·S·P) for any T and time O(B·S²·P) a timestep, so it
    suits small networks. With frozen parameters, or `update` sequence, it equals full BPTT to rounding.

    With diagonal recurrences (`bptt.layers.diagonal`) only the numbers that can differ from 0 are carried: a parameter
    of a unit acts on that unit, and on all units of the layers above. For one layer that is P numbers a sequence
    instead of S·P (2 P for complex units), and the gradient is still exact. One layer, and several with `spatial`, are
    computed a stride at a time by scans (`diagonal_influence`), without the (S, S) Jacobian: long strides are faster.

    across_layers: `exact`, or `spatial` (Zucchet et al. 2023): a layer's parameters are credited within their own layer
        by its influence, and through the layers above within the same timestep alone; the parameters of the encoder and
        of residual blocks within the timestep alone. Biased with several layers: it drops what a layer's parameters do
        to the loss by way of the states that the layers above keep in time. Irie et al. (2024) discuss what that costs.
        Exact for the parameters of a single layer.
    max_entries: ValueError for an influence of more numbers.
    """

    def __init__(
        self,
        stride: int,
        *,
        update: Literal["chunk", "sequence"] = "chunk",
        across_layers: Literal["exact", "spatial"] = "exact",
        max_entries: int = 100_000_000,
    ):
        super().__init__(stride, update=update, max_entries=max_entries)
        one_of(("exact", "spatial"), across_layers=across_layers)
        self.across_layers = across_layers

    def begin(self, transition: Transition, initial: Joined) -> Any:
        diagonal = any(isinstance(layer, DiagonalLayer) for layer in transition.model.levels)
        if not diagonal and self.across_layers == "exact":
            self.check_size(transition, transition.num_states)
            return transition.initial_vjp(initial, transition.units())
        self.check_size(transition, 1)
        spatial = self.across_layers == "spatial"
        carried = transition.of_layers() if spatial else None
        if transition.diagonal and (spatial or len(transition.widths) == 1):
            pattern = find_pattern(transition, pattern_of_layers, carried=carried)
        else:
            pattern = find_pattern(transition, pattern_in_time, reach="layers", spatial=spatial, carried=carried)
        self.check_size(transition, pattern.num_rows)
        return sparse_influence.begin(transition, initial, pattern)

    def advance(self, steps: Linearised, influence: Any) -> Iterator[Any]:
        if isinstance(influence, Sparse):
            yield from sparse_influence.advance(steps, influence)
            return
        units = steps.transition.units()
        for group in steps.groups(len(units[0])):
            for direct, jacobian in zip(group.vjp(units.expand(len(group.before), -1, -1, -1)), group.jacobian()):
                influence = torch.baddbmm(direct, jacobian, influence)
                yield influence

    def accumulate(
        self, steps: Linearised, after: States, influence: Any, direct: States | None, *, last: bool = False
    ) -> tuple[Theta, Any]:
        if isinstance(influence, Sparse) and influence.pattern.within_layers:
            return diagonal_influence.accumulate(steps, after, influence, direct, last=last)
        return super().accumulate(steps, after, influence, direct, last=last)

    def restart(self, chosen: Bool[Tensor, " B"], begun: Any, influence: Any) -> Any:
        if isinstance(influence, Sparse):
            return influence.restarted(chosen, begun)
        return super().restart(chosen, begun, influence)

    def gradient(self, influence: Any, direct: Joined) -> Theta:
        if isinstance(influence, Sparse):
            return influence.gradient(direct)
        return torch.einsum("bs,bsp->p", direct, influence)
