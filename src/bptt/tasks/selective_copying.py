"""Selective copying: a few tokens scattered among noise, to be named in their order (Gu & Dao 2023)."""

import math
from pathlib import Path
from typing import Any

import torch
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from bptt.contracts import at_least, refusal
from bptt.tasks.base import Batch, cross_entropy
from bptt.tasks.synthetic import SyntheticTask


class SelectiveCopying(SyntheticTask):
    """`num_tokens` random tokens at random timesteps, noise at all others, then as many go signs, at which the tokens
    are the targets, in their order.

    Tokens 0 … num_symbols − 1, then noise, then the go sign. Cross-entropy in nats at the last `num_tokens` timesteps.
    Without memory the best possible is ln num_symbols, `baseline`. Metric `accuracy`: the share of tokens that are
    named correctly.

    Raises ValueError if length < 2 · num_tokens.
    """

    def __init__(self, *, length: int, batch_size: int, num_tokens: int = 16, num_symbols: int = 14, **counts: int):
        at_least(1, num_tokens=num_tokens)
        at_least(2, num_symbols=num_symbols)
        super().__init__(length=length, batch_size=batch_size, **counts)
        if length < 2 * num_tokens:
            raise ValueError(refusal("length", f">= 2 * num_tokens = {2 * num_tokens}", length))
        self.num_tokens = num_tokens
        self.input_size = num_symbols + 2
        self.output_size = num_symbols
        self.baseline = math.log(num_symbols)

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        return {"num_tokens": 3}

    def draw(self, generator: torch.Generator) -> Batch:
        count, noise, go = self.num_tokens, self.output_size, self.output_size + 1
        tokens = torch.randint(noise, (count, self.batch_size), generator=generator)
        order = torch.rand(self.length - count, self.batch_size, generator=generator).argsort(0)
        timesteps = order[:count].sort(0).values
        inputs = torch.full((self.length, self.batch_size), noise).scatter_(0, timesteps, tokens)
        inputs[-count:] = go
        targets = torch.zeros_like(inputs)
        targets[-count:] = tokens
        mask = inputs == go
        return Batch(inputs, targets, mask)

    errors = staticmethod(cross_entropy)

    def metrics(self) -> dict[str, Metric]:
        return {"accuracy": MulticlassAccuracy(self.output_size, average="micro")}
