"""Residual blocks around recurrent layers, for deep stacks of them."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bptt.contracts import one_of
from bptt.layers.base import vjp
from bptt.layers.full_precision import full_precision_no_grad, promoted, with_graph

Stream = Float[Tensor, "*T B W"]
Kind = Literal["glu", "mlp", "norm", "residual", "norm_residual"]
NARROW = ("norm", "residual", "norm_residual")  # without maps of their own, so that W = H


class Block(nn.Module):
    """One level around its recurrent layer, on a stream x (T, B, W), without mixing timesteps.

    u = LayerNorm(x),  h = layer(u),  y = C h + D ∘ u,  x ← x + dropout(F(y))

    kind: `glu` has F(y) = (P v + p) ∘ σ(Q v + q) with v = GELU(y), as Orvieto et al. (2023) have around the LRU.
        `mlp` has F(y) = P₂ GELU(P₁ y + p₁) + p₂ with 2W hidden units.
        The others have h in place of F(y), with W = H. `norm_residual`: x ← x + dropout(h). `residual` is the same
        without the norm, u = x. `norm` is without the residual connection, x ← dropout(h): layer norm before each layer
        (Ba, Kiros & Hinton 2016, who put it inside the cell).
    """

    def __init__(self, width: int, hidden_size: int, *, kind: Kind):
        one_of(("glu", "mlp", *NARROW), kind=kind)
        super().__init__()
        self.residual = kind != "norm"
        self.norm = nn.Identity() if kind == "residual" else nn.LayerNorm(width)
        self.mix: nn.Sequential | None = None
        if kind in NARROW:
            assert width == hidden_size
            return
        self.output = nn.Linear(hidden_size, width, bias=False)  # C
        self.skip = nn.Parameter(torch.randn(width))  # D
        wide = nn.Linear(width, 2 * width)
        if kind == "glu":
            self.mix = nn.Sequential(nn.GELU(), wide, nn.GLU())
        else:
            self.mix = nn.Sequential(wide, nn.GELU(), nn.Linear(2 * width, width))

    def branch(self, inputs: Stream, outputs: Float[Tensor, "*T B H"]) -> Stream:
        """F(C h + D ∘ u) for the layer's inputs u and outputs h; h itself without maps."""
        if self.mix is None:
            return outputs
        mixed: Tensor = self.mix(self.output(outputs) + self.skip * inputs)
        return mixed


def time_local_vjp(function: Callable[..., Tensor], inputs: list[Tensor], cotangent: Tensor) -> list[Tensor]:
    """Vector-Jacobian product of a function that does not mix timesteps, in at least float32."""
    with full_precision_no_grad(cotangent):
        leaves = [promoted(each).requires_grad_() for each in inputs]
        with with_graph():
            output = function(*leaves)
        return vjp([output], leaves, [promoted(cotangent)])
