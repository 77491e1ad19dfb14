"""Random feedback local online learning."""

from typing import Literal

from bptt.estimators.eprop import EProp


class RFLO(EProp):
    """Traces with each unit's leak, times an error that returns through fixed random weights (Murray 2019).

    p_ij(t) = leak_i p_ij(t−1) + φ′(a_i) h_j(t−1)  and  ΔW_ij ∝ −Σ_t [B ∂L_t/∂y_t]_i p_ij(t)

    Murray's units h_t = (1 − 1/τ) h_{t−1} + (1/τ) φ(a_t) have the leak 1 − 1/τ. Here the leak is the derivative of a
    unit's state with respect to itself without the recurrent weights: 0 for Elman, whose traces then have no memory;
    z_t for the GRU; f_t for the cell of the LSTM; a_t for a diagonal layer. The traces are those of `EProp` (its
    `feedback=random` is this estimator), and so are the dropped paths. B does not depend on the readout's weights V,
    so the estimate is biased even where the traces are exact. Murray shows that training aligns Vᵀ with B. The
    readout's own gradient is exact.

    seed: seed of B, which is the same in every process. max_entries: ValueError for traces of more numbers.
    """

    def __init__(
        self,
        stride: int,
        *,
        update: Literal["chunk", "sequence"] = "chunk",
        seed: int = 0,
        max_entries: int = 100_000_000,
    ):
        super().__init__(stride, update=update, feedback="random", seed=seed, max_entries=max_entries)
