"""Errors that can be detected before a run starts are raised before its folder exists."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from support.small_runs import trained

from bptt.configuration.build import build_module
from bptt.configuration.compose import compose_config
from bptt.configuration.errors import plain_errors
from bptt.configuration.paths import check_folder
from bptt.lightning.checkpoint_files import read
from bptt.run_folder import RunFolder
from bptt.runs.reading import read_curves
from bptt.runs.resumption import check_configuration, check_run_folder
from bptt.runs.training import build, preflight, train

SMALL = (
    "task=copy_memory", "task.delay=3", "task.batch_size=4", "task.train_batches=2", "task.validation_batches=1",
    "model.hidden_size=4", "logger=none",
)  # fmt: skip


def config_of(*words: str) -> DictConfig:
    config = compose_config([*SMALL, *words])
    config.callbacks = {name: config.callbacks[name] for name in ("summary", "checkpoint")}
    return config


def test_processes_that_do_not_divide_the_batch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task\.batch_size must be divisible by the number of processes, got 4"):
        preflight(config_of("trainer.devices=3", "trainer.strategy=ddp"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_monitored_metric_that_the_task_lacks(tmp_path: Path) -> None:
    config = config_of()
    config.callbacks.checkpoint.monitor = "val_loss"
    with pytest.raises(ValueError, match=r"monitor of Checkpoint must be validation/loss or .*, got 'val_loss'"):
        preflight(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.val_check_interval=3"], "trainer.val_check_interval must be at most 2, the batches of an epoch"),
        (["trainer.val_check_interval=2", "trainer.limit_train_batches=0.5"], "must be at most 1, the batches"),
        (["trainer.max_time=-1"], "trainer.max_time must be a text DD:HH:MM:SS, got -1"),
        (["+trainer.barebones=true"], "trainer.barebones must be unset, as runs keep .*; say logger=none"),
        (["+trainer.logger=false"], "trainer.logger must be unset, got False; use callbacks=…, logger=…"),
        (["trainer.devices=0"], r"`Trainer\(devices=0\)` value is not a valid input using cpu accelerator\.$"),
    ],
)
def test_a_trainer_that_could_not_start(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as refused, plain_errors():
        preflight(config_of(*words), tmp_path / "run")
    assert re.search(message, str(refused.value.code))
    assert not (tmp_path / "run").exists()


def test_the_profiler_prints_its_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It logs the report, at a level that Lightning's other messages do not have here."""
    logger = logging.getLogger("lightning.pytorch.profilers")
    logger.addHandler(caplog.handler)
    try:
        train(config_of("trainer.profiler=simple"), tmp_path / "run")
    finally:
        logger.removeHandler(caplog.handler)
    assert "run_training_epoch" in caplog.text


class Broken(Callback):
    """Fails before the checkpoint of a resumed run is loaded."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        raise ValueError("no setup")


def test_an_early_error_leaves_the_results(tmp_path: Path) -> None:
    """Those of a finished run that was to become longer, or that was to go on."""
    config, run = config_of(), RunFolder(tmp_path / "run")
    trained(config, run.path)
    before = run.read_summary()
    config.resume = "auto"
    config.callbacks = {**config.callbacks, "broken": {"_target_": f"{__name__}.Broken"}}
    OmegaConf.save(config, run.config)
    config.trainer.max_epochs = 2
    with pytest.raises(ValueError, match="no setup"):
        train(config, run.path)
    after = run.read_summary()
    assert (after["status"], after["error"]) == ("failed", "ValueError: no setup")
    for name in ("metrics", "counters", "wall_seconds"):
        assert after[name] == before[name]


def test_a_damaged_checkpoint_does_not_replace_the_valid_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kill within the first save after it leaves the previous checkpoint, which must be the valid one."""
    config, run = config_of("callbacks.checkpoint.every_n_updates=1"), RunFolder(tmp_path / "run")
    train(config, run.path)
    damaged = run.last_checkpoint.read_bytes()[:-9]
    run.last_checkpoint.write_bytes(damaged)
    config.resume, config.trainer.max_epochs = "auto", 2
    train(config, run.path)
    assert "skipped: " in capsys.readouterr().err
    assert read(run.previous_checkpoint)["bptt"]["counters"]["updates"]
    assert read(run.last_checkpoint)["epoch"] == 2
    assert run.last_checkpoint.with_suffix(".damaged").read_bytes() == damaged


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-9]), Path.unlink])
def test_a_best_checkpoint_that_is_lost_is_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object]
) -> None:
    """At a learning rate of 0 no validation is better than that of the lost one."""
    config, run = config_of("optimizer.lr=0"), RunFolder(tmp_path / "run")
    train(config, run.path)
    damage(run.best_checkpoint)
    config.resume, config.trainer.max_epochs = "auto", 2
    train(config, run.path)
    said = capsys.readouterr().err
    assert re.search(r"skipped: .*best\.ckpt.*; the next validation counts as the best so far", said)
    assert read(run.best_checkpoint)["epoch"] == 1


def test_curves_of_a_run_that_changed_its_logger(tmp_path: Path) -> None:
    def points(*loggers: str) -> dict[str, dict[int, float]]:
        folder = tmp_path / "-".join(loggers)
        for epochs, name in enumerate(loggers, start=1):
            config = config_of(f"logger={name}", f"trainer.max_epochs={epochs}", "trainer.log_every_n_steps=1")
            config.resume = "auto"
            train(config, folder)
        return read_curves(folder, wanted=re.compile("train/loss|validation/loss"))

    whole = points("tensorboard", "tensorboard")
    assert len(whole["train/loss"]) == 4
    for loggers in (("tensorboard", "csv"), ("csv", "tensorboard")):
        found = points(*loggers)
        assert {tag: list(map(float, sorted(values))) for tag, values in found.items()} == {
            tag: list(map(float, values)) for tag, values in whole.items()
        }


def test_what_is_no_callback_or_logger(tmp_path: Path) -> None:
    for group in ("callbacks", "logger"):
        config = config_of()
        config[group] = {"own": {"_target_": "builtins.dict"}}
        with pytest.raises(
            ValueError, match=f"{group} must be sections whose _target_ is a .* of Lightning, got 'dict'"
        ):
            preflight(config, tmp_path / "run")


@pytest.mark.parametrize("name", ["", " ", "~/runs"])
def test_names_of_folders(name: str) -> None:
    with pytest.raises(ValueError, match=r"hydra.run.dir must be the name of a folder, without ~, got"):
        check_folder("hydra.run.dir", name)


def test_a_run_is_built_once(tmp_path: Path) -> None:
    config = config_of()
    preflight(config, tmp_path / "run")
    first = build(config, tmp_path / "run").module
    assert build(config, tmp_path / "run").module is not first, "a module is handed on to one run"


def test_a_run_that_was_built_before_is_the_same(tmp_path: Path) -> None:
    config = config_of("model.num_layers=2", "model.dropout=0.3")
    alone = train(config, tmp_path / "alone")
    preflight(config, tmp_path / "after")
    assert train(config, tmp_path / "after") == alone


def test_another_run_may_have_come_first(tmp_path: Path) -> None:
    """The folder is checked again once it is locked: of two runs started together one must not report the other's."""
    train(config_of(), tmp_path / "run")
    with pytest.raises(ValueError, match=r"must be a new folder, got .* which holds a run"):
        train(config_of("seed=2"), tmp_path / "run")


def test_a_folder_named_after_the_time_may_be_in_use(tmp_path: Path) -> None:
    """By a run that began in the same second; this one gets a folder with a number. A chosen folder is refused."""
    with RunFolder(tmp_path).locked():
        check_run_folder(config_of(), tmp_path, chosen=False)
        with pytest.raises(ValueError, match=r"must be a folder that no other run is using, got "):
            check_run_folder(config_of(), tmp_path)


@pytest.mark.parametrize("content", ["resume: null", "{trainer: null, resume: null}", "{trainer: 3, resume: null}"])
def test_a_foreign_configuration_is_another(tmp_path: Path, content: str) -> None:
    run = RunFolder(tmp_path)
    run.settings.mkdir()
    run.config.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="must be resumed with its own configuration, got "):
        check_configuration(config_of(), tmp_path)


@pytest.mark.parametrize("content", ["", "task: {", "[1]"])
def test_a_torn_configuration_without_checkpoints_is_no_run(tmp_path: Path, content: str) -> None:
    run = RunFolder(tmp_path)
    run.settings.mkdir()
    run.config.write_text(content, encoding="utf-8")
    config = config_of()
    config.resume = "auto"
    assert not check_configuration(config, tmp_path)
    check_run_folder(config, tmp_path)


@pytest.mark.parametrize("longer", ["{seconds:2}", "{minutes:1,seconds:0}", "00:00:01:00", "null"])
def test_a_time_limit_may_be_another(tmp_path: Path, longer: str) -> None:
    """Also one in parts, which are settings of their own in the configuration."""
    run, config = RunFolder(tmp_path), config_of("trainer.max_time={seconds:1}")
    run.settings.mkdir()
    OmegaConf.save(config, run.config)
    assert check_configuration(config, tmp_path)
    assert not check_configuration(config_of(f"trainer.max_time={longer}"), tmp_path)


def test_a_finished_run_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written: no event file, no checkpoint, no later modification time."""
    config = config_of("logger=tensorboard", "trainer.log_every_n_steps=1")
    run = RunFolder(tmp_path / "run")
    metrics = train(config, run.path)
    run.settings.mkdir()
    OmegaConf.save(config, run.config)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.path.rglob("*") if path.is_file()}
    config.resume = "auto"
    again = train(config, run.path)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert {path for path in run.path.rglob("*") if path.is_file()} == set(before)
    assert "nothing is left to do" in capsys.readouterr().out
    assert again["validation/loss"] == metrics["validation/loss"]
    config.trainer.max_epochs = 2
    train(config, run.path)
    assert run.read_summary()["counters"]["batches"] == 4

    # a copy of which a part is missing does not start again, which would replace its best checkpoint
    run.last_checkpoint.unlink()
    run.previous_checkpoint.unlink()
    best = run.best_checkpoint.read_bytes()
    with pytest.raises(
        ValueError, match=r"last\.ckpt must be the last checkpoint of a finished run, got 'nothing there'"
    ):
        train(config, run.path)
    assert run.best_checkpoint.read_bytes() == best

    # nor does a copy without any of them, whose results would be replaced
    run.best_checkpoint.unlink()
    summary = run.summary.read_bytes()
    with pytest.raises(ValueError, match=r"must be the last checkpoint of a finished run, got 'nothing there'"):
        train(config, run.path)
    config.trainer.max_epochs = 1
    assert train(config, run.path)["validation/loss"] == json.loads(summary)["metrics"]["validation/loss"]
    assert run.summary.read_bytes() == summary


def test_a_run_without_a_checkpoint_says_that_it_starts_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = config_of(), RunFolder(tmp_path)
    train(config, tmp_path)
    shutil.rmtree(run.checkpoints)
    summary = json.loads(run.summary.read_text(encoding="utf-8"))
    run.summary.write_text(json.dumps({**summary, "status": "interrupted"}), encoding="utf-8")
    config.resume = "auto"
    train(config, tmp_path)
    assert f"no checkpoint is in {tmp_path}: the run starts again\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", [".hydra", "checkpoints", "curves"])
def test_a_file_in_place_of_a_part_of_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"{re.escape(name)} must be a folder, or not there, got 'a file'; move it"):
        check_run_folder(config_of(), tmp_path)


def test_a_run_that_stopped_early_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No figure, histogram or checkpoint is written again, although there are batches left."""
    early, bias = (compose_config([f"callbacks={name}"]).callbacks for name in ("early_stopping", "bias"))
    config = compose_config([*SMALL, "logger=tensorboard", "trainer.max_epochs=3", "trainer.log_every_n_steps=1"])
    config.callbacks = {**early, "truncation_bias": bias.truncation_bias}
    config.callbacks.early_stopping.stopping_threshold = 1000
    config.callbacks.truncation_bias.every_n_batches = 1
    run = RunFolder(trained(config, tmp_path / "run"))
    assert run.read_summary()["counters"]["batches"] == 1, "of six"
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.path.rglob("*") if path.is_file()}
    assert b"truncation_bias/figure" in b"".join(path.read_bytes() for path in run.events)
    config.resume = "auto"
    train(config, run.path)
    assert {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.path.rglob("*") if path.is_file()
    } == before
    said = capsys.readouterr().out
    assert "nothing is left to do" in said
    assert said.endswith(" is completed (early stopping)\n")
    config.trainer.max_epochs = 9
    train(config, run.path)
    assert "the run had been stopped early: it does not become longer\n" in capsys.readouterr().out
    assert run.read_summary()["counters"]["batches"] == 1


@pytest.mark.parametrize(
    ("limits", "way", "longer"),
    [
        (["max_epochs=1"], "completed; trainer.max_epochs=…", {"max_epochs": 2}),
        (["max_epochs=3", "max_steps=2"], "stopped; trainer.max_steps=…", {"max_steps": 3}),
        (["max_epochs=-1", "max_steps=2"], "completed; trainer.max_steps=…", {"max_steps": 3}),
        (["max_epochs=100000", "max_time=00:00:00:01"], "stopped; trainer.max_time=…", {"max_time": "00:00:00:02"}),
        (["max_epochs=100000", "max_time=00:00:00:01"], "stopped; trainer.max_time=…", {"max_time": None}),
    ],
)
def test_the_limit_that_makes_a_finished_run_longer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limits: list[str], way: str, longer: dict[str, Any]
) -> None:
    """It is named, it works, and no limit makes a run shorter."""
    config = config_of(*(f"trainer.{each}" for each in limits))
    run = RunFolder(trained(config, tmp_path / "run"))
    done = run.read_summary()["counters"]["updates"]
    config.resume = "auto"
    train(config, run.path)
    assert capsys.readouterr().out.endswith(f"is {way} makes it longer\n")

    shorter = OmegaConf.merge(config, {"trainer": {"max_steps": done - 1}})
    assert isinstance(shorter, DictConfig)
    with pytest.raises(ValueError, match=r"trainer\.max_steps must be (>=|without a limit)"):
        train(shorter, run.path)

    if longer == {"max_time": None}:
        longer = {**longer, "max_steps": done + 1}
    config.trainer.update(longer)
    train(config, run.path)
    assert run.read_summary()["counters"]["updates"] > done


def test_a_run_that_finished_its_last_batch_beyond_the_limit_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("estimator=sliding", "estimator.stride=5", "estimator.window=10")
    config = config_of(*words, "trainer.max_steps=3", "trainer.max_epochs=-1")
    run = RunFolder(trained(config, tmp_path / "run"))
    assert run.read_summary()["counters"]["updates"] > 3
    config.resume = "auto"
    train(config, run.path)
    assert "nothing is left to do" in capsys.readouterr().out


def test_a_run_of_no_epochs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trainer\.max_epochs must be an integer >= 1, got 0; -1 or null is no limit"):
        preflight(config_of("trainer.max_epochs=0"), tmp_path / "run")


@pytest.mark.parametrize("limit", ["trainer.max_epochs=1", "trainer.max_steps=5", "trainer.max_steps=7"])
def test_a_longer_run_is_as_the_whole_one(tmp_path: Path, limit: str) -> None:
    """A validation that the end of the shorter one adds counts neither for a schedule nor for early stopping."""
    words = ["task.train_batches=6", "trainer.val_check_interval=4", "optimizer.lr=0.1", "callbacks=[early_stopping]"]
    words += ["scheduler=exponential", "scheduler.interval=validation", "callbacks.early_stopping.patience=3"]

    def run(name: str, *limits: str) -> dict[str, Any]:
        config = compose_config([*SMALL, *words, *limits, "resume=auto"])
        config.callbacks.checkpoint = compose_config([]).callbacks.checkpoint
        train(config, tmp_path / name)
        content: dict[str, Any] = torch.load(RunFolder(tmp_path / name).last_checkpoint, weights_only=True)
        return content

    whole = run("whole", "trainer.max_epochs=3")
    run("longer", "trainer.max_epochs=3", limit)
    longer = run("longer", "trainer.max_epochs=3")
    assert longer["global_step"] == whole["global_step"] > 0
    for key in ("optimizer_states", "lr_schedulers", "state_dict"):
        assert str(longer[key]) == str(whole[key])
    stopping = [
        {key: value for key, value in each["callbacks"].items() if "EarlyStopping" in key} for each in (whole, longer)
    ]
    assert stopping[0] == stopping[1] != {}


def test_sums_of_scores_keep_their_precision(tmp_path: Path) -> None:
    """A model in bfloat16 is scored as it is in float32: in bfloat16, 256 + 1 is 256."""
    words = ["task=mackey_glass", "task.length=4", "task.batch_size=1", "task.validation_batches=600"]
    config = compose_config([*words, "model.hidden_size=4", "logger=none", "trainer.precision=bf16-true"])
    config.callbacks = {name: config.callbacks[name] for name in ("summary", "checkpoint")}
    config.trainer.limit_train_batches = 1
    scores = train(config, tmp_path)
    assert scores["validation/loss"] == pytest.approx(scores["validation/mse"], rel=0.01)  # one output
    module = build_module(config).to(torch.bfloat16)
    assert {str(value.dtype) for value in module.model.parameters()} == {"torch.bfloat16"}
    assert module.evaluation.loss.mean_value.dtype == torch.float32


def test_a_run_beyond_its_updates_that_was_killed_at_its_end(tmp_path: Path) -> None:
    """Its estimator finishes the batch: the checkpoint has 5 updates of the 4, and is the run's own."""
    words = ["estimator.chunk_size=5", "estimator.burn_in=1", "trainer.max_steps=4", "resume=auto"]
    config, run = config_of(*words), RunFolder(tmp_path)
    train(config, tmp_path)
    run.settings.mkdir()
    OmegaConf.save(config, run.config)
    summary = run.read_summary()
    assert summary["counters"]["updates"] > 4
    run.summary.write_text(json.dumps({**summary, "status": "running"}))
    train(config, tmp_path)
    assert run.read_summary()["counters"] == summary["counters"]
    assert run.status == summary["status"]


def test_a_logger_that_a_resumed_run_gets_has_what_the_first_one_had(tmp_path: Path) -> None:
    """TensorBoard's page of charts, and the configuration; once, however often the run is resumed."""
    for steps, logger in ((2, "csv"), (4, "tensorboard"), (6, "tensorboard")):
        words = [f"logger={logger}", f"trainer.max_steps={steps}", "trainer.log_every_n_steps=1", "resume=auto"]
        config = compose_config([*SMALL, *words])
        config.callbacks = {name: config.callbacks[name] for name in ("summary", "checkpoint", "gradient_flow")}
        train(config, tmp_path)
        run = RunFolder(tmp_path)
        run.settings.mkdir(exist_ok=True)
        OmegaConf.save(config, run.config)
    content = b"".join(file.read_bytes() for file in tmp_path.glob("events.out.tfevents.*"))
    assert content.count(b"custom_scalars__config__") == 1
    assert content.count(b"configuration/text_summary") == 1
