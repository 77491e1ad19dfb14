"""The fused kernel is taken where torch has it, and computes the same steps."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from bptt.lightning.optimizers import fused_where_possible


@pytest.mark.parametrize(
    ("make", "scaled", "fused"),
    [
        (partial(Adam, lr=0.1), False, True),
        (partial(AdamW, lr=0.1), False, True),
        (partial(SGD, lr=0.1, momentum=0.9), False, True),
        (partial(Adam, lr=0.1), True, None),
        (partial(Adam, lr=0.1, fused=False), False, False),
        (partial(Adam, lr=0.1, foreach=True), False, None),
    ],
)
def test_where_it_is_possible(make: Any, scaled: bool, fused: bool | None) -> None:
    optimizer = fused_where_possible(make, nn.Linear(2, 2).parameters(), scaled=scaled)
    assert optimizer.param_groups[0]["fused"] is fused


def test_others_are_made_as_they_are() -> None:
    made = fused_where_possible(partial(RMSprop, lr=0.1), nn.Linear(2, 2).parameters(), scaled=False)
    assert isinstance(made, RMSprop)
    assert "fused" not in made.param_groups[0]


@pytest.mark.parametrize("make", [partial(Adam, lr=0.1), partial(AdamW, lr=0.1), partial(SGD, lr=0.1, momentum=0.9)])
def test_the_same_steps_but_for_rounding(make: Any) -> None:
    torch.manual_seed(1)
    fused, plain = (nn.Linear(30, 20, dtype=torch.float64) for _ in range(2))
    plain.load_state_dict(fused.state_dict())
    optimizers = (fused_where_possible(make, fused.parameters(), scaled=False), make(plain.parameters()))
    for _ in range(5):
        inputs = torch.randn(7, 30, dtype=torch.float64)
        for layer, optimizer in zip((fused, plain), optimizers):
            optimizer.zero_grad()
            layer(inputs).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(fused.weight, plain.weight, rtol=1e-12, atol=1e-12)
