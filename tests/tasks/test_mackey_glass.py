"""The delay equation, against its closed form over the first delay and a Runge-Kutta loop."""

from typing import Any

import pytest
import torch

from bptt.tasks.mackey_glass import MackeyGlass, integrate


def make(length: int = 60, batch_size: int = 3, **options: Any) -> MackeyGlass:
    counts = {"train_batches": 2, "validation_batches": 1, "test_batches": 1}
    return MackeyGlass(length=length, batch_size=batch_size, seed=1, **options, **counts)


def runge_kutta(constant: float, tau: int, duration: int) -> list[float]:
    """x at the times 0, 1, 2 … by the classical method at steps of 1/20; linear between the known delayed values."""
    steps = 20

    def slope(x: float, delayed: float) -> float:
        return 0.2 * delayed / (1 + delayed**10) - 0.1 * x

    x = [constant] * (tau * steps + 1)  # the last one is time 0
    for _ in range(duration * steps):
        now, old, new = x[-1], x[-1 - tau * steps], x[-tau * steps]
        between = (old + new) / 2
        first = slope(now, old)
        second = slope(now + first / steps / 2, between)
        third = slope(now + second / steps / 2, between)
        fourth = slope(now + third / steps, new)
        x.append(now + (first + 2 * second + 2 * third + fourth) / steps / 6)
    return x[tau * steps :: steps]


def test_first_delay_in_closed_form() -> None:
    """The delayed term is the constant F, so x = F/γ + (c − F/γ) e^{−γs}."""
    constant = torch.tensor([0.3, 0.9, 1.0, 1.4], dtype=torch.float64)
    time = torch.linspace(0, 17, 171, dtype=torch.float64).unsqueeze(-1)
    limit = 2 * constant / (1 + constant**10)
    expected = limit + (constant - limit) * torch.exp(-0.1 * time)
    torch.testing.assert_close(integrate(constant, tau=17, duration=17), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("tau", [5, 17, 30])
def test_many_delays_against_runge_kutta(tau: int) -> None:
    """Short enough that chaos has not made much of the first difference."""
    constant = torch.tensor([0.6, 1.3], dtype=torch.float64)
    found = integrate(constant, tau=tau, duration=200)
    assert found.shape == (2001, 2)
    expected = torch.tensor([runge_kutta(float(each), tau, 200) for each in constant], dtype=torch.float64).T
    torch.testing.assert_close(found[::10], expected, rtol=0, atol=1e-3)
    assert float(expected.var()) > 1e-3, "the series moves"


@pytest.mark.parametrize("horizon", [1, 6, 84])
def test_targets_lie_ahead(horizon: int) -> None:
    """Each sequence solves the equation: a longer horizon continues a shorter one."""
    batch = make(100, horizon=horizon).batch("train", 0)
    assert torch.equal(batch.targets[:-horizon], batch.inputs[horizon:])
    longer = make(100 + horizon, horizon=1).batch("train", 0)
    assert torch.equal(batch.targets, longer.inputs[horizon:])


def test_sequences_differ_and_stay_on_the_attractor() -> None:
    inputs = make(2000, batch_size=50).batch("train", 0).inputs
    assert float(inputs.mean()) == pytest.approx(0.93, abs=0.01)
    assert float(inputs.var()) == pytest.approx(0.051, abs=0.002)
    assert inputs.min() > 0.2
    assert inputs.max() < 1.5
    assert float(inputs[:, :1].sub(inputs[:, 1:]).square().mean(0).min()) > 1e-3


def test_a_short_delay_settles_at_one() -> None:
    inputs = make(tau=3).batch("train", 0).inputs
    torch.testing.assert_close(inputs, torch.ones_like(inputs), rtol=0, atol=1e-4)


def test_repeating_the_present_value_costs_the_mean_squared_difference() -> None:
    task = make(horizon=6)
    batch = task.batch("test", 0)
    loss = float(task.loss(batch.inputs, batch))
    pairs = zip(batch.inputs.flatten().tolist(), batch.targets.flatten().tolist(), strict=True)
    assert loss == pytest.approx(sum((now - later) ** 2 for now, later in pairs) / 180, rel=1e-5)
    metric = task.metrics()["mse"]
    metric.update(batch.inside(batch.inputs), batch.inside(batch.targets))
    assert float(metric.compute()) == pytest.approx(loss, rel=1e-5)


def test_refusals() -> None:
    for name in ("tau", "horizon"):
        with pytest.raises(ValueError, match=rf"^{name} must be an integer >= 1, got 0$"):
            make(**{name: 0})
