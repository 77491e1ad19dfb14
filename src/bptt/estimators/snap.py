"""Sparse n-step approximation of real-time recurrent learning, for n = 1."""

from collections.abc import Iterator
from typing import Literal

from jaxtyping import Bool
from torch import Tensor

from bptt.contracts import at_least
from bptt.estimators.forward_mode import ForwardMode, Joined, Linearised, Theta, Transition, check_size
from bptt.estimators.sparse_influence import Sparse, advance, begin, find_pattern


class SnAp(ForwardMode):
    """SnAp-1 (Menick et al. 2021): RTRL that keeps only the influence that arises within one timestep.

    J_t = M ∘ [(∂s_t/∂s_{t−1}) J_{t−1}] + (∂s_t/∂θ)_direct,  with M the sparsity pattern of the direct term. In a layer
    the parameters of a unit act on that unit alone, so J takes memory O(B·P). The estimate contains what each unit
    keeps by itself, but nothing that units send each other: it is biased. With a diagonal recurrent matrix it is exact
    for Elman and GRU layers, but not for the LSTM: its output gate acts on h_t alone within a timestep, so what its
    parameters do to c_{t+1} by way of h_t is lost. The parameters of an encoder, or of a layer below another one, act
    on many units within a timestep. All of that is kept, at a cost closer to RTRL's.

    max_entries: a ValueError refuses a direct term of more numbers.
    """

    def __init__(self, stride: int, *, update: Literal["chunk", "sequence"] = "chunk", max_entries: int = 100_000_000):
        super().__init__(stride, update=update)
        at_least(1, max_entries=max_entries)
        self.max_entries = max_entries

    def begin(self, transition: Transition, initial: Joined) -> Sparse:
        check_size(self.max_entries, transition, 1)
        pattern = find_pattern(transition)
        check_size(self.max_entries, transition, len(pattern.sums))
        return begin(transition, initial, pattern)

    def advance(self, steps: Linearised, influence: Sparse) -> Iterator[Sparse]:
        return advance(steps, influence)

    def restart(self, chosen: Bool[Tensor, " B"], begun: Sparse, influence: Sparse) -> Sparse:
        return influence.restarted(chosen, begun)

    def gradient(self, influence: Sparse, direct: Joined) -> Theta:
        return influence.gradient(direct)
