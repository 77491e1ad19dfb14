"""An interrupted and resumed run equals the uninterrupted one, to the bit."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from support.two_processes import Kill, Killed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bptt import metrics_file
from bptt.estimators import RFLO, RTRL, UORO, Adaptive, Chunked, Estimator, Full, Randomized, Sliding, SnAp
from bptt.layers import GRU
from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.divergence import Divergence
from bptt.lightning.callbacks.gradient_flow import GradientFlow
from bptt.lightning.callbacks.jacobian_spectrum import JacobianSpectrum
from bptt.lightning.callbacks.parameter_norms import ParameterNorms
from bptt.lightning.callbacks.summary import RunSummary
from bptt.lightning.callbacks.truncation_bias import TruncationBias
from bptt.lightning.checkpoint_files import newest_checkpoint, read
from bptt.lightning.clipping import Clipping
from bptt.lightning.data import TaskData
from bptt.lightning.learning_rates import decay_after
from bptt.lightning.loggers import CSVLogger, EventLogger, discard_after
from bptt.lightning.module import BPTTModule, LearningRateSchedule
from bptt.model import SequenceModel
from bptt.run_folder import RunFolder
from bptt.tasks.base import Task
from bptt.tasks.copy_memory import CopyMemory
from bptt.tasks.text import Text

ESTIMATORS: dict[str, Any] = {
    "chunked": lambda: Chunked(7),
    "accumulated": lambda: Chunked(7, update="sequence"),
    "full": Full,
    "sliding": lambda: Sliding(5, 8),
    "randomized": lambda: Randomized(6, block=2),
    "adaptive": lambda: Adaptive(0.5, lags=8, every_n_batches=2, num_samples=3),
    "rtrl": lambda: RTRL(10),
    "snap": lambda: SnAp(10),
    "uoro": lambda: UORO(10),
    "rflo": lambda: RFLO(10),
}
FORWARD_MODE = ("rtrl", "snap", "uoro", "rflo")


def text(folder: Path) -> Task:
    """Five batches per epoch and a shorter one; the state is carried from batch to batch."""
    path = folder / "text.txt"
    if not path.exists():
        path.write_text("".join(chr(97 + index * index % 11) for index in range(700)))
    return Text(length=23, batch_size=4, path=str(path), fractions=(0.8, 0.1, 0.1))


def copying(folder: Path) -> Task:
    return CopyMemory(delay=3, batch_size=4, seed=3, train_batches=6, validation_batches=2, test_batches=1)


def train(
    folder: Path,
    task: Task,
    estimator: Estimator,
    *,
    kill: int | None = None,
    epochs: int = 2,
    max_steps: int = -1,
    watched: bool = False,
    **options: Any,
) -> BPTTModule:
    """Two epochs in a folder, from its newest checkpoint if there is one; checkpoints at every second batch or so."""
    torch.manual_seed(5)
    dropout = 0.0 if type(estimator).__name__.lower() in FORWARD_MODE else 0.3
    sizes: dict[str, Any] = {"input_size": task.input_size, "output_size": task.output_size, "hidden_size": 6}
    module = BPTTModule(
        task=task,
        model=SequenceModel(GRU, **sizes, num_layers=2, dropout=dropout),
        estimator=estimator,
        optimizer=partial(torch.optim.Adam, lr=0.01),
        optimizer_groups={"recurrent": {"lr": 0.02}, "biases": {"weight_decay": 0.1}},
        schedule=LearningRateSchedule(partial(decay_after, factor=0.9, start=1), "epoch"),
        clipping=Clipping("norm"),
    )
    bias = [TruncationBias(every_n_batches=3, max_timesteps=20)] if watched else []
    looks = [GradientFlow(every_n_updates=4), JacobianSpectrum(every_n_updates=5)] if watched else []
    seen: list[Callback] = [*looks, ParameterNorms(every_n_updates=3)]
    options = {"every_n_updates": 5, **options}
    ends: list[Callback] = [Checkpoint(**options), Divergence(), RunSummary(), *([Kill(kill)] if kill else [])]
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        max_steps=max_steps,
        val_check_interval=4,
        callbacks=[*seen, *bias, *ends],
        logger=[EventLogger(folder), CSVLogger(folder)],
        log_every_n_steps=3,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    checkpoint, _ = newest_checkpoint(folder)
    if checkpoint is None:
        discard_after(trainer, -1)
    trainer.fit(module, datamodule=TaskData(module), ckpt_path=checkpoint, weights_only=True)
    return module


def points(folder: Path) -> dict[str, Any]:
    """Everything TensorBoard shows of a run, but for times, and the scalars once more from their file."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "histograms": 0, "tensors": 0})
    tags = events.Reload().Tags()
    found: dict[str, Any] = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"]}
    del found["cost/wall_seconds"]
    found |= {tag: [(e.step, e.encoded_image_string) for e in events.Images(tag)] for tag in tags["images"]}
    found |= {tag: [(e.step, e.histogram_value) for e in events.Histograms(tag)] for tag in tags["histograms"]}
    return found | {"tensors": sorted(tags["tensors"]), "csv": list(metrics_file.read(RunFolder(folder).metrics))}


def assert_same_run(whole: Path, other: Path) -> None:
    first, second = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, other))
    for name in ("data", "encoding"):
        assert second["bptt"].pop(name) == first["bptt"].pop(name)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "bptt"):
        torch.testing.assert_close(second[key], first[key], rtol=0, atol=0)
    assert second["summary"]["metrics"] == first["summary"]["metrics"]
    expected, found = points(whole), points(other)
    assert found.keys() == expected.keys()
    for tag, values in expected.items():
        assert found[tag] == values, tag


# A task whose sequences begin anew does not depend on where an estimator stands in a stream.
RESETTING = ("accumulated", "full", "randomized", "adaptive")
WATCHED = ("chunked", "rtrl")  # with all callbacks that look at gradients, which draw figures and take long
CASES = [(name, text) for name in ESTIMATORS] + [(name, copying) for name in RESETTING]


@pytest.mark.parametrize(("name", "make_task"), CASES)
def test_an_interrupted_run_is_the_run_that_would_have_been(tmp_path: Path, name: str, make_task: Any) -> None:
    """Killed in the first epoch, and again in the second."""
    task, watched = make_task(tmp_path), name in WATCHED
    whole = train(tmp_path / "whole", task, ESTIMATORS[name](), watched=watched)
    for at in (whole.counters.updates // 3 + 1, 3 * whole.counters.updates // 4):
        with pytest.raises(Killed):
            train(tmp_path / "cut", task, ESTIMATORS[name](), kill=at, watched=watched)
        assert newest_checkpoint(tmp_path / "cut")[0] is not None or at < 6
    train(tmp_path / "cut", task, ESTIMATORS[name](), watched=watched)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("at", [5, 23, 41])
def test_at_any_moment(tmp_path: Path, at: int) -> None:
    """50 updates, a checkpoint between any two batches."""
    task = text(tmp_path)
    whole = train(tmp_path / "whole", task, Chunked(6), every_n_updates=1)
    assert whole.counters.updates == 50
    with pytest.raises(Killed):
        train(tmp_path / "cut", task, Chunked(6), kill=at, every_n_updates=1)
    train(tmp_path / "cut", task, Chunked(6), every_n_updates=1)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("begin", ["last", "best"])
def test_a_longer_run_goes_on_from_the_end(tmp_path: Path, begin: str) -> None:
    """One epoch and then two more are three, but for a validation at the first end.

    So they are from a copy of best.ckpt, which was written in that validation, before the end of the epoch.
    """
    task = text(tmp_path)
    whole = train(tmp_path / "whole", task, Chunked(7), epochs=3)
    train(tmp_path / "cut", task, Chunked(7), epochs=1)
    run = RunFolder(tmp_path / "cut")
    if begin == "best":
        shutil.copy(run.best_checkpoint, run.last_checkpoint)
        assert read(run.last_checkpoint)["bptt"]["place"] == {"epoch": 0, "batch": 7}
    longer = train(tmp_path / "cut", task, Chunked(7), epochs=3)
    assert longer.counters == whole.counters
    assert longer.stream_position == whole.stream_position
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(longer.model.state_dict()[name], weight), name


@pytest.mark.parametrize("stops", [(2,), (3, 5), (7,), (7, 9), (8, 11)])
def test_a_run_of_more_updates_goes_on_within_the_epoch(tmp_path: Path, stops: tuple[int, ...]) -> None:
    """An epoch of 7 updates, one a batch, is cut short once or twice, or over; the learning rate goes by epochs."""
    task = text(tmp_path)
    whole = train(tmp_path / "whole", task, Chunked(23), epochs=4, max_steps=14)
    for number in (*stops, 14):
        longer = train(tmp_path / "cut", task, Chunked(23), epochs=4, max_steps=number)
        assert longer.counters.updates == number
    assert longer.counters == whole.counters
    assert longer.stream_position == whole.stream_position
    assert longer.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(longer.model.state_dict()[name], weight), name


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    task = text(tmp_path)
    train(tmp_path / "run", task, Chunked(7), epochs=1)
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["bptt"]["processes"] *= 2
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"as many processes as it had, 2, got 1; set trainer\.devices"):
        train(tmp_path / "run", task, Chunked(7))
