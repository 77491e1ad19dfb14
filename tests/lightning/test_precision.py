"""Reduced precision, as far as a CPU has kernels for it."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from support import oracles
from support.fixed_batches import FixedBatches, random_batch
from support.training import Steps, Textbook, fit, losses, make_module, stream
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import Tensor

from bptt.estimators import Chunked, Full
from bptt.layers import Layer
from bptt.lightning.callbacks.gradient_flow import GradientFlow
from bptt.lightning.callbacks.jacobian_spectrum import JacobianSpectrum
from bptt.lightning.callbacks.parameter_norms import ParameterNorms
from bptt.lightning.callbacks.truncation_bias import TruncationBias
from bptt.lightning.clipping import Clipping
from bptt.lightning.loggers import EventLogger
from bptt.lightning.optimizers import check_epsilon
from bptt.shapes import leaves

LARGE = partial(torch.optim.SGD, lr=0.5)  # weights move by more than bfloat16 rounds
autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("kind", ["elman", "gru", "lstm"])
def test_several_updates_a_batch_under_bfloat16_autocast(kind: str) -> None:
    """Each chunk must see the weights that the one before has made, not casts of older ones.

    Autocast can keep its casts as long as its context is open, which in training is a whole batch; the textbook opens
    one a chunk, and keeps none. That this test would notice, the same loop within one context shows.
    """
    task = stream([24, 24])
    module = make_module(task, kind, optimizer=LARGE)
    fresh, stale = Textbook(module.model), Textbook(module.model)
    expected = fresh.train(task.batches["train"], 4, LARGE, forward_context=partial(autocast, cache_enabled=False))
    with autocast():
        wrong = stale.train(task.batches["train"], 4, LARGE)
    fit(module, precision="bf16-mixed", limit_val_batches=0)
    assert losses(module) == expected
    assert wrong != pytest.approx(expected, rel=0.03)
    ours = [value.detach() for value in module.model.parameters()]
    assert all(map(torch.equal, ours, fresh.weights()))
    assert all(value.dtype == torch.float32 for value in ours)


@pytest.mark.parametrize("kind", ["elman", "gru", "lstm", "mingru"])  # log ν of an LRU moves by less than rounding
@pytest.mark.parametrize("estimator", [Chunked(4), Chunked(4, update="sequence"), Full(3)])
def test_bfloat16_weights(kind: str, estimator: Any) -> None:
    """Everything in bfloat16 but the loss; the first loss is float32's, to bfloat16's 8 bits."""
    task = stream([10, 10])
    task.batches["validation"] = [random_batch(5, 3)]
    module = make_module(task, kind, num_layers=2, estimator=estimator, optimizer=LARGE)
    batch = task.batch("train", 0)
    stop = 4 if isinstance(estimator, Chunked) and estimator.update == "chunk" else 10
    predictions = oracles.run_model(kind, module.model, batch.inputs[:stop]).predictions
    expected = oracles.squared_error(predictions, batch.targets[:stop], None).item()
    before = [value.detach().clone() for value in module.model.parameters()]
    trainer = fit(module, precision="bf16-true")
    assert losses(module)[0] == pytest.approx(expected, rel=0.02)
    assert all(loss == loss for loss in losses(module))
    for old, new in zip(before, module.model.parameters()):
        assert new.dtype == torch.bfloat16
        assert not torch.equal(old.bfloat16(), new)
    assert module.carry.state is not None
    assert {leaf.dtype for leaf in leaves(module.carry.state)} == {torch.bfloat16}
    assert torch.isfinite(trainer.callback_metrics["validation/loss"])


def float16(scale: float = 1024.0) -> MixedPrecision:
    """float16 training as on a GPU. The CPU has float16 kernels for Elman and GRU, but not for the LSTM."""
    return MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=scale))


@pytest.mark.parametrize("kind", ["elman", "gru"])
@pytest.mark.parametrize("estimator", [Chunked(4), Chunked(4, update="sequence"), Full(3)])
@pytest.mark.parametrize(
    "clipping", [Clipping(), Clipping("norm", 0.01), Clipping("norm", 2.0), Clipping("value", 0.01)]
)
def test_float16_steps_are_float32s(kind: str, estimator: Any, clipping: Clipping) -> None:
    """Clipping acts on unscaled gradients, callbacks see unscaled ones, and the scale comes once, not once a segment.

    Clipped at 1024 times its size, the step would be 1024 times smaller.
    """
    task = FixedBatches([random_batch(10, 3)])
    options: dict[str, Any] = {"num_layers": 2, "clipping": clipping, "optimizer": partial(torch.optim.SGD, lr=1.0)}
    module = make_module(task, kind, estimator=estimator, **options)
    exact = make_module(task, kind, estimator=estimator, **options)
    exact.model.load_state_dict(module.model.state_dict())
    before = {name: value.detach().clone() for name, value in module.model.named_parameters()}
    moved, seen = [], []
    for each, plugins in ((module, [float16()]), (exact, None)):
        steps = Steps()
        fit(each, plugins=plugins, callbacks=[steps], limit_val_batches=0)
        moved.append({name: before[name] - value.detach() for name, value in each.model.named_parameters()})
        seen.append(steps.gradients[0])
    assert oracles.relative_error(*moved) < 0.02
    assert oracles.relative_error(*seen) < 0.01


@pytest.mark.parametrize("kind", ["elman", "gru", "lstm", "lru", "mingru", "own"])
def test_bfloat16_weights_are_looked_at(kind: str, tmp_path: Path) -> None:
    """All callbacks measure every layer, including a user's own cell, in float32."""
    task = stream([10, 10])
    module = make_module(task, "gru" if kind == "own" else kind, num_layers=2)
    if kind == "own":
        module.model.layers[1] = Gated(4, 4)
    flow, spectrum = GradientFlow(every_n_updates=1, lags=[1]), JacobianSpectrum(every_n_updates=1)
    callbacks = [flow, spectrum, ParameterNorms(every_n_updates=1), TruncationBias(every_n_batches=1)]
    options: dict[str, Any] = {"logger": EventLogger(tmp_path), "log_every_n_steps": 1, "default_root_dir": tmp_path}
    fit(module, precision="bf16-true", limit_val_batches=0, callbacks=callbacks, **options)
    assert flow.latest is not None
    for each in flow.latest.values():
        norms = each.by_timestep["h"]
        assert norms.dtype == torch.float64
        assert (norms > 0).any()
    (path,) = tmp_path.glob("events.out.tfevents.*")
    tags = {value.tag for event in EventFileLoader(str(path)).Load() for value in event.summary.value}
    assert {"jacobian/layer1/lyapunov", "jacobian/layer2/lyapunov", "parameters/gradient_norm/all"} <= tags


class Gated(Layer):
    """h_t = h_{t-1} + σ(U x_t) ∘ tanh(W h_{t-1} + V x_t), with linear maps that accept only their own dtype."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.gate = torch.nn.Linear(input_size, hidden_size)
        self.joined = torch.nn.Linear(input_size + hidden_size, hidden_size)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.gate.weight.new_zeros(batch_size, self.hidden_size)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        return state + self.gate(input).sigmoid() * self.joined(torch.cat([input, state], dim=-1)).tanh()


@pytest.mark.parametrize(
    ("precision", "eps", "refused"), [("16-true", 1e-8, True), ("16-true", 1e-4, False), ("bf16-true", 1e-8, False)]
)
def test_an_epsilon_that_half_precision_makes_zero(precision: str, eps: float, refused: bool) -> None:
    check_epsilon(torch.optim.Adafactor([torch.zeros(2, 2, requires_grad=True)]), precision=precision)
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], eps=eps)
    with pytest.raises(ValueError, match=r"optimizer\.eps must be above 0 in float16") if refused else nullcontext():
        check_epsilon(optimizer, precision=precision)
