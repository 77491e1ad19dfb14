"""Learning-rate schedules that torch does not provide under a name."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bptt.contracts import at_least, between


def constant(optimizer: Optimizer) -> LambdaLR:
    """Constant learning rate."""
    return LambdaLR(optimizer, lambda _: 1.0)


def decay_after(optimizer: Optimizer, *, factor: float, start: int) -> LambdaLR:
    """Multiply the learning rate by `factor` at every step from step `start` on (as in char-rnn, Karpathy 2015)."""
    between(0, 1, open_low=True, open_high=False, factor=factor)
    at_least(0, start=start)
    return LambdaLR(optimizer, lambda step: factor ** max(0, step - start + 1))


def inverse_root(optimizer: Optimizer, *, lag: float) -> LambdaLR:
    """The learning rate divided by 1 + lag·√n after n steps (Tallec & Ollivier 2018, section 6)."""
    between(0, math.inf, lag=lag)
    return LambdaLR(optimizer, lambda step: 1 / (1 + lag * math.sqrt(step)))
