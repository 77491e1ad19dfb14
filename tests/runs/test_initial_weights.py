"""A run can start from the trained weights of another."""

import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from support.small_runs import trained

from bptt.configuration.build import build_module
from bptt.configuration.compose import compose_config
from bptt.configuration.paths import with_absolute_paths
from bptt.lightning.checkpoint_files import read
from bptt.run_folder import RunFolder
from bptt.runs.loading import load_run
from bptt.runs.resumed_command import absolute_paths
from bptt.runs.training import train

COPY = ("task=copy_memory", "task.delay=3", "task.train_batches=3", "task.validation_batches=1")


def config_of(*words: str, task: tuple[str, ...] = COPY) -> DictConfig:
    config = compose_config([*task, "task.batch_size=4", "model.hidden_size=4", "logger=none", *words])
    config.callbacks = {name: config.callbacks[name] for name in ("summary", "checkpoint")}
    return config


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(config_of("trainer.val_check_interval=1"), tmp_path_factory.mktemp("source") / "run")


def test_the_best_weights_of_a_run_or_those_of_a_checkpoint(source: Path) -> None:
    last = RunFolder(source).last_checkpoint
    for given, checkpoint in ((source, "best"), (last, "last")):
        module = build_module(config_of(f"model.init_from={given}"))
        expected = load_run(source, checkpoint=checkpoint).model.state_dict()
        for name, weight in module.model.state_dict().items():
            assert torch.equal(weight, expected[name]), name
        assert module.counters.updates == 0


def test_a_run_goes_on_and_is_loaded_when_the_other_is_gone(source: Path, tmp_path: Path) -> None:
    other = shutil.copytree(source, tmp_path / "source")
    config = config_of(f"model.init_from={other}")
    folder = trained(config, tmp_path / "run")
    shutil.rmtree(other)
    config.resume, config.trainer.max_epochs = "auto", 2
    train(config, folder)
    load_run(folder, checkpoint="last")
    with pytest.raises(ValueError, match=r"model\.init_from must be a checkpoint, or the folder of a run that has one"):
        train(config_of(f"model.init_from={other}"), tmp_path / "new")


def test_weights_in_float64_are_not_rounded(tmp_path: Path) -> None:
    words = ("trainer.precision=64-true", "trainer.val_check_interval=1", "optimizer=sgd")
    folders = [trained(config_of(*words, "optimizer.lr=.1"), tmp_path / "source")]
    given = (f"model.init_from={folders[0]}", "optimizer.lr=0")
    folders.append(trained(config_of(*words, *given), tmp_path / "copy"))
    before, after = (read(RunFolder(folder).last_checkpoint)["state_dict"] for folder in folders)
    for name, weight in before.items():
        assert weight.dtype == torch.float64
        assert torch.equal(weight, after[name]), name
        assert name.endswith("initial.0") or not torch.equal(weight, weight.float().double())


@pytest.mark.parametrize("word", ["model.hidden_size=5", "model=gru", "model.num_layers=2"])
def test_another_model_is_refused(source: Path, word: str) -> None:
    with pytest.raises(ValueError, match="the checkpoint must be of the same model") as refused:
        build_module(config_of(f"model.init_from={source}", word))
    assert len(str(refused.value).splitlines()) == 1


def test_other_tokens_are_refused(tmp_path: Path) -> None:
    """The same number of different bytes, one of which is another."""
    for name, letters in (("one", "abc"), ("other", "abd")):
        (tmp_path / name).write_text(f"{letters} {letters[::-1]} " * 50, encoding="utf-8")
    one, other = (("task=text", "task.length=8", f"task.path={tmp_path / name}") for name in ("one", "other"))
    folder = trained(config_of("trainer.limit_train_batches=1", task=one), tmp_path / "run")
    build_module(config_of(f"model.init_from={folder}", task=one))
    with pytest.raises(ValueError, match=r"a run with the task's vocabulary of 4 tokens, .*not all the same"):
        build_module(config_of(f"model.init_from={folder}", task=other))


def test_relative_folders_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    assert absolute_paths(["model.init_from=run"]) == [f"model.init_from='{tmp_path}/run'"]
    assert with_absolute_paths(config_of("model.init_from=run"), tmp_path).model.init_from == f"{tmp_path}/run"
