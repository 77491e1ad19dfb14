"""Slips on a command line are answered in one line with what was probably meant."""

import logging
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from support.script_runner import refusal

from bptt.configuration.compose import compose_config
from bptt.configuration.errors import plain_errors
from bptt.configuration.trainer_settings import check_trainer_settings, check_validation_interval
from bptt.runs.resumed_command import resumed_arguments

SLIPS = [
    ("train.py --model=gru", "say model=gru"),
    ("train.py --epochs 5", "say epochs=5"),
    ("train.py -model=gru", "options must be those of --hydra-help, got -model=gru"),
    ("train.py model = gru", "got 'model = gru'; say model=gru"),
    ("train.py model= gru", "got 'model= gru'; say model=gru"),
    ("train.py gru", "did you mean model=gru?"),
    ("train.py done", "resume=done for train.py, run=done for other scripts"),
    ("train.py log.csv", "a file of your own is task.path=log.csv, with task=text, series or sequences"),
    ("train.py task=log.csv", "a file of your own is task.path=log.csv, with task=text, series or sequences"),
    ("train.py model=GRU", "did you mean model=gru?"),
    ("train.py task=adding model.bidirectional=true", "error: estimator must be full with model.bidirectional=true"),
    ("train.py task=adding +model.proj_size=4", "leave +model.proj_size=4 out, as all settings are shown by --cfg"),
    ("train.py task=adding model.batch_first=true", "must be left out: batches are time first here, (T, B, ·)"),
    ("train.py model=own", "a choice of your own needs --config-dir FOLDER"),
    ("train.py estimator=chunk", "did you mean estimator=chunked?"),
    ("train.py callbacks=[nosuch]", "callbacks must be bias or default or early_stopping"),
    ("train.py callbacks=[]", "leave ~callbacks or callbacks=[] out"),
    ("train.py logger=wandb", "+logger.NAME._target_=lightning.pytorch.loggers.CLASS"),
    ("train.py model=gru,lstm", "say -m to run each of them, or model=[gru,lstm] for a list"),
    ("train.py seed=range(3)", "got 'range(3)'; say -m to run each of them"),
    ("train.py model=gru,", "quote texts for Hydra and the whole for the shell, as in 'model=\"gru,\"'"),
    ("train.py -m task.path=a(1).csv,é", 'the whole for the shell, as in \'task.path="a(1).csv","é"\''),
    ("train.py 'trainer.max_epochs=2'", "leave out the quotes around it: trainer.max_epochs=2"),
    ('train.py task.path="a.csv', "as in 'task.path=\"a.csv\"'"),
    ("train.py trainer.accumulate_grad_batches=2", "the estimator decides when to update; see estimator.update"),
    ("train.py trainer.truncated_bptt_steps=2", "must be left out: the estimator truncates; say estimator.chunk_size"),
    ("train.py ~task", "leave ~task or task=[] out"),
    ("train.py task=copy_memory task.delay=5 ~task", "got 'task.delay'; leave ~task out"),
    ("train.py -m sweeper=optuna hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials must be"),
    ("train.py ~optimizer.lr", "leave ~optimizer.lr out"),
    ("train.py task=adding -m seed=1,2", "got 'seed=1,2'; say options such as -m first"),
    ("train.py experiment=null", "leave GROUP=null out, or say ~GROUP"),
    ("train.py task=adding hydra.job.name=a/b", "hydra.job.name must be a name without /, got 'a/b'"),
    ("train.py -m task=adding seed=1,2 hydra.job.name=a/b", "hydra.job.name must be a name without /, got 'a/b'"),
    (
        "train.py -m task=adding seed=1,2 hydra.sweep.dir=sweep/first",
        "hydra.sweep.dir must be a folder that holds no run",
    ),
    ("train.py hydra.mode=multirun", "Invalid value 'multirun', expected one of [RUN, MULTIRUN]"),
    ("train.py hydra.job.env_set.FOO=1", "all of them are shown by --cfg hydra, a new one is +hydra.job.env_set.FOO=…"),
    ("train.py -m hydra.sweeper.params={seed:'1,2'}", "a new one is +hydra.sweeper.params.seed=…"),
    (
        "train.py -m sweeper=optuna hydra.sweeper.search_space={seed:1}",
        "hydra.sweeper.search_space must be one that OmegaConf can set, got 'NoneType' object has no attribute",
    ),
    ("train.py -m sweeper=basic seed=1,2 sweep.dry_run=true", "say sweeper=grid"),
    ("train.py model={hiden_size:8}", "did you mean model.hidden_size?"),
    ("train.py task=adding optimizer._target_=torch.optim.Rprop", "leave it out by ~optimizer.weight_decay"),
    ("train.py task=adding scheduler=plateau scheduler.interval=epoch", "ReduceLROnPlateau must be validation, got"),
    ("train.py task=adding scheduler=plateau scheduler.monitor=val_loss", "scheduler.monitor must be validation/loss"),
    ("train.py task=adding +optimizer.betas=[.9]", "optimizer and scheduler must fit together"),
    ("train.py task=adding +task=text", "task must be chosen once, without +, got '+task=text'; say task=text"),
    ("train.py ++model=gru", "model must be chosen once, without +, got '++model=gru'; say model=gru"),
    ("train.py -m +scheduler=cosine,plateau", "say scheduler=cosine,plateau"),
    ("train.py +experiment=anbn", "say experiment=anbn"),
    ("train.py -m +hydra/launcher=local seed=1,2", "say hydra/launcher=local"),
    ("choose_chunk_size.py task=adding +task=text", "say task=text"),
    ("choose_chunk_size.py task=adding seed=1,2", "got '1,2'; name one, or seed=[1,2] for a list"),
    ("choose_chunk_size.py -m task=adding", "got '-m'; only train.py has options such as -m"),
    ("choose_chunk_size.py task=copy_memory train=500 task.length=5", "all of them are shown by --cfg job"),
    ("train.py task=adding scheduler=cosine scheduler.scheduler.T_max=0", "scheduler must be settings from which a"),
    ("train.py task=adding task.length=9 estimator.burn_in=9", "shorter than a batch, which has 9 timesteps, got 9"),
    (
        "train.py task=adding estimator=sliding estimator.burn_in=150",
        "estimator.burn_in must be shorter than a batch, which has 150 timesteps, got 150",
    ),
    ("train.py sweep=chunk_size_model_text", "say -m +sweep=NAME"),
    ("train.py +sweep=chunk_size_model_text", "say -m"),
    ("train.py -m task=copy_memory,adding task.train_batches=5", "say ++task.train_batches=5"),
    (
        "train.py -m task=copy_memory,text,adding task.delay=5",
        "a setting of every task of the sweep, got none in text or",
    ),
    ("train.py learning_rate=.1", "did you mean optimizer.lr?"),
    ("train.py --hep", "got '--hep'; did you mean --help?"),
    ("train.py --dry-run", "got '--dry-run'; all settings are shown by --cfg job"),
    ("train.py -m hydra.sweep.dir=sweep/first/.hydra/config.yaml", "hydra.sweep.dir must be a folder that can be cr"),
    ("train.py +trainer.truncated_bptt_steps=5", "say estimator.chunk_size=…"),
    ("train.py trainer.fast_dev_run=true", "say +trainer.fast_dev_run=…"),
    ("train.py trainer.accelerator=nosuch", "trainer.accelerator must be auto or cpu"),
    ("train.py trainer.max_time=5", "say '00:00:05:00' for 5 minutes"),
    ("train.py trainer.strategy=ddp_spawn", "got 'ddp_spawn'; say ddp"),
    ("train.py --config-name=nosuch", "Cannot find primary config 'nosuch'"),
    ("train.py task=adding +callbacks.x._target_=lightning.pytorch.callbacks.LearningRateFinder", "-m optimizer.lr=…"),
    (
        "train.py task=adding optimizer._target_=torch.optim.SparseAdam ~optimizer.weight_decay",
        "SparseAdam is for sparse gradients, but those of a model are dense; use Adam",
    ),
    (
        "train.py task=adding +callbacks.x._target_=lightning.pytorch.callbacks.BackboneFinetuning",
        "got 'BackboneFinetuning'; see optimizer.groups",
    ),
    (
        "train.py task=adding +callbacks.x={_target_:lightning.pytorch.callbacks.StochasticWeightAveraging,swa_lrs:.1}",
        "use scheduler=cosine",
    ),
    (
        "train.py task=adding +callbacks.x={_target_:lightning.pytorch.callbacks.ModelPruning,pruning_fn:random}",
        "got 'ModelPruning'; its masks are in no checkpoint",
    ),
    (
        "train.py task=adding +callbacks.x._target_=lightning.pytorch.callbacks.EMAWeightAveraging",
        "a run could not resume from within a validation",
    ),
    ("train.py task=adding trainer.enable_checkpointing=true", "trainer.enable_checkpointing must be false, got True"),
    (
        "train.py task=adding +callbacks.x={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val_loss}",
        "monitor of EarlyStopping must be validation/loss or validation/mse, got 'val_loss'",
    ),
    ("evaluate.py done", "a run must be named as run=FOLDER, got 'done'; say run=done"),
    ("evaluate.py run=nosuch", "got nosuch, which does not exist"),
    ("evaluate.py run=done", "got done, which holds no .hydra/config.yaml"),
    ("evaluate.py run=sweep/first/checkpoints/last.ckpt", "which is a file; say the run's folder, sweep/first"),
    ("train.py resume=sweep/first/checkpoints/last.ckpt", "it is a file; say the run's folder, "),
    ("evaluate.py run=sweep", "got sweep, which holds runs; say for example run=sweep/first"),
    ("predict.py run=done model=gru", "the configuration is the run's own, got model=gru; leave it out"),
    ("compare_runs.py done", "FOLDER must hold runs, got done; say for example outputs"),
]


@pytest.mark.parametrize(("command", "remedy"), SLIPS, ids=[command for command, _ in SLIPS])
def test_slips(
    command: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "done").mkdir()
    for name in ("first", "second"):
        (tmp_path / "sweep" / name / ".hydra").mkdir(parents=True)
        (tmp_path / "sweep" / name / ".hydra" / "config.yaml").touch()
        (tmp_path / "sweep" / name / "checkpoints").mkdir()
        (tmp_path / "sweep" / name / "checkpoints" / "last.ckpt").touch()
    monkeypatch.chdir(tmp_path)
    line = refusal(monkeypatch, *command.split())
    assert line.startswith("error: ")
    assert remedy in line
    assert len(line.splitlines()) == 1
    assert "hydra.cc" not in line
    assert "provider=" not in line
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {"done", "sweep"}


def test_correct_command_lines() -> None:
    from bptt.configuration.command_line import check_words

    check_words(["-m", "--config-dir", "own", "-cn", "train", "model=gru,lstm", "task.path=", "~callbacks.x", "a=b=c"])
    check_words(["--cfg=job", "--resolve", "+a.b=1", "++c='d = e'"])


def test_an_interval_is_for_optuna() -> None:
    from bptt.configuration.command_line import clearer_message

    said = clearer_message(HydraException("BasicSweeper does not support sweep type : INTERVAL_SWEEP"))
    assert said == "the sweeper must be optuna for values from an interval, got 'another'; say sweeper=optuna"


def test_settings_that_are_deleted_are_those_of_the_trainer() -> None:
    settings = OmegaConf.to_container(compose_config(["task=adding"]).trainer)
    assert isinstance(settings, dict)
    for name in settings:
        left = {str(key): value for key, value in settings.items() if key != name}
        check_trainer_settings(left)
        check_validation_interval(OmegaConf.create(left), num_batches=100)


def test_the_folder_of_an_unknown_user_is_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = refusal(monkeypatch, "train.py", "resume=~nosuchuser/run")
    assert found.startswith("error: resume must be auto or the folder of a training run, got '~nosuchuser/run'")


@pytest.mark.parametrize(("cause", "line", "code"), [("", "Ctrl-C", 130), ("SIGTERM", "SIGTERM", 143)])
def test_the_signal_that_stopped_a_sweep_is_named(
    cause: str, line: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end, plain_errors():
        raise KeyboardInterrupt(*[cause] * bool(cause))
    logging.disable(logging.NOTSET)
    assert end.value.code == code
    assert capsys.readouterr().err == f"interrupted by {line}; the same command starts again\n"


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_folder_to_resume_may_be_quoted_for_hydra(quote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = refusal(monkeypatch, "train.py", f"resume={quote}my run, 2{quote}")
    assert "got 'my run, 2'" in found


def test_auto_may_be_quoted_for_hydra() -> None:
    assert resumed_arguments(["resume='auto'"]) == ["resume='auto'"]
