"""Own cells that draw random numbers in training: BPTT trains them, and nothing draws other numbers a second time."""

from pathlib import Path

import pytest
import torch
from support.layer_kinds import ALL
from support.noisy_cell import Noisy
from support.small_runs import trained
from torch import nn

from bptt.configuration.compose import compose_config
from bptt.layers import Adapter
from bptt.layers.randomness import draws_random_numbers, silence
from bptt.lightning.checkpoint_files import read
from bptt.model import SequenceModel
from bptt.run_folder import RunFolder
from bptt.runs.training import preflight

SMALL = (
    "task=copy_memory", "task.delay=3", "task.batch_size=4", "task.train_batches=4", "task.validation_batches=1",
    "model=gru", "model.layer._target_=support.noisy_cell.Noisy", "model.hidden_size=4", "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1", "trainer.enable_progress_bar=false",
)  # fmt: skip


def test_measures_change_no_random_number_of_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With all measures, and without any. Those of passes of training are left out; the bias is of a silent copy."""
    weights = []
    for name, words in (("measured", ["callbacks=[default,bias]"]), ("bare", ["logger=none"])):
        config = compose_config([*SMALL, *words])
        if name == "bare":
            config.callbacks = {key: config.callbacks[key] for key in ("summary", "checkpoint")}
        weights.append(read(RunFolder(trained(config, tmp_path / name)).last_checkpoint)["state_dict"])
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    lines = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert lines == [
        "left out because Noisy(4) draws random numbers in training, which they would draw again: "
        "GradientFlow, JacobianSpectrum"
    ]


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
    message = rf"^{name} must run on layers without random numbers .*, got Noisy\(4\), .*leave them to model\.dropout$"
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
    assert draws_random_numbers(layer)
    silence(layer)
    assert layer.module.training
    assert not draws_random_numbers(layer)
    assert not any(draws_random_numbers(kind(3, 4)) for kind in ALL.values())
