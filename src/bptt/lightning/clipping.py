"""Gradient clipping."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import nn

from bptt.contracts import between, one_of
from bptt.measures.norms import clip_norm


class Clipping(NamedTuple):
    """Gradient clipping before each update: `norm` of all gradients together, each `value` on its own, or `none`."""

    algorithm: Literal["norm", "value", "none"] = "none"
    max: float = 1.0

    def check(self) -> None:
        """ValueError for another algorithm, or a limit that is not above 0."""
        algorithm: dict[str, Any] = {"clipping.algorithm": self.algorithm}
        maximum: dict[str, Any] = {"clipping.max": self.max}
        one_of(("norm", "value", "none"), **algorithm)
        between(0, float("inf"), open_low=True, **maximum)

    def clip(self, parameters: Sequence[nn.Parameter]) -> None:
        """Clip the gradients in place. They must be unscaled (float16)."""
        if self.algorithm == "norm":  # Lightning's norm overflows above 1.8e19
            clip_norm(parameters, self.max)
        elif self.algorithm == "value":
            nn.utils.clip_grad_value_(parameters, self.max)
