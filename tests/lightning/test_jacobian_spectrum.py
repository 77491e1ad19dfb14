"""The Jacobian spectrum that training reports, against explicit products along the same states."""

import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning import Trainer
from support import oracles
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bptt.estimators import Chunked, Full
from bptt.estimators.base import Estimator
from bptt.layers import LRU, Elman
from bptt.lightning.callbacks.jacobian_spectrum import JacobianSpectrum
from bptt.lightning.data import TaskData
from bptt.lightning.loggers import EventLogger
from bptt.lightning.module import BPTTModule
from bptt.measures.jacobian import random_orthonormal
from bptt.model import SequenceModel
from bptt.tasks.copy_memory import CopyMemory

LENGTH, B, H = 27, 3, 6


class Run(NamedTuple):
    module: BPTTModule
    events: EventAccumulator

    def first(self, tag: str) -> float:
        return float(self.events.Scalars(tag)[0].value)


def network() -> SequenceModel:
    torch.manual_seed(3)
    return SequenceModel(Elman, input_size=10, output_size=9, hidden_size=H, num_layers=2)


def copy_memory(batches: int) -> CopyMemory:
    return CopyMemory(delay=7, batch_size=B, seed=1, train_batches=batches, validation_batches=1, test_batches=1)


def train(
    folder: Path,
    callback: JacobianSpectrum,
    estimator: Estimator,
    *,
    batches: int = 1,
    model: SequenceModel | None = None,
) -> Run:
    task = copy_memory(batches)
    module = BPTTModule(
        task=task, model=model or network(), estimator=estimator, optimizer=partial(torch.optim.SGD, lr=0.1)
    )
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        callbacks=[callback],
        logger=EventLogger(folder),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=TaskData(module))
    return Run(module, EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload())


def jacobians(level: int) -> list[np.ndarray]:
    """diag(1 − h_t²) W_hh at each timestep of the first sequence of the first batch, on the weights at the start."""
    model, batch = network(), copy_memory(1).batch("train", 0)
    states = oracles.run_model("elman", model, oracles.one_hot(batch.inputs, 10)).states[level]
    weight = oracles.layer_weights(model, f"layers.{level}.")[1].detach()
    return [(torch.diag(1 - state[0][0].detach() ** 2) @ weight).double().numpy() for state in states]


def product(each: list[np.ndarray]) -> np.ndarray:
    return np.linalg.multi_dot(each[::-1]) if len(each) > 1 else each[0]


def exponent(each: list[np.ndarray]) -> float:
    """The largest, from the measure's own first vector, which goes back through all of them."""
    vector, total = random_orthonormal(H, 1)[:, 0].numpy(), 0.0
    for jacobian in reversed(each):
        vector = jacobian.T @ vector
        total += math.log(np.linalg.norm(vector))
        vector /= np.linalg.norm(vector)
    return total / len(each)


@pytest.mark.parametrize(
    ("estimator", "end"), [(Chunked(9), 9), (Full(100), LENGTH), (Full(5), LENGTH)], ids=["chunked", "full", "segments"]
)
def test_reported_numbers_are_those_of_explicit_products(tmp_path: Path, estimator: Estimator, end: int) -> None:
    """The largest singular value 8 timesteps back, wherever the estimator's stretches begin and end."""
    run = train(tmp_path, JacobianSpectrum(every_n_updates=1, lag=8), estimator)
    for level in (0, 1):
        along = jacobians(level)[:end]
        expected = np.linalg.svd(product(along[-8:]), compute_uv=False)[0]
        assert run.first(f"jacobian/layer{level + 1}/norm") == pytest.approx(expected, rel=1e-3)
        assert run.first(f"jacobian/layer{level + 1}/lyapunov") == pytest.approx(exponent(along), rel=1e-3)


def test_as_many_timesteps_as_there_are(tmp_path: Path) -> None:
    """A chunk shorter than the lag, and a bound on the timesteps that are looked at."""
    along = jacobians(0)
    short = train(tmp_path / "short", JacobianSpectrum(every_n_updates=1, lag=100), Chunked(6))
    expected = np.linalg.svd(product(along[1:6]), compute_uv=False)[0]
    assert short.first("jacobian/layer1/norm") == pytest.approx(expected, rel=1e-3)
    bounded = train(tmp_path / "bounded", JacobianSpectrum(every_n_updates=1, max_timesteps=6, lag=100), Full(100))
    assert bounded.first("jacobian/layer1/norm") == pytest.approx(expected, rel=1e-3)


def test_wide_layers_have_the_frobenius_norm(tmp_path: Path) -> None:
    """The norm is estimated from sixteen probes, with a relative standard error of at most 1/√32 = 0.18."""
    along = jacobians(0)
    wide = JacobianSpectrum(every_n_updates=1, max_hidden_size=H - 1, lag=8)
    run = train(tmp_path / "run", wide, Chunked(9))
    expected = np.linalg.norm(product(along[1:9]))
    assert run.first("jacobian/layer1/norm") == pytest.approx(expected, rel=4 * 0.18)
    assert run.first("jacobian/layer1/norm") != pytest.approx(np.linalg.norm(product(along[1:9]), 2), rel=1e-6)


def test_figures_come_at_the_first_and_fourth_look(tmp_path: Path) -> None:
    callback = JacobianSpectrum(every_n_updates=1)
    run = train(tmp_path, callback, Full(), batches=4)
    assert [image.step for image in run.events.Images("jacobian/figure/layer1")] == [LENGTH, 4 * LENGTH]
    assert [point.step for point in run.events.Scalars("jacobian/layer1/norm")] == [n * LENGTH for n in range(1, 5)]
    again = JacobianSpectrum()
    again.load_state_dict(callback.state_dict())
    assert again.looks == 4


def test_eigenvalues_of_diagonal_recurrences(tmp_path: Path) -> None:
    """|Λ| of an LRU by its own formula, on the weights at the start."""
    torch.manual_seed(3)
    stack = SequenceModel(LRU, input_size=10, output_size=9, hidden_size=H)
    modulus = torch.exp(-stack.get_parameter("layers.0.log_nu").detach().exp()).double()
    run = train(tmp_path, JacobianSpectrum(every_n_updates=1), Full(), model=stack)
    for percent in (5, 50, 95):
        expected = float(modulus.quantile(percent / 100))
        assert run.first(f"jacobian/layer1/modulus_{percent}") == pytest.approx(expected, rel=1e-5)
        assert run.first(f"jacobian/layer1/memory_{percent}") == pytest.approx(1 / (1 - expected), rel=1e-3)
    assert run.first("jacobian/layer1/lyapunov") == pytest.approx(math.log(float(modulus.max())), rel=1e-4)
    assert len(run.events.Images("jacobian/eigenvalues")) == 1


def test_nothing_is_looked_at_before_it_is_due(tmp_path: Path) -> None:
    run = train(tmp_path, JacobianSpectrum(), Full())
    assert not any(tag.startswith("jacobian") for tag in run.events.Tags()["scalars"])


@pytest.mark.parametrize("wrong", [{"max_timesteps": 1}, {"max_hidden_size": 0}, {"lag": 0}], ids=str)
def test_refusals(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        JacobianSpectrum(**wrong)
