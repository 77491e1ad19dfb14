"""Forward mode with an influence that a sparsity pattern bounds."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal

from jaxtyping import Bool
from torch import Tensor

from bptt.contracts import at_least
from bptt.estimators.forward_mode import ForwardMode, check_size
from bptt.estimators.sparse_influence import Pattern, Sparse, advance, begin
from bptt.estimators.transition import Joined, Linearised, Theta, Transition
from bptt.layers.full_precision import full_precision_no_grad
from bptt.model import SequenceModel


class SparseForwardMode(ForwardMode):
    """Carries only the part of the influence that its pattern M allows.

    J_t = M ∘ [(∂s_t/∂s_{t−1}) J_{t−1}] + (∂s_t/∂θ)_direct

    max_entries: ValueError for an influence of more numbers.
    """

    def __init__(self, stride: int, *, update: Literal["chunk", "sequence"] = "chunk", max_entries: int = 100_000_000):
        super().__init__(stride, update=update)
        at_least(1, max_entries=max_entries)
        self.max_entries = max_entries

    @abstractmethod
    def pattern(self, transition: Transition) -> Pattern:
        """The pattern M."""

    def check(self, model: SequenceModel, batch_size: int) -> None:
        super().check(model, batch_size)
        transition = Transition(model, model.initial_state(batch_size))
        with full_precision_no_grad(transition.initial):
            self.begin(transition, transition.initial)

    def begin(self, transition: Transition, initial: Joined) -> Sparse:
        check_size(self.max_entries, transition, 1)
        pattern = self.pattern(transition)
        check_size(self.max_entries, transition, pattern.num_rows)
        return begin(transition, initial, pattern)

    def advance(self, steps: Linearised, influence: Sparse) -> Iterator[Sparse]:
        return advance(steps, influence)

    def restart(self, chosen: Bool[Tensor, " B"], begun: Sparse, influence: Sparse) -> Sparse:
        return influence.restarted(chosen, begun)

    def gradient(self, influence: Sparse, direct: Joined) -> Theta:
        return influence.gradient(direct)
