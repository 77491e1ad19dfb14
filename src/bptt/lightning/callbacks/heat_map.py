"""Columns of a heat map over training."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

MAX_COLUMNS = 128


class HeatMap:
    """Curves by name, one column for each `stride`-th look. Memory is bounded.

    When there are more than `MAX_COLUMNS`, every second column is dropped and the stride is doubled.

    progress: x-coordinates of the columns. history: columns by name. stride: looks from one column to the next.
    """

    def __init__(self) -> None:
        self.stride = 1
        self.progress: list[int] = []
        self.history: dict[str, list[Tensor]] = {}

    def add(self, curves: Mapping[str, Tensor], *, look: int, step: int) -> None:
        """Add one column if `look`, counted from 0, is a multiple of the stride."""
        if look % self.stride:
            return
        self.progress.append(step)
        for name, curve in curves.items():
            self.history.setdefault(name, []).append(curve)
        if len(self.progress) > MAX_COLUMNS:
            self.progress = self.progress[::2]
            self.history = {name: columns[::2] for name, columns in self.history.items()}
            self.stride *= 2

    def images(self) -> dict[str, Tensor]:
        """Columns of each name as an array (longest curve, number of columns), NaN beyond the end of a curve."""
        pad = torch.nn.utils.rnn.pad_sequence
        return {name: pad(columns, padding_value=math.nan) for name, columns in self.history.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"stride": self.stride, "progress": self.progress, "history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stride = state_dict.get("stride", 1)  # missing in early checkpoints of format 1
        self.progress = list(state_dict["progress"])
        self.history = {name: list(columns) for name, columns in state_dict["history"].items()}
