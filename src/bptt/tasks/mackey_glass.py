"""Forecasting of the delay equation of Mackey & Glass (1977)."""

import torch
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric

from bptt.contracts import at_least
from bptt.tasks.base import Batch, squared_error
from bptt.tasks.synthetic import SyntheticTask

BETA, GAMMA, POWER = 0.2, 0.1, 10
SUBSTEPS = 10  # integration steps in one unit of time, which is one timestep
WASHOUT = 250  # units of time discarded at the start, until the sequence is near the attractor


class MackeyGlass(SyntheticTask):
    """Prediction of x_{t+horizon} from x up to t, for dx/ds = β x(s − τ) / (1 + x(s − τ)^10) − γ x(s), β = .2, γ = .1.

    Each sequence has its own constant initial history, uniform over (.5, 1.5), and begins 250 units of time later.
    One timestep is one unit of time. τ = 17 is mildly chaotic, 30 more so. For τ up to 4 the series converges to 1.

    Features and targets (T, B, 1), unscaled: for τ = 17 mean .93, variance .051. Squared error.

    Integrated by the method of steps: within one delay the delayed term is known, so the equation is linear. Its
    integral is computed by the trapezoid rule with steps of .1.
    """

    input_size = 1
    output_size = 1

    def __init__(self, *, length: int, batch_size: int, tau: int = 17, horizon: int = 6, **counts: int):
        super().__init__(length=length, batch_size=batch_size, **counts)
        at_least(1, tau=tau, horizon=horizon)
        self.tau = tau
        self.horizon = horizon

    def draw(self, generator: torch.Generator) -> Batch:
        constant = 0.5 + torch.rand(self.batch_size, generator=generator, dtype=torch.float64)
        series = integrate(constant, tau=self.tau, duration=WASHOUT + self.length + self.horizon)
        values = series[WASHOUT * SUBSTEPS :: SUBSTEPS].float().unsqueeze(-1)
        return Batch(values[: self.length], values[self.horizon : self.horizon + self.length])

    errors = staticmethod(squared_error)

    def metrics(self) -> dict[str, Metric]:
        return {"mse": MeanSquaredError()}


def integrate(constant: Tensor, *, tau: int, duration: int) -> Tensor:
    """x at the times 0, .1, .2 … `duration`, (10 · duration + 1, B); x is `constant` (B,) up to time 0.

    With u = e^{γs} x the equation is du/ds = e^{γs} f(x(s − τ)), f the delayed term; s restarts at 0 after every delay.
    """
    size = tau * SUBSTEPS
    growth = torch.linspace(0, tau, size + 1, dtype=constant.dtype).mul(GAMMA).exp().unsqueeze(-1)
    delayed = constant.expand(size + 1, -1)
    parts = [constant.unsqueeze(0)]
    for _ in range(-(-duration // tau)):
        force = growth * BETA * delayed / (1 + delayed**POWER)
        gained = torch.cumulative_trapezoid(force, dx=1 / SUBSTEPS, dim=0)
        later = (delayed[-1] + gained) / growth[1:]
        parts.append(later)
        delayed = torch.cat([delayed[-1:], later])
    return torch.cat(parts)[: duration * SUBSTEPS + 1]
