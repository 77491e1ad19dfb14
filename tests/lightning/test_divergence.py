"""Reaction to the first value that is not finite."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from support.training import fit as fit_with_validation
from support.training import losses, make_module, stream

from bptt.estimators import Chunked, Estimator, Full, Sliding
from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.divergence import Divergence, DivergenceError
from bptt.lightning.callbacks.summary import RunSummary
from bptt.lightning.checkpoint_files import newest_checkpoint
from bptt.lightning.clipping import Clipping
from bptt.lightning.module import BPTTModule
from bptt.measures.divergence import Origin, first_non_finite

fit = partial(fit_with_validation, limit_val_batches=0)


class Poison(Callback):
    """Sets all gradients to a value, infinite by default, before an update."""

    def __init__(self, at: int, value: float = math.inf):
        self.at, self.value = at, value

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        assert isinstance(pl_module, BPTTModule)
        if pl_module.counters.updates == self.at:
            for parameter in pl_module.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(self.value)


def with_bad_input(value: float, *, timestep: int = 5) -> Any:
    """Four batches of 8 timesteps; one input of the third batch is not finite."""
    task = stream([8] * 4)
    task.batches["train"][2].inputs[timestep, 1, 0] = value
    return task


@pytest.mark.parametrize("estimator", [Chunked(4), Full(), Sliding(4, 6)], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_data_are_named_with_their_timestep(tmp_path: Path, estimator: Estimator, value: float) -> None:
    module = make_module(with_bad_input(value), "elman", estimator=estimator)
    with pytest.raises(
        DivergenceError, match="the input is not finite at timestep 5; gradient norms before: "
    ) as stopped:
        fit(module, callbacks=[Divergence(), Checkpoint(), RunSummary()], default_root_dir=tmp_path)
    assert str(stopped.value).endswith("check the task's data")
    assert "\n" not in str(stopped.value)
    assert all(weight.isfinite().all() for weight in module.model.state_dict().values())
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "diverged"
    assert "the input is not finite" in summary["error"]


def test_bad_data_in_a_chunk_without_a_loss_are_named(tmp_path: Path) -> None:
    """The update of the last chunk, two chunks later, detects it. Targets outside the mask are not finite either."""
    task = with_bad_input(math.nan, timestep=1)
    for batch in task.batches["train"]:
        batch.mask = (torch.arange(8) == 7)[:, None].expand(8, 3)
        batch.targets[:7] = math.nan
    module = make_module(task, "elman", estimator=Chunked(3, ragged="last"))
    with pytest.raises(
        DivergenceError, match="timesteps 6 to 7 of a batch, where the input is not finite at timestep 1;"
    ):
        fit(module, callbacks=[Divergence()], default_root_dir=tmp_path)


def test_an_explosion_is_named_with_its_place(tmp_path: Path) -> None:
    """The identity doubled: the state of relu units doubles at every timestep, and is infinite by the 128th."""
    module = make_module(stream([200] * 3), "irnn", num_layers=2, estimator=Chunked(200))
    with torch.no_grad():
        _, weight_hh, _, bias_hh = module.model.layers[1].parameters()
        weight_hh.copy_(2 * torch.eye(4))
        bias_hh.fill_(1)
    with pytest.raises(
        DivergenceError, match=r"the (hidden state of layer 2|prediction|loss) is not finite at timestep"
    ) as stopped:
        fit(module, callbacks=[Divergence()])
    assert "clipping=norm or a smaller optimizer.lr" in str(stopped.value)


def test_only_the_gradient_is_not_finite(tmp_path: Path) -> None:
    """Norms of the five updates before it; the checkpoint from before stays."""
    module = make_module(stream([8] * 6), estimator=Chunked(4), clipping=Clipping("norm"))
    callbacks = [Poison(9), Divergence(), Checkpoint(every_n_updates=4)]
    with pytest.raises(
        DivergenceError, match="the gradient is not finite, though all states and losses are"
    ) as stopped:
        fit(module, callbacks=callbacks, default_root_dir=tmp_path)
    norms = str(stopped.value).partition("gradient norms before: ")[2].partition(";")[0].split(", ")
    assert len(norms) == 5
    assert all(float(norm) > 0 for norm in norms)
    assert "clipping=norm" not in str(stopped.value), "it is on"
    assert newest_checkpoint(tmp_path)[0] is not None


@pytest.mark.parametrize("clipping", [Clipping("norm", 0.5), Clipping("value", 0.5)], ids=str)
def test_a_large_gradient_is_clipped(clipping: Clipping) -> None:
    """Its norm overflows in float32, which would end the run, or set the gradient to 0."""
    module = make_module(stream([4]), estimator=Chunked(4), clipping=clipping)
    before = [weight.detach().clone() for weight in module.parameters()]
    fit(module, callbacks=[Poison(1, 1e30), Divergence()])
    steps = torch.cat([(old - new).flatten() for old, new in zip(before, module.parameters())])
    size = 0.5 if clipping.algorithm == "value" else 0.5 / math.sqrt(len(steps))
    torch.testing.assert_close(steps, torch.full_like(steps, 0.1 * size), rtol=1e-4, atol=1e-7)


def test_a_gradient_whose_square_overflows_must_be_clipped() -> None:
    """Adam's mean of squares would stay infinite, and its steps 0."""
    module = make_module(stream([8] * 2), estimator=Chunked(4), optimizer=torch.optim.Adam)
    with pytest.raises(DivergenceError, match=r"the square of the gradient is not finite, .*; try clipping=norm or"):
        fit(module, callbacks=[Poison(2, 1e30), Divergence()])


def test_an_update_can_be_left_out(tmp_path: Path) -> None:
    """Weights are unchanged by the skipped update, and training continues."""
    left_out = make_module(stream([8] * 2), estimator=Chunked(4))
    twin = make_module(left_out.task, estimator=Chunked(4))
    twin.load_state_dict(left_out.state_dict())
    divergence = Divergence(action="skip")
    fit(left_out, callbacks=[Poison(4), divergence])
    assert divergence.skipped == 1
    fit(twin, max_steps=3, callbacks=[Poison(4), Divergence(action="skip")])
    assert len(losses(left_out)) == 4
    for name, weight in left_out.model.state_dict().items():
        assert torch.equal(weight, twin.model.state_dict()[name]), name


def test_sequences_with_a_non_finite_state_are_reset(tmp_path: Path) -> None:
    module = make_module(with_bad_input(math.nan, timestep=7), "gru", estimator=Chunked(4))
    divergence = Divergence(action="skip")
    fit(module, callbacks=[divergence])
    assert divergence.skipped == 1
    assert all(math.isfinite(loss) for loss in losses(module)[-2:]), "of the batch after it"


def test_origin_is_the_earliest() -> None:
    module = make_module(stream([9]), "gru", num_layers=2)
    batch, model = module.task.batch("train", 0), module.model
    state = model.initial_state(3)
    assert first_non_finite(model, module.task.errors, batch, state) is None
    batch.targets[6, 0, 0] = math.nan
    assert first_non_finite(model, module.task.errors, batch, state) == Origin("the loss", 6)
    batch.inputs[4, 2, 1] = math.inf
    assert first_non_finite(model, module.task.errors, batch, state) == Origin("the input", 4)
    batch.mask = torch.zeros(9, 3, dtype=torch.bool)
    assert first_non_finite(model, module.task.errors, batch.between(5, 9), state) is None


def test_unknown_action_is_refused() -> None:
    word: Any = "ignore"
    with pytest.raises(ValueError, match="action must be stop or skip, got 'ignore'"):
        Divergence(action=word)
