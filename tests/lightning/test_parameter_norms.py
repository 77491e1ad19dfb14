"""Logged norms against autograd's gradient of the first batch."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger
from support import oracles
from torch import Tensor

from bptt.estimators import Chunked, Full
from bptt.layers import GRU
from bptt.lightning.callbacks.parameter_norms import ParameterNorms
from bptt.lightning.clipping import Clipping
from bptt.lightning.data import TaskData
from bptt.lightning.module import BPTTModule
from bptt.model import SequenceModel
from bptt.tasks.adding import Adding

LENGTH, B = 12, 4


def train(folder: Path, clipping: Clipping | None = None, **options: Any) -> tuple[BPTTModule, list[dict[str, float]]]:
    """Three updates, and the logged points that hold norms."""
    torch.manual_seed(2)
    task = Adding(length=LENGTH, batch_size=B, seed=1, train_batches=3, validation_batches=1, test_batches=1)
    model = SequenceModel(GRU, input_size=2, output_size=1, hidden_size=5, num_layers=2)
    module = BPTTModule(
        task=task,
        model=model,
        estimator=options.pop("estimator", Full()),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        clipping=clipping,
    )
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=1,
        callbacks=[ParameterNorms(**({"every_n_updates": 1} | options))],
        logger=CSVLogger(folder, name="", version=""),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=TaskData(module))
    names, *rows = (line.split(",") for line in (folder / "metrics.csv").read_text().splitlines())
    points = [{name: float(value) for name, value in zip(names, row) if value} for row in rows]
    return module, [point for point in points if "parameters/weight_norm" in point]


def first_gradient() -> tuple[SequenceModel, dict[str, Tensor]]:
    """Gradient of the mean squared error at the last timestep of the first batch."""
    torch.manual_seed(2)
    task = Adding(length=LENGTH, batch_size=B, seed=1, train_batches=3, validation_batches=1, test_batches=1)
    model = SequenceModel(GRU, input_size=2, output_size=1, hidden_size=5, num_layers=2)
    batch = task.batch("train", 0)
    predictions = oracles.run_model("gru", model, batch.inputs).predictions
    loss = (predictions[-1] - batch.targets[-1]).square().mean()
    return model, oracles.gradients(loss, model)


@pytest.mark.parametrize("clipping", [None, Clipping("norm", 1e-4), Clipping("value", 1e-5)], ids=str)
def test_logged_norms_are_those_before_clipping(tmp_path: Path, clipping: Clipping | None) -> None:
    module, points = train(tmp_path, clipping)
    model, gradient = first_gradient()
    found = {name: value for name, value in points[0].items() if name.startswith("parameters/")}
    parts = {"layer1": "layers.0.", "layer2": "layers.1.", "readout": "readout.", "all": ""}
    expected = {
        f"parameters/gradient_norm/{part}": float(
            torch.cat([value.flatten() for name, value in gradient.items() if name.startswith(prefix)]).norm()
        )
        for part, prefix in parts.items()
    }
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert found == pytest.approx(expected | {"parameters/weight_norm": float(weights.norm())}, rel=1e-5)
    if clipping is not None:
        after, before = (each.get_parameter("readout.weight").detach() for each in (module.model, model))
        assert float((after - before).norm()) < 1e-4  # it was clipped


def test_points_are_those_of_the_schedule(tmp_path: Path) -> None:
    """The x-axis counts the timesteps of the update itself."""
    _, points = train(tmp_path, estimator=Chunked(LENGTH), every_n_updates=3)
    assert [point["progress/updates"] for point in points] == [1, 2, 3]
    assert [point["step"] for point in points] == [LENGTH, 2 * LENGTH, 3 * LENGTH]


def test_log_spacing_can_be_left_out(tmp_path: Path) -> None:
    _, points = train(tmp_path, every_n_updates=2, log_spaced=False)
    assert [point["progress/updates"] for point in points] == [2]
