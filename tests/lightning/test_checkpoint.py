"""Checkpoints: which weights they hold, that they are whole, and that another model's are refused."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.plugins import TorchCheckpointIO
from support.fixed_batches import random_batch
from support.training import fit, make_module, stream
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import Tensor

from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.checkpoint_files import load_weights, newest_checkpoint, read
from bptt.lightning.loggers import EventLogger
from bptt.lightning.module import BPTTModule
from bptt.run_folder import RunFolder

Far = partial(torch.optim.SGD, lr=0.3)


class History(Callback):
    """The weights and scores at each validation."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.scores: list[dict[str, float]] = []
        self.batches: list[int] = []  # trained before each

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, BPTTModule)
        self.weights.append(copy.deepcopy(pl_module.model.state_dict()))
        self.scores.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.batches.append(pl_module.counters.batches)


def module_with_validation(kind: str = "lstm", **options: Any) -> BPTTModule:
    task = stream([6] * 8)
    task.batches["validation"] = [random_batch(20, 3)]
    return make_module(task, kind, optimizer=Far, **options)


def run(folder: Path, checkpoint: Checkpoint, **options: Any) -> tuple[BPTTModule, History]:
    """Eight batches with a validation after each; the scores go up and down."""
    torch.manual_seed(8)
    module, history = module_with_validation(), History()
    fit(module, callbacks=[checkpoint, history], default_root_dir=folder, val_check_interval=1, **options)
    return module, history


def weights(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("monitor", ["validation/loss", "validation/mse"])
def test_best_is_by_the_monitored_metric(tmp_path: Path, mode: Any, monitor: str) -> None:
    module, history = run(tmp_path, Checkpoint(monitor, mode))
    scores = [score[monitor] for score in history.scores]
    best = scores.index(min(scores) if mode == "min" else max(scores))
    assert len(set(scores)) == 8
    assert equal(weights(RunFolder(tmp_path).checkpoints / "best.ckpt"), history.weights[best])
    assert equal(weights(RunFolder(tmp_path).checkpoints / "last.ckpt"), dict(module.model.state_dict()))


def test_best_is_neither_the_first_nor_the_last_of_this_run(tmp_path: Path) -> None:
    """Otherwise the test above could not distinguish them."""
    _, history = run(tmp_path, Checkpoint())
    scores = [score["validation/loss"] for score in history.scores]
    assert 0 < scores.index(min(scores)) < 7
    assert 0 < scores.index(max(scores)) < 7


class FullDisk(TorchCheckpointIO):
    """Writes half of a file and fails, once `room` files have been written."""

    def __init__(self, room: int):
        self.room = room

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        super().save_checkpoint(checkpoint, path, storage_options)
        self.room -= 1
        if self.room < 0:
            Path(path).write_bytes(Path(path).read_bytes()[: Path(path).stat().st_size // 2])
            raise OSError("no space left on device")


class Busy(Callback):
    """Logs many points at each validation."""

    points = 1000

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in range(self.points):
            trainer.loggers[0].log_metrics({"busy": 0.0}, step=number)


class Witness(TorchCheckpointIO):
    """Number of those points on the disk whenever a checkpoint is written."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.seen: list[int] = []

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        (events,) = self.folder.glob("events.out.tfevents.*")
        values = [value for event in EventFileLoader(str(events)).Load() for value in event.summary.value]
        self.seen.append(sum(value.tag == "busy" for value in values))
        super().save_checkpoint(checkpoint, path, storage_options)


def test_curves_do_not_end_before_the_checkpoint_that_they_lead_to(tmp_path: Path) -> None:
    module, witness = module_with_validation(), Witness(tmp_path)
    options: dict[str, Any] = {"plugins": [witness], "val_check_interval": 4, "log_every_n_steps": 1}
    callbacks = [Busy(), Checkpoint()]
    fit(module, callbacks=callbacks, logger=EventLogger(tmp_path), default_root_dir=tmp_path, **options)
    assert len(witness.seen) >= 3  # the first is the best, after each validation there is a last one
    assert [seen % Busy.points for seen in witness.seen] == [0] * len(witness.seen)
    assert witness.seen[0] == Busy.points
    assert witness.seen[-1] == 2 * Busy.points


@pytest.mark.parametrize("room", [1, 2, 3, 6])
def test_files_are_whole_when_the_disk_is_full(tmp_path: Path, room: int) -> None:
    with pytest.raises(OSError, match="no space left"):
        run(tmp_path, Checkpoint(), plugins=[FullDisk(room)])
    files = list(RunFolder(tmp_path).checkpoints.glob("*.ckpt"))
    assert files
    for path in files:
        assert set(weights(path)) == set(module_with_validation().model.state_dict())


def test_best_and_the_last_two_stay(tmp_path: Path) -> None:
    run(tmp_path, Checkpoint())
    files = ["best.ckpt", "last.ckpt", "previous.ckpt"]
    assert sorted(path.name for path in RunFolder(tmp_path).checkpoints.iterdir()) == files
    batches = [read(RunFolder(tmp_path).checkpoints / name)["bptt"]["counters"]["batches"] for name in files[1:]]
    assert batches == [8, 7], "one at the end, one between the last two batches"


@pytest.mark.parametrize(("updates", "batches"), [(1, 7), (4, 6), (5, 6), (100, None)])
def test_every_so_many_updates(tmp_path: Path, updates: int, batches: int | None) -> None:
    """Between batches, which have two updates each."""
    checkpoint = Checkpoint(every_n_updates=updates)
    fit(module_with_validation(), callbacks=[checkpoint], default_root_dir=tmp_path, limit_val_batches=0)
    previous = RunFolder(tmp_path).checkpoints / "previous.ckpt"
    assert previous.exists() == (batches is not None)
    assert batches is None or read(previous)["bptt"]["counters"]["batches"] == batches


def test_every_so_many_minutes(tmp_path: Path) -> None:
    checkpoint = Checkpoint(every_n_minutes=1e-9)
    fit(module_with_validation(), callbacks=[checkpoint], default_root_dir=tmp_path, limit_val_batches=0)
    assert read(RunFolder(tmp_path).checkpoints / "previous.ckpt")["bptt"]["counters"]["batches"] == 7


def test_a_corrupted_file_is_named_and_the_one_before_is_used(tmp_path: Path) -> None:
    """Whichever byte is wrong: the file is refused, or holds the same numbers."""
    run(tmp_path, Checkpoint())
    last, previous = (RunFolder(tmp_path).checkpoints / f"{name}.ckpt" for name in ("last", "previous"))
    content, right, refused = last.read_bytes(), read(last)["state_dict"], 0
    for place in range(0, len(content), 97):
        last.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        found, faults = newest_checkpoint(tmp_path)
        if found == last:
            assert equal(read(last)["state_dict"], right)
            continue
        refused += 1
        assert found == previous
        assert str(last) in faults[0]
    assert refused > 50
    for length in (0, 1, len(content) // 2, len(content) - 1):
        last.write_bytes(content[:length])
        assert newest_checkpoint(tmp_path)[0] == previous
    previous.write_bytes(b"")
    assert newest_checkpoint(tmp_path)[0] is None
    assert len(newest_checkpoint(tmp_path)[1]) == 2


def test_loading_runs_nothing(tmp_path: Path) -> None:
    """A file with code in it is refused before any of it runs."""
    path = RunFolder(tmp_path).checkpoints / "last.ckpt"
    path.parent.mkdir()
    torch.save({"state_dict": Trap(tmp_path / "trodden")}, path)
    with pytest.raises(ValueError, match=r"must be a whole file written by training, .* more than tensors") as refused:
        read(path)
    assert "weights_only" not in str(refused.value), "torch's own message advises to run the code"
    assert not (tmp_path / "trodden").exists()


class Trap:
    """Pickled, it leaves a file wherever it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_another_format_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "bptt": {"format": 0}}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"must be of format 1, got .* of format 0; train again"):
        read(tmp_path / "last.ckpt")


def test_another_content_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "last.ckpt")
    with pytest.raises(
        ValueError, match=r"must be as training writes it, got .*last\.ckpt that holds a list; train again"
    ):
        read(tmp_path / "last.ckpt")


def test_last_is_written_without_any_validation(tmp_path: Path) -> None:
    module = make_module(stream([6, 6]))
    fit(module, callbacks=[Checkpoint()], default_root_dir=tmp_path, limit_val_batches=0)
    assert [path.name for path in RunFolder(tmp_path).checkpoints.iterdir()] == ["last.ckpt"]
    assert equal(weights(RunFolder(tmp_path).checkpoints / "last.ckpt"), dict(module.model.state_dict()))


@pytest.mark.parametrize(
    ("options", "moments"),
    [
        ({"max_epochs": 1, "val_check_interval": 3}, [3, 6, 8]),
        ({"max_epochs": 2, "val_check_interval": 4}, [4, 8, 12, 16]),
        ({"max_epochs": 2, "val_check_interval": 5}, [5, 13, 16]),
        ({"max_epochs": 9, "val_check_interval": 4, "max_steps": 9}, [4, 5]),
        ({"max_epochs": 9, "val_check_interval": 4, "max_steps": 9, "min_epochs": 9}, [4, 5]),
        ({"max_epochs": 2, "val_check_interval": 5, "min_epochs": 2, "min_steps": 99}, [5, 13, 16]),
        ({"max_epochs": 3, "val_check_interval": 1.0, "check_val_every_n_epoch": 2}, [16, 24]),
        ({"max_epochs": 9, "check_val_every_n_epoch": 5, "max_steps": 9}, [5]),
    ],
    ids=str,
)
def test_the_last_weights_have_a_score(options: dict[str, Any], moments: list[int]) -> None:
    """However the run ends; 8 batches an epoch, 2 updates each."""
    module, history = module_with_validation(), History()
    fit(module, callbacks=[history], **options)
    assert history.batches == moments
    assert module.counters.batches == moments[-1]


def test_a_run_that_ends_within_a_batch_ends_before_its_least_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the next batch would be taken for the rest of this one."""
    module, history = module_with_validation(), History()
    monkeypatch.setattr(module, "interrupted", lambda: module.counters.updates >= 9)  # as if `max_time` had passed
    fit(module, callbacks=[history], max_epochs=3, min_epochs=3)
    assert module.counters.updates == 9
    assert history.batches == [4]


def test_a_run_that_ends_by_time_scores_its_last_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an epoch that is not due for a validation."""
    module, history = module_with_validation(), History()
    monkeypatch.setattr(Timer, "time_elapsed", lambda *_: 600.0 if module.counters.batches >= 3 else 1.0)
    fit(module, callbacks=[history], max_epochs=3, check_val_every_n_epoch=2, max_time="00:00:09:00")
    assert history.batches == [module.counters.batches] == [3]


def test_a_sanity_check_is_no_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The score of weights that were never trained must not stand as the best; here it would be, by far."""
    checkpoint, module, history = Checkpoint(mode="max"), module_with_validation(), History()
    module.model.get_parameter("readout.bias").data.fill_(10)
    options: dict[str, Any] = {"val_check_interval": 1, "num_sanity_val_steps": 1}
    written: list[Any] = []
    monkeypatch.setattr(module, "write", written.append)
    fit(module, callbacks=[checkpoint, history], default_root_dir=tmp_path, **options)
    assert len(history.scores) == 1 + 8
    assert len([point for point in written if "validation/loss" in point]) == 8
    assert checkpoint.best == max(score["validation/loss"] for score in history.scores[1:])
    assert checkpoint.best < 200  # 2 · 10², what the untrained bias alone gives


def test_weights_load_back_to_the_bit(tmp_path: Path) -> None:
    module, _ = run(tmp_path, Checkpoint())
    other = module_with_validation()
    assert not equal(dict(other.model.state_dict()), dict(module.model.state_dict()))
    load_weights(other, RunFolder(tmp_path).checkpoints / "last.ckpt")
    assert equal(dict(other.model.state_dict()), dict(module.model.state_dict()))


def test_counters_are_in_the_checkpoint(tmp_path: Path) -> None:
    module, _ = run(tmp_path, Checkpoint())
    content = torch.load(RunFolder(tmp_path).checkpoints / "last.ckpt", weights_only=True)
    assert content["bptt"]["counters"] == {"updates": 16, "batches": 8, "timesteps": 8 * 6 * 3}
    assert content["bptt"]["counters"] == vars(module.counters)


@pytest.mark.parametrize(
    ("kind", "options", "parameter"),
    [
        ("gru", {}, "kernel"),
        ("lstm", {"hidden_size": 5}, "kernel"),
        ("lstm", {"num_layers": 2}, "layers.1"),
        ("lstm", {"learnt": True}, "initial.0"),
    ],
)
def test_checkpoint_of_another_model_is_refused_in_one_line(
    tmp_path: Path, kind: str, options: dict[str, Any], parameter: str
) -> None:
    run(tmp_path, Checkpoint())
    other = module_with_validation(kind, **options)
    before = copy.deepcopy(other.model.state_dict())
    with pytest.raises(ValueError, match="the checkpoint must be of the same model") as refused:
        load_weights(other, RunFolder(tmp_path).checkpoints / "last.ckpt")
    assert "\n" not in str(refused.value)
    assert parameter in str(refused.value)
    assert equal(dict(other.model.state_dict()), dict(before)), "nothing is half loaded"


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint", b"PK\x03\x04 cut short"])
def test_no_checkpoint_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "last.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        ValueError, match="a run must have" if content is None else "must be a whole file written by"
    ) as refused:
        load_weights(module_with_validation(), path)
    assert str(path) in str(refused.value)


def test_unknown_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"validation/loss, validation/mse.*; got validation/accuracy"):
        run(tmp_path, Checkpoint("validation/accuracy"))


def test_unknown_mode_is_refused() -> None:
    word: Any = "lowest"
    with pytest.raises(ValueError, match="mode must be min or max, got 'lowest'"):
        Checkpoint(mode=word)


class BlowsUpFirst(Callback):
    """Makes the first validation score no number, and the weights as before afterwards."""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, BPTTModule)
        self.bias = pl_module.model.get_parameter("readout.bias")
        self.kept = self.bias.detach().clone()
        if pl_module.counters.batches <= 1:
            self.bias.data.fill_(float("nan"))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bias.data.copy_(self.kept)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_any_number_is_better_than_none(tmp_path: Path, mode: Any) -> None:
    """A first score of nan must not stay the best for ever, though nothing is less or more than it."""
    checkpoint, module, history = Checkpoint(mode=mode), module_with_validation(), History()
    callbacks = [BlowsUpFirst(), checkpoint, history]
    fit(module, callbacks=callbacks, default_root_dir=tmp_path, val_check_interval=1)
    first, *rest = [score["validation/loss"] for score in history.scores]
    assert first != first
    best = min(rest) if mode == "min" else max(rest)
    assert checkpoint.best == best
    assert equal(weights(RunFolder(tmp_path).checkpoints / "best.ckpt"), history.weights[1 + rest.index(best)])
