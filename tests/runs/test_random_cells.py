"""Own cells that draw random numbers or change buffers: passes that are no part of training leave no trace in it."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.layer_kinds import ALL
from support.noisy_cell import Lazy, Noisy, Normalised
from support.small_runs import trained
from torch import nn

from bptt.configuration.compose import compose_config
from bptt.estimators import Full
from bptt.layers import Adapter
from bptt.layers.repetition import repeats, silence
from bptt.lightning.checkpoint_files import read
from bptt.model import SequenceModel
from bptt.run_folder import RunFolder
from bptt.runs.training import preflight
from bptt.shapes import leaves
from bptt.tasks import Batch

SMALL = (
    "task=copy_memory", "task.delay=3", "task.batch_size=4", "task.train_batches=4", "task.validation_batches=1",
    "model=gru", "model.layer._target_=support.noisy_cell.Noisy", "model.hidden_size=4", "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1", "trainer.enable_progress_bar=false",
)  # fmt: skip


def both_trained(folder: Path, *words: str) -> list[dict[str, torch.Tensor]]:
    """Weights and buffers of a run with all measures, and of one without."""
    weights = []
    for name, chosen in (("measured", None), ("bare", ("summary", "checkpoint"))):
        config = compose_config([*SMALL, "callbacks=[default,bias]", *words])
        config.callbacks = {key: each for key, each in config.callbacks.items() if chosen is None or key in chosen}
        weights.append(read(RunFolder(trained(config, folder / name)).last_checkpoint)["state_dict"])
    return weights


def test_measures_change_no_random_number_of_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With all measures, and without any. Those of passes of training are left out; the bias is of a silent copy."""
    measured, bare = both_trained(tmp_path)
    assert all(torch.equal(measured[name], value) for name, value in bare.items())
    lines = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert lines == [
        "left out because a pass of Noisy(4) in training, computed again, has other values: "
        "GradientFlow, JacobianSpectrum"
    ]


def test_buffers_are_those_of_training(tmp_path: Path) -> None:
    """Running means, with all measures and with none."""
    measured, bare = both_trained(tmp_path, "model.layer._target_=support.noisy_cell.Normalised")
    assert bare["model.layers.0.norm.running_mean"].any()
    assert RunFolder(tmp_path / "measured").gradient_flow.exists()
    assert all(torch.equal(measured[name], value) for name, value in bare.items())


def test_buffers_of_other_shapes(tmp_path: Path) -> None:
    """One that the first pass makes, and one of the size of the batch: measures run more sequences side by side."""
    own = ("model.layer._target_=support.noisy_cell.Lazy", "model.embedding_size=null", "estimator=full")
    measured, bare = both_trained(tmp_path, *own, "estimator.segment_size=3")
    assert measured["model.layers.0.last"].shape == (4, 4)
    assert all(torch.equal(measured[name], value) for name, value in bare.items())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("cell", [partial(Normalised, counts=True), Lazy])
@pytest.mark.parametrize("memory", [{"segment_size": 3}, {"memory_mb": 1e-3}])
def test_buffers_of_segments_are_those_of_one_pass(cell: Any, memory: dict[str, Any]) -> None:
    """Each segment begins with those that it had, and the probe of the memory leaves none; also if one is the state."""
    batch = Batch(torch.randint(2, (10, 5, 3)).double(), torch.randint(2, (10, 5)), torch.arange(50).view(10, 5) < 40)
    loss = lambda outputs, part: nn.functional.cross_entropy(outputs[part.mask], part.targets[part.mask])
    model = SequenceModel(input_size=3, output_size=2, hidden_size=4, layer=cell)
    found = []
    for estimator in (Full(10), Full(**memory)):
        trained, state = copy.deepcopy(model), model.initial_state(5)
        for _ in range(2):
            (update,) = estimator.updates(trained, loss, batch, state)
            state = update.state
        gradients = {name: weight.grad for name, weight in trained.named_parameters() if weight.grad is not None}
        found.append((leaves(state), gradients, dict(trained.named_buffers())))
    assert found[0][1]
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("counts", [False, True])
def test_forward_mode_changes_no_buffers(counts: bool, tmp_path: Path) -> None:
    words = ["model.layer._target_=support.noisy_cell.Normalised", f"+model.layer.counts={counts}", "estimator=rtrl"]
    wanted = "have the same values when a step in training is computed again" if counts else "buffers that change"
    with pytest.raises(ValueError, match=rf"^forward mode must run on layers .*{wanted}, got Normalised\(4\)"):
        preflight(compose_config([*SMALL, *words]), tmp_path / "run")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["estimator=rtrl"], "forward mode"),
        (["estimator=uoro"], "forward mode"),
        (["estimator=adaptive"], "adaptive truncation"),
        (["regulariser=omega"], "regulariser=omega"),
    ],
)
def test_what_computes_a_step_again_is_refused(words: list[str], name: str, tmp_path: Path) -> None:
    message = rf"^{name} must run on layers that .*, got Noisy\(4\), .*leave random numbers to model\.dropout$"
    with pytest.raises(ValueError, match=message):
        preflight(compose_config([*SMALL, *words]), tmp_path / "run")


def test_a_copy_without_dropout_draws_nothing() -> None:
    """Two passes of a copy agree, and the layers of the model stay in training mode."""
    model = SequenceModel(input_size=3, output_size=2, hidden_size=4, layer=Noisy)
    inputs, before = torch.randn(5, 2, 3), torch.get_rng_state()
    twin = model.without_dropout()
    first, again = (twin(inputs, twin.initial_state(2))[0] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(before, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    assert not torch.equal(*(model(inputs, model.initial_state(2))[0] for _ in range(2)))


def test_kernels_of_torch() -> None:
    """Their dropout lies between the levels of one module; on CUDA they have no backward pass in evaluation mode."""
    zeros = lambda size: (torch.zeros(2, size, 4), torch.zeros(2, size, 4))
    layer = Adapter(nn.LSTM(3, 4, num_layers=2, dropout=0.5), 3, 4, initial=zeros, batch_dim=1)
    assert not repeats(layer)
    silence(layer)
    assert layer.module.training
    assert repeats(layer)
    assert all(repeats(kind(3, 4)) for kind in ALL.values())
