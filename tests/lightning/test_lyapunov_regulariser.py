"""Gradient flossing in a training run: what it adds to the gradient, and what it does before training."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from support.fixed_batches import FixedBatches, random_batch
from support.training import fit, make_module

from bptt.estimators import RTRL, Full
from bptt.layers import GRU
from bptt.lightning.callbacks.lyapunov_regulariser import LyapunovRegulariser
from bptt.lightning.data import TaskData
from bptt.lightning.module import BPTTModule
from bptt.measures import flossing
from bptt.model import SequenceModel
from bptt.tasks import Batch
from bptt.tasks.adding import Adding

LENGTH, B, LR = 12, 4, 0.1


def train(
    folder: Path,
    regulariser: LyapunovRegulariser | None,
    estimator: Any = None,
    updates: int = 1,
    precision: Any = "32-true",
) -> BPTTModule:
    torch.manual_seed(2)
    task = Adding(length=LENGTH, batch_size=B, seed=1, train_batches=3, validation_batches=1, test_batches=1)
    model = SequenceModel(GRU, input_size=2, output_size=1, hidden_size=5)
    optimizer = partial(torch.optim.SGD, lr=LR)
    module = BPTTModule(task=task, model=model, estimator=estimator or Full(), optimizer=optimizer)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=updates,
        precision=precision,
        limit_val_batches=0,
        callbacks=[regulariser] if regulariser else [],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=TaskData(module))
    return module


def value(module: BPTTModule, num_sequences: int) -> torch.Tensor:
    """The measure along the first batch, from the initial state."""
    model, batch = module.model, module.task.batch("train", 0).columns(slice(num_sequences))
    with torch.no_grad():
        _, _, (record,) = model(batch.inputs, model.initial_state(num_sequences))
    return flossing(next(iter(model.levels)), record, num_exponents=2)


def test_its_gradient_is_added_to_that_of_the_loss(tmp_path: Path) -> None:
    begin = train(tmp_path, None, updates=0)
    layer = next(iter(begin.model.levels))
    terms = torch.autograd.grad(value(begin, 2), list(layer.parameters()))
    plain = next(iter(train(tmp_path, None).model.levels))
    options: dict[str, Any] = {"num_exponents": 2, "num_sequences": 2}
    regularised = next(iter(train(tmp_path, LyapunovRegulariser(weight=0.3, **options)).model.levels))
    for without, found, term in zip(plain.parameters(), regularised.parameters(), terms, strict=True):
        torch.testing.assert_close(without - found, LR * 0.3 * term, rtol=1e-3, atol=1e-7)


def test_weights_in_half_precision_move_as_far_as_those_in_single_precision(tmp_path: Path) -> None:
    moved = []
    for precision in ("32-true", "bf16-true"):
        options: dict[str, Any] = {"num_exponents": 2, "num_sequences": 2}
        plain, regularised = (
            next(iter(train(tmp_path, each, precision=precision).model.levels))
            for each in (None, LyapunovRegulariser(weight=100.0, **options))
        )
        pairs = zip(plain.parameters(), regularised.parameters())
        moved.append(torch.cat([(one.detach() - other.detach()).flatten().float() for one, other in pairs]))
    assert moved[0].norm() > 0.1
    assert (moved[1] - moved[0]).norm() < 0.05 * moved[0].norm()


def test_before_training_the_exponents_go_to_0(tmp_path: Path) -> None:
    begin = float(value(train(tmp_path, None, updates=0), B).detach())
    regulariser = LyapunovRegulariser(num_exponents=2, num_sequences=B, before=30, lr=0.03, during=False)
    assert float(value(train(tmp_path, regulariser, updates=1), B).detach()) < 0.5 * begin


@pytest.mark.parametrize("begins_with_reset", [False, True])
def test_before_training_only_timesteps_before_a_reset_count(begins_with_reset: bool) -> None:
    """As if the batch ended there."""
    whole = random_batch(LENGTH, B)
    whole.reset = torch.zeros(LENGTH, B, dtype=torch.bool)
    whole.reset[[5, 8], [0, 1]] = True
    whole.reset[0] = begins_with_reset
    found = []
    for batch in (whole, Batch(whole.inputs[:5], whole.targets[:5])):
        torch.manual_seed(3)
        module = make_module(FixedBatches([batch]))
        options: dict[str, Any] = {"num_exponents": 2, "num_sequences": 2, "lr": 0.01}
        fit(module, callbacks=[LyapunovRegulariser(before=2, during=False, **options)], max_steps=0)
        found.append(module.model.state_dict())
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("num_exponents", [1, 3])
def test_directions_that_relu_units_lose_leave_the_weights_alone(num_exponents: int) -> None:
    """Of 5 units 3 are always off: the exponents of 2 directions are known, and with a third one there is no term."""
    module = make_module(FixedBatches([random_batch(LENGTH, B)]), "irnn", hidden_size=5)
    layer = next(iter(module.model.levels))
    with torch.no_grad():
        layer.get_parameter("weight_hh").uniform_(0.1, 1)
        layer.get_parameter("weight_ih").fill_(0)
        layer.get_parameter("bias_ih").fill_(1)[:3] = -1e3
    before = {name: weight.clone() for name, weight in layer.named_parameters()}
    regulariser = LyapunovRegulariser(before=3, during=False, num_exponents=num_exponents)
    if num_exponents == 3:
        with pytest.raises(ValueError, match=r"num_exponents must be at most the number of directions .*, got 3"):
            fit(module, callbacks=[regulariser], max_steps=0)
    else:
        fit(module, callbacks=[regulariser], max_steps=0)
    moved = any(not weight.equal(before[name]) for name, weight in layer.named_parameters())
    assert moved == (num_exponents == 1)
    assert all(weight.isfinite().all() for weight in layer.parameters())


def test_an_estimator_without_a_backward_pass_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs an estimator that backpropagates through timesteps, got RTRL"):
        train(tmp_path, LyapunovRegulariser(), estimator=RTRL(4))
