"""Eligibility propagation."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bptt.contracts import one_of, valid_seed
from bptt.estimators.sparse_forward_mode import SparseForwardMode
from bptt.estimators.sparse_influence import Pattern, find_pattern, pattern_in_time
from bptt.estimators.transition import Transition
from bptt.tasks.base import Batch, Loss


class EProp(SparseForwardMode):
    """Eligibility traces within each unit, times a learning signal from the readout (Bellec et al. 2020).

    ε_t = (∂s_t/∂s_{t−1})_unit ε_{t−1} + (∂s_t/∂θ)_direct  and  dL/dθ ≈ Σ_t (∂L_t/∂h_t) (∂h_t/∂s_t) ε_t

    The trace ε of a parameter follows the state s of the unit that the parameter belongs to; its derivative
    (∂s_t/∂s_{t−1})_unit has no path through recurrent weights, neither to other units nor to the unit itself:
        LSTM:     ε^c_t = f_t ε^c_{t−1} + ∂c_t/∂θ,  with h_t = o_t ∘ tanh(c_t)
        GRU:      ε_t = z_t ε_{t−1} + ∂h_t/∂θ
        Elman:    ε_t = ∂h_t/∂θ, which has no memory
        diagonal: ε_t = a_t ε_{t−1} + ∂h_t/∂θ, which is RTRL: for one such layer the gradient is exact
    Biased otherwise: it drops what a unit's output does to later timesteps through recurrent weights. With several
    layers it also drops what a layer does to the later states of the layers above, as `spatial` RTRL does. Memory and
    time are O(B·P) a timestep for one layer without an encoder, and more for parameters that act on many units within
    a timestep.

    Raises ValueError for a cell of one's own whose state is h alone and that does not define `step_within_units`.

    feedback: the learning signal ∂L_t/∂h_t of the last layer is the error ∂L_t/∂y_t times the readout's transposed
        weights (`readout`, "symmetric e-prop"), or times a fixed random matrix (H, V) (`random`). In both cases the
        layers below receive it through the layers above, within the timestep. With residual blocks the matrix, (W, V),
        is that of the residual stream which the readout reads, and blocks and encoder receive it, too.
    seed: seed of the random matrix, which is the same in every process.
    max_entries: ValueError for traces of more numbers.
    """

    equations = "step_within_units"

    def __init__(
        self,
        stride: int,
        *,
        update: Literal["chunk", "sequence"] = "chunk",
        feedback: Literal["readout", "random"] = "readout",
        seed: int = 0,
        max_entries: int = 100_000_000,
    ):
        super().__init__(stride, update=update, max_entries=max_entries)
        one_of(("readout", "random"), feedback=feedback)
        valid_seed(seed=seed)
        self.feedback = feedback
        self.seed = seed

    def pattern(self, transition: Transition) -> Pattern:
        return find_pattern(transition, pattern_in_time, reach="units", spatial=True)

    def mean_loss(self, loss: Loss, chunk: Batch, transition: Transition, top: Float[Tensor, "T B W"]) -> Tensor:
        if self.feedback == "readout":
            return super().mean_loss(loss, chunk, transition, top)
        predictions = transition.predictions(top.detach().requires_grad_())  # also if the readout is not trained
        error = loss(predictions, chunk)
        (at_predictions,) = torch.autograd.grad(error, predictions, retain_graph=True)
        signal = at_predictions.to(top) @ feedback_matrix(top.shape[-1], predictions.shape[-1], self.seed).to(top).T
        return error + ((top - top.detach()) * signal).sum()  # a term of 0 with the gradient `signal` at `top`


def feedback_matrix(hidden_size: int, output_size: int, seed: int) -> Float[Tensor, "H V"]:
    """A random matrix in place of the readout's transposed weights, uniform in ±1/√H like these at initialisation."""
    draws = torch.rand(hidden_size, output_size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * draws - 1) / math.sqrt(hidden_size)
