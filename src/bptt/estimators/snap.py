"""Sparse n-step approximation of real-time recurrent learning, for n = 1."""

from bptt.estimators.sparse_forward_mode import SparseForwardMode
from bptt.estimators.sparse_influence import Pattern, find_pattern, pattern_in_time
from bptt.estimators.transition import Transition


class SnAp(SparseForwardMode):
    """SnAp-1 (Menick et al. 2021): RTRL that keeps only the influence that arises within one timestep.

    J_t = M ∘ [(∂s_t/∂s_{t−1}) J_{t−1}] + (∂s_t/∂θ)_direct,  with M the sparsity pattern of the direct term. In a layer
    the parameters of a unit act on that unit alone, so J takes memory O(B·P). The estimate contains what each unit
    keeps by itself, but nothing that units send each other: it is biased. With a diagonal recurrent matrix it is exact
    for Elman and GRU layers, but not for the LSTM: its output gate acts on h_t alone within a timestep, so what its
    parameters do to c_{t+1} by way of h_t is lost. The parameters of an encoder, or of a layer below another one, act
    on many units within a timestep. All of that is kept, at a cost closer to RTRL's.

    max_entries: ValueError for a direct term of more numbers.
    """

    def pattern(self, transition: Transition) -> Pattern:
        return find_pattern(transition, pattern_in_time)
