"""Residual blocks around recurrent layers, for deep stacks of them."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bptt.contracts import one_of
from bptt.shapes import Outputs

Stream = Float[Tensor, "T B W"]
Kind = Literal["glu", "mlp"]


class Block(nn.Module):
    """One level around its recurrent layer, on a residual stream x (T, B, W), without mixing timesteps.

    u = LayerNorm(x),  h = layer(u),  y = C h + D ∘ u,  x ← x + dropout(F(y))

    kind: `glu` has F(y) = (P v + p) ∘ σ(Q v + q) with v = GELU(y), as Orvieto et al. (2023) have around the LRU.
        `mlp` has F(y) = P₂ GELU(P₁ y + p₁) + p₂ with 2W hidden units.
    """

    def __init__(self, width: int, hidden_size: int, *, kind: Kind):
        one_of(("glu", "mlp"), kind=kind)
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(hidden_size, width, bias=False)  # C
        self.skip = nn.Parameter(torch.randn(width))  # D
        wide = nn.Linear(width, 2 * width)
        if kind == "glu":
            self.mix = nn.Sequential(nn.GELU(), wide, nn.GLU())
        else:
            self.mix = nn.Sequential(wide, nn.GELU(), nn.Linear(2 * width, width))

    def branch(self, inputs: Stream, outputs: Outputs) -> Stream:
        """F(C h + D ∘ u) for the layer's inputs u and outputs h."""
        mixed: Tensor = self.mix(self.output(outputs) + self.skip * inputs)
        return mixed
