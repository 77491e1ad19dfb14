"""Forward mode with an influence that a sparsity pattern bounds."""

from abc import abstractmethod
from collections.abc import Iterator

from jaxtyping import Bool
from torch import Tensor

from bptt.estimators.forward_mode import BoundedForwardMode
from bptt.estimators.sparse_influence import Pattern, Sparse, advance, begin
from bptt.estimators.transition import Joined, Linearised, Theta, Transition


class SparseForwardMode(BoundedForwardMode):
    """Carries only the part of the influence that its pattern M allows.

    J_t = M ∘ [(∂s_t/∂s_{t−1}) J_{t−1}] + (∂s_t/∂θ)_direct
    """

    @abstractmethod
    def pattern(self, transition: Transition) -> Pattern:
        """The pattern M."""

    def begin(self, transition: Transition, initial: Joined) -> Sparse:
        self.check_size(transition, 1)
        pattern = self.pattern(transition)
        self.check_size(transition, pattern.num_rows)
        return begin(transition, initial, pattern)

    def advance(self, steps: Linearised, influence: Sparse) -> Iterator[Sparse]:
        return advance(steps, influence)

    def restart(self, chosen: Bool[Tensor, " B"], begun: Sparse, influence: Sparse) -> Sparse:
        return influence.restarted(chosen, begun)

    def gradient(self, influence: Sparse, direct: Joined) -> Theta:
        return influence.gradient(direct)
