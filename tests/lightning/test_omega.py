"""Regularised updates, by plain autograd; and that nothing but the recurrent weights is touched."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from support import oracles
from support.fixed_batches import FixedBatches, random_batch
from support.training import Steps, callbacks_of, losses, make_module, stream
from support.training import fit as fit_and_validate
from torch import Tensor, nn

from bptt.configuration.build import build_trainer
from bptt.configuration.compose import compose_config
from bptt.estimators import RTRL, UORO, Adaptive, Chunked, EProp, Estimator, Full, Randomized, Sliding, SnAp
from bptt.lightning.callbacks.omega import Omega
from bptt.lightning.clipping import Clipping
from bptt.tasks import Batch

pytestmark = pytest.mark.usefixtures("float64")
WEIGHT, RATE = 3.0, 0.1
RECURRENT = "layers.0.kernel.weight_hh_l0"
fit = partial(fit_and_validate, limit_val_batches=0)


def regularised(
    model: nn.Module, batch: Batch, state: list[oracles.CellState], start: int, newest: int, stop: int
) -> tuple[dict[str, Tensor], float, list[list[oracles.CellState]]]:
    """An Elman network run from timestep `start` to `stop`, with losses from `newest` on: gradient, Ω and states."""
    run = oracles.run_model("elman", model, batch.inputs[start:stop], state)
    loss = oracles.squared_error(run.predictions[newest - start :], batch.targets[newest:stop], None)
    hidden = [h for (h,) in run.states[0]]
    deltas = torch.stack(torch.autograd.grad(loss, hidden, retain_graph=True))
    gradient = oracles.gradients(loss, model)
    weight = dict(model.named_parameters())[RECURRENT]
    through = ((1 - torch.stack(hidden).detach() ** 2) * deltas) @ weight
    omega = ((through.square().sum(-1) / deltas.square().sum(-1) - 1) ** 2).mean()
    gradient[RECURRENT] = gradient[RECURRENT] + WEIGHT * torch.autograd.grad(omega, weight)[0]
    return gradient, omega.item(), run.states


UPDATES: dict[str, tuple[Callable[[], Estimator], list[tuple[int, int, int]]]] = {
    "full": (lambda: Full(4), [(0, 0, 10)]),
    "chunked": (lambda: Chunked(5), [(0, 0, 5), (5, 5, 10)]),
    "sliding": (lambda: Sliding(5, 8), [(0, 0, 5), (2, 5, 10)]),
}


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("clipping", [Clipping(), Clipping("norm", 0.05)], ids=["unclipped", "clipped"])
def test_updates_are_steps_along_the_regularised_gradient(name: str, clipping: Clipping, tmp_path: Path) -> None:
    """Ω is added before clipping. The sliding window reaches back to a state of the weights before."""
    estimator, updates = UPDATES[name]
    task = FixedBatches([random_batch(10, 3)])
    module = make_module(task, "elman", estimator=estimator(), clipping=clipping)
    twin = make_module(task, "elman").model
    twin.load_state_dict(module.model.state_dict())
    steps = Steps()
    logger = CSVLogger(tmp_path, name="", version="")
    fit(module, callbacks=[Omega(weight=WEIGHT, every_n_updates=1), steps], logger=logger, log_every_n_steps=1)

    batch, expected = task.batch("train", 0), []
    state, began = oracles.zero_states("elman", twin, 3), 0
    for (start, newest, stop), seen in zip(updates, steps.gradients, strict=True):
        gradient, value, states = regularised(twin, batch, state, start, newest, stop)
        expected.append(value)
        assert oracles.relative_error(seen, gradient) < 1e-9
        norm = float(torch.cat([each.flatten() for each in gradient.values()]).norm())
        assert norm > 0.05
        factor = 0.05 / (norm + 1e-6) if clipping.algorithm == "norm" else 1.0  # torch's clipping adds 1e-6
        oracles.step_by_hand(twin, {key: factor * each for key, each in gradient.items()}, RATE)
        following = next((first for first, *_ in updates if first > began), stop)
        state, began = [tuple(part.detach() for part in layer[following - start - 1]) for layer in states], following
    assert oracles.relative_error(module.model.state_dict(), twin.state_dict()) < 1e-9

    names, *rows = (line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines())
    logged = [float(text) for row in rows if (text := dict(zip(names, row))["omega/layer1"])]
    assert logged == pytest.approx(expected, rel=1e-9)


BACKPROPAGATING: dict[str, Callable[[], Estimator]] = {
    "full": lambda: Full(3),
    "chunked": lambda: Chunked(4),
    "sequence": lambda: Chunked(4, update="sequence"),
    "sliding": lambda: Sliding(3, 5),
    "randomized": lambda: Randomized(4, block=2, seed=1),
    "adaptive": lambda: Adaptive(
        delta=0.5, lags=5, every_n_batches=1, num_samples=2, min_chunk_size=2, max_chunk_size=8
    ),
}


@pytest.mark.parametrize("kind", ["elman", "gru", "lstm"])
@pytest.mark.parametrize("name", BACKPROPAGATING)
def test_the_term_is_proportional_to_its_weight_and_affects_only_recurrent_weights(name: str, kind: str) -> None:
    """Two layers and dropout; loss, draws and all other gradients of the first update stay the same to the bit."""
    task = stream([10])
    first: list[dict[str, Tensor]] = []
    lost = []
    for weight in (0, 1, 2):
        torch.manual_seed(3)
        module = make_module(task, kind, num_layers=2, dropout=0.3, estimator=BACKPROPAGATING[name]())
        steps = Steps()
        fit(module, callbacks=[Omega(weight=weight), steps] if weight else [steps])
        first.append(steps.gradients[0])
        lost.append(losses(module)[0])
    assert lost[0] == lost[1] == lost[2]
    for key in first[0]:
        none, once, twice = (gradients[key] for gradients in first)
        if key.endswith("weight_hh_l0"):
            assert (once - none).norm() > 1e-3
            torch.testing.assert_close(twice - none, 2 * (once - none), rtol=1e-9, atol=1e-12)
        else:
            assert torch.equal(none, once)


@pytest.mark.parametrize("estimator", [RTRL(5), SnAp(5), UORO(5), EProp(5)], ids=lambda each: type(each).__name__)
def test_estimators_in_forward_mode_are_refused(estimator: Estimator) -> None:
    module = make_module(stream([10]), "elman")
    module.estimator = estimator
    with pytest.raises(ValueError) as refused:
        fit(module, callbacks=[Omega(weight=WEIGHT)])
    assert str(refused.value) == (
        "regulariser omega needs an estimator that backpropagates through timesteps, got "
        f"{type(estimator).__name__}; use regulariser=none, or estimator=chunked, sliding, full, randomized or adaptive"
    )


def test_float16_gradients_have_the_term_at_its_own_size() -> None:
    """The loss scale is off when it is added."""
    seen, batch = [], random_batch(10, 3)
    task = FixedBatches([Batch(batch.inputs.float(), batch.targets.float())])
    scaled = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    for plugins in (None, [scaled]):
        torch.manual_seed(4)
        module = make_module(task, "gru", estimator=Full(4)).float()
        steps = Steps()
        fit(module, callbacks=[Omega(weight=WEIGHT), steps], plugins=plugins)
        seen.append(steps.gradients[0])
    assert oracles.relative_error(seen[1], seen[0]) < 0.02


@pytest.mark.parametrize("weight", [0, -1.0, float("inf"), "4"])
def test_weights_that_are_none_are_refused(weight: Any) -> None:
    with pytest.raises(ValueError, match="weight must be a number in"):
        Omega(weight=weight)


def test_configuration_names_it(tmp_path: Path) -> None:
    """The regulariser runs before callbacks that measure the gradient. By default there is none."""
    default = callbacks_of(build_trainer(compose_config(), tmp_path))
    assert not any(isinstance(callback, Omega) for callback in default)
    chosen = callbacks_of(build_trainer(compose_config(["regulariser=omega"]), tmp_path))
    first = chosen[0]
    assert isinstance(first, Omega)
    assert first.weight == 4
    assert len(chosen) == len(default) + 1
