"""The training script from end to end, and what it refuses."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from support.script_runner import FinishedRun, ScriptProcess, in_a_process, refusal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bptt.run_folder import RunFolder
from bptt.runs.resumed_command import resumed_arguments
from bptt.runs.resumption import LATER_SETTINGS, check_configuration, new_folder

COUNTERS = ("progress/updates", "progress/batches", "progress/timesteps")

# 3600 bytes of training make 4 streams of 899 timesteps: 15 batches, the last one of 59; 3 chunks each.
BATCHES, UPDATES, TIMESTEPS = 15, 45, 899 * 4


def test_run_folder_is_complete(finished_run: FinishedRun) -> None:
    folder = finished_run.folder
    overrides = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
    assert overrides == [word for word in finished_run.words if not word.startswith("hydra.")]
    config = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    assert config["model"]["hidden_size"] == 12
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    for path in (folder / "checkpoints").iterdir():
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert weights
        assert all(value.isfinite().all() for value in weights.values())
    names = {path.name for path in folder.iterdir() if not path.name.startswith("events.out.tfevents.")}
    assert names == {".hydra", "checkpoints", "curves", "gradient_flow.png", "summary.json"}


def test_nothing_is_written_outside_the_run_folder(finished_run: FinishedRun) -> None:
    work = finished_run.folder.parent
    assert [path.name for path in work.iterdir()] == ["run"]
    # Torch makes an empty folder for a cache.
    assert [path for path in (work.parent / "tmp").rglob("*") if path.is_file()] == []


def test_summary(finished_run: FinishedRun) -> None:
    summary = json.loads((finished_run.folder / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert "error" not in summary
    names = {"train/loss", "validation/loss", "validation/bits_per_byte", "validation/accuracy"}
    assert names <= summary["metrics"].keys()
    assert all(math.isfinite(summary["metrics"][name]) for name in names)
    assert summary["metrics"]["validation/bits_per_byte"] == pytest.approx(
        summary["metrics"]["validation/loss"] / math.log(2), rel=1e-5
    )
    assert summary["counters"] == {"updates": UPDATES, "batches": BATCHES, "timesteps": TIMESTEPS}
    assert summary["wall_seconds"] > 0
    assert summary["versions"]["torch"] == torch.__version__
    assert {"python", "bptt", "lightning", "hydra-core"} <= summary["versions"].keys()


def test_output_names_what_is_trained_and_where_it_lies(finished_run: FinishedRun) -> None:
    for word in ("Text", "GRU(12)", "chunk_size 20", "validation after", "run folder   run\n"):
        assert word in finished_run.output


def test_events_hold_configuration_and_curves(finished_run: FinishedRun) -> None:
    events = EventAccumulator(str(finished_run.folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    assert {"train/loss", "train/learning_rate", "validation/loss", *COUNTERS} <= set(events.Tags()["scalars"])

    (shown,) = events.Tensors("configuration/text_summary")
    text = shown.tensor_proto.string_val[0].decode()
    resolved = yaml.safe_load(text.strip().removeprefix("```yaml").removesuffix("```"))
    written = yaml.safe_load((finished_run.folder / ".hydra" / "config.yaml").read_text())
    assert resolved == written, "nothing in this run's configuration is an interpolation"

    # The x-axis: timesteps that each stream has advanced. Every point comes with the three counters.
    points = {event.step: event.value for event in events.Scalars("train/loss")}
    assert len(points) == UPDATES // 3
    assert max(points) == TIMESTEPS // 4
    assert all(math.isfinite(value) for value in points.values())
    assert [event.step for event in events.Scalars("validation/loss")] == [TIMESTEPS // 4]
    for name in COUNTERS:
        counted = {event.step: event.value for event in events.Scalars(name)}
        assert counted.keys() >= points.keys()
        assert [counted[step] for step in sorted(counted)] == sorted(counted.values())
        if name == "progress/timesteps":
            assert all(counted[step] == 4 * step for step in points)
        if name == "progress/updates":
            assert [counted[step] for step in sorted(points)] == list(range(3, UPDATES + 1, 3))


def test_it_learns(finished_run: FinishedRun) -> None:
    events = EventAccumulator(str(finished_run.folder))
    events.Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses[-1] < losses[0] - 0.05


def test_same_command_gives_the_same_weights(finished_run: FinishedRun, tmp_path: Path) -> None:
    done = in_a_process("train.py", *finished_run.words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("last.ckpt", "best.ckpt"):
        first, second = (
            torch.load(folder / "checkpoints" / name, weights_only=True)["state_dict"]
            for folder in (finished_run.folder, tmp_path / "run")
        )
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


# What is refused. Each row: the words of the command line, and what the message must say.
REFUSED = [
    ("estimator.chunk_size=0", "chunk_size must be an integer >= 1, got 0; use estimator=full"),
    ("estimator.chunk_size=-3", "chunk_size must be an integer >= 1, got -3"),
    ("estimator.chunk_size=abc", "chunk_size must be an integer >= 1, got 'abc'"),
    ("estimator.chunk_size=1.5", "chunk_size must be an integer >= 1, got 1.5"),
    ("estimator.chunksize=3", "did you mean estimator.chunk_size?"),
    ("estimator=foo", "estimator must be adaptive or chunked"),
    ("model=foo", "model must be elman or gru"),
    ("task=foo", "task must be adding or"),
    ("task=", "or text, got ''"),
    ("estimator.chunk_size=[", "'['"),
    ("estimator.chunk_size", "got 'estimator.chunk_size'"),
    ("task.path=nosuch.txt", "nosuch.txt'; no such file exists"),
    ("task.path={folder}", "task.path must be a readable text file, got '{folder}'; it is a folder"),
    ("task.path={folder}/empty.txt", "the file is empty"),
    ("task.path={folder}/short.txt", "use a longer text"),
    ("task.path={folder}/same.txt", "task.path must be a text of 2 different tokens or more"),
    ("task.path=3", "task.path must"),
    ("task.unit=foo", "unit must be byte or character or word, got 'foo'"),
    ("task.fractions=[0.9,0.9,0.9]", "fractions must be three shares"),
    ("task.fractions=3", "fractions must be three shares"),
    ("task.batch_size=100000000", "must feed 100000000 streams"),
    ("task.batch_size=-1", "batch_size must be an integer >= 1, got -1"),
    ("task.length=0", "length must be an integer >= 1, got 0"),
    ("trainer.num_nodes=2", "trainer.num_nodes must be 1 without the other machines' addresses, got 2"),
    ("+trainer.min_epochs=3", "trainer.min_epochs must be at most trainer.max_epochs = 1, got 3"),
    ("trainer.limit_train_batches=0", "trainer.limit_train_batches must be above 0, got 0"),
    ("regulariser=lyapunov regulariser.during=false", "before must be an integer >= 1, got 0; with during=false"),
    ("optimizer.lr=1e40", "optimizer.lr must be a finite number that float32 holds, got 1e+40"),
    ("=3", "an argument must be a setting KEY=VALUE, got '=…'; a name comes first"),
    ("estimator=rtrl model.dropout=0.2", "dropout must be 0 in forward mode, got 0.2"),
    ("estimator=rtrl model.hidden_size=600", "the influence must have <= max_entries = 100000000 numbers"),
    ("estimator=snap model.hidden_size=3000", "the influence must have <= max_entries = 100000000 numbers"),
    ("estimator=uoro regulariser=omega", "regulariser omega needs an estimator that backpropagates"),
    ("experiment=lag_bits estimator=sliding", "'chunk_size'; leave it out by ~estimator.chunk_size"),
    ("task=adding task.length=0", "length must be an integer >= 2, got 0"),
    ("task=copy_memory task.train_batches=0", "train_batches must be an integer >= 1, got 0"),
    ("model=gru +model.layer.nonlinearity=relu", "leave +model.layer.nonlinearity=relu out"),
    ("+initialisation.std=0.1", "leave +initialisation.std=0.1 out"),
    ("model.hidden_size=0", "hidden_size must be an integer >= 1, got 0"),
    ("model.num_layers=-1", "num_layers must be an integer >= 1, got -1"),
    ("model.dropout=1.5", "dropout must be a number in [0, 1), got 1.5"),
    ("model.learnt_initial_state=abc", "learnt_initial_state must be"),
    ("initialisation=identity", "initialisation identity needs an Elman layer, got LSTM; use initialisation=default"),
    ("optimizer.lr=-1", "optimizer.lr must be a number in [0, inf), got -1"),
    ("optimizer.lr=nan", "optimizer.lr must be a finite number, got nan"),
    ("optimizer.lr=abc", "optimizer.lr must be"),
    ("optimizer.lr=null", "optimizer.lr must be"),
    ("clipping.max=-1", "clipping.max must be a number in (0, inf), got -1"),
    ("clipping.algorithm=foo", "clipping.algorithm must be norm or value or none, got 'foo'"),
    ("trainer.gradient_clip_val=1", "use clipping=norm clipping.max=1"),
    ("+trainer.accumulate_grad_batches=2", "estimator.update=sequence"),
    ("trainer.max_epochs=abc", "max_epochs must be"),
    ("trainer.max_time=foo", "DD:HH:MM:SS"),
    ("trainer.precision=foo", "'foo'"),
    ("trainer.devices=0", "devices"),
    ("trainer.deterministic=abc", "deterministic must be"),
    ("trainer.limit_val_batches=abc", "limit_val_batches must be"),
    ("trainer.limit_val_batches=0.001", "limit_val_batches must be a share of"),
    ("trainer.limit_test_batches=0.001", "limit_test_batches must be a share of"),
    ("trainer.val_check_interval=0", "val_check_interval must be"),
    ("trainer.check_val_every_n_epoch=0", "check_val_every_n_epoch must be"),
    ("trainer.log_every_n_steps=0", "log_every_n_steps must be an integer >= 1, got 0"),
    ("+trainer.foo=1", "'foo'"),
    ("callbacks.checkpoint.mode=foo", "mode must be min or max, got 'foo'"),
    ("seed=-1", "seed must be an integer >= 0, got -1"),
    ("seed=abc", "seed must be an integer >= 0, got 'abc'"),
    ("seed=null", "seed must be an integer >= 0, got None"),
    ("seed=99999999999999999999", "seed must be"),
    ("hydra.run.dir={folder}/short.txt", "hydra.run.dir must be"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_bad_input_is_refused_in_one_line_and_leaves_no_run(
    words: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_text("too short for 32 streams")
    (tmp_path / "same.txt").write_text("a" * 9999)
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    given = words.format(folder=tmp_path).split()
    line = refusal(monkeypatch, "train.py", f"hydra.run.dir={run}", "trainer.limit_train_batches=1", *given)
    assert line.startswith("error: ")
    assert len(line.splitlines()) == 1
    assert message.format(folder=tmp_path) in line
    assert capfd.readouterr().err == ""
    assert not run.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "same.txt", "short.txt"]


def test_a_run_is_not_overwritten(
    finished_run: FinishedRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.folder.rglob("*")}
    monkeypatch.chdir(finished_run.folder.parent)
    line = refusal(monkeypatch, "train.py", *finished_run.words)
    assert line.startswith("error: hydra.run.dir must be a new folder, got run, which holds a run; name another")
    assert line.endswith("or say resume=auto to resume it")
    assert {path: path.stat().st_mtime_ns for path in finished_run.folder.rglob("*")} == before


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_without_a_summary_is_not_overwritten_either(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished_run.folder, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    before = files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "must be a new folder, got run, which holds a run" in refusal(monkeypatch, "train.py", *finished_run.words)
    assert files(tmp_path) == before


def test_checkpoints_that_cannot_be_read_are_kept(finished_run: FinishedRun, tmp_path: Path) -> None:
    """Damaged checkpoints never lead to a new run that overwrites the best one."""
    shutil.copytree(finished_run.folder, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"rubbish")
    before = files(tmp_path / "run")
    done = in_a_process("train.py", "resume=run", "trainer.max_epochs=2", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: a checkpoint must be a whole file written by training, got ")
    assert line.endswith(f"; move {tmp_path / 'run' / 'checkpoints'} away to start the run again")
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize("change", [("0", "1"), ("0", "€")], ids=["the same alphabet", "another"])
def test_a_run_goes_on_with_its_own_text(
    change: tuple[str, str], finished_run: FinishedRun, text: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(text.read_text(encoding="utf-8"))
    words = [word for word in finished_run.words if not word.startswith("task.path")]
    assert in_a_process("train.py", *words, "task.path=text.txt", cwd=tmp_path).returncode == 0
    (tmp_path / "text.txt").write_text(text.read_text(encoding="utf-8").replace(*change))
    before = files(tmp_path / "run")
    done = in_a_process("train.py", "resume=run", "trainer.max_epochs=2", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "error: a run must be resumed with the data it began with, a text of 4000 tokens with the checksum"
    )
    assert files(tmp_path / "run") == before
    (tmp_path / "text.txt").write_text(text.read_text(encoding="utf-8"))  # at another time
    done = in_a_process("train.py", "resume=run", "trainer.max_epochs=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_flags_of_hydra_when_a_run_goes_on(finished_run: FinishedRun) -> None:
    """Hydra's flags come before a single block of overrides; the current overrides follow the run's own."""
    own = [word for word in finished_run.words if not word.startswith("hydra.")]
    given = [
        "--config-dir",
        "own",
        "trainer.max_epochs=2",
        f"resume={finished_run.folder}",
        "--cfg=job",
        "~callbacks.x",
    ]
    assert resumed_arguments(given) == [
        "--config-dir", "own", "--cfg=job", *own, "trainer.max_epochs=2", "~callbacks.x",
        f"hydra.run.dir='{finished_run.folder}'", "resume=auto",
    ]  # fmt: skip


def test_a_section_in_place_of_the_runs_own(tmp_path: Path) -> None:
    """Hydra would merge both: {minutes: 1, seconds: 5}."""
    settings = RunFolder(tmp_path).settings
    settings.mkdir()
    stored = "- trainer.max_time={minutes:1}\n- trainer.max_time.seconds=3\n- +logger.own={a:1}\n- seed=1\n"
    (settings / "overrides.yaml").write_text(stored)
    (settings / "config.yaml").write_text("resume: null\n")
    for time in ("{seconds:5}", "00:00:00:05"):
        words = [f"trainer.max_time={time}", "logger.own={b:2}"]
        assert resumed_arguments([f"resume={tmp_path}", *words])[:-2] == ["+logger.own={a:1}", "seed=1", *words]


def test_a_run_of_own_choices_goes_on(tmp_path: Path) -> None:
    """From any folder, by what the interrupted run says: the choices and the primary configuration are known."""
    task = tmp_path / "own" / "task" / "mine.yaml"
    task.parent.mkdir(parents=True)
    task.write_text(
        "defaults: [copy_memory, _self_]\ndelay: 3\nbatch_size: 4\ntrain_batches: 2\nvalidation_batches: 1\n"
    )
    (tmp_path / "own" / "small.yaml").write_text("defaults: [train, _self_]\nmodel: {hidden_size: 4}\n")
    flags = ("--config-dir", "own", "--config-name=small")
    begun = in_a_process("train.py", *flags, "task=mine", "hydra.run.dir=run", cwd=tmp_path)
    assert begun.returncode == 0, begun.stderr
    (tmp_path / "elsewhere").mkdir()
    done = in_a_process("train.py", "resume=../run", "trainer.max_epochs=2", cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["counters"]["batches"] == 4


def test_a_job_with_a_relative_path_goes_on_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("value\n" + "1\n2\n3\n" * 40)
    words = [
        "task=series",
        "task.path=own.csv",
        "task.batch_size=2",
        "task.length=5",
        "model.hidden_size=4",
        "seed=3,4",
    ]
    begun = in_a_process("train.py", "-m", *words, "logger=none", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert begun.returncode == 0, begun.stderr
    (tmp_path / "elsewhere").mkdir()
    done = in_a_process("train.py", "resume=../sweep/seed-3", "trainer.max_epochs=12", cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("slip", ["a:\t1", "a: 1\nb: [1, 2", "a: 1\na: 2"])
def test_a_slip_in_a_file_of_ones_own(slip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "own.yaml").write_text(f"{slip}\n\tc: 3")
    monkeypatch.chdir(tmp_path)
    line = refusal(monkeypatch, "train.py", f"--config-dir={tmp_path}", "task=own")
    assert "own.yaml" in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("words", ["estimator=foo", "model.dropout=1.5"], ids=["in composing", "in building"])
def test_a_refusal_as_a_user_sees_it(words: str, tmp_path: Path) -> None:
    done = in_a_process("train.py", words, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_runs_that_begin_at_the_same_time_have_folders_and_configurations_of_their_own(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    words = [word for word in finished_run.words if not word.startswith("hydra.")]
    light = ("~callbacks.gradient_flow", "~callbacks.jacobian_spectrum", "model.num_layers=1", "model.dropout=0")
    processes = [ScriptProcess("train.py", *words, *light, f"seed={seed}", cwd=tmp_path) for seed in (1, 2)]
    for process in processes:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    runs = sorted((tmp_path / "outputs" / "runs").iterdir())
    assert sorted(yaml.safe_load((run / ".hydra" / "config.yaml").read_text())["seed"] for run in runs) == [1, 2]
    for run in runs:
        assert json.loads((run / "summary.json").read_text())["status"] == "completed"
        assert {path.name for path in (run / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}


@pytest.mark.parametrize("choice", ["disabled", "none", "stdout"])
def test_hydras_own_choices_of_logging(choice: str, finished_run: FinishedRun, tmp_path: Path) -> None:
    """They configure other handlers than ours, or none."""
    of_hydra = "hydra_debug" if choice == "stdout" else choice
    words = (f"hydra/job_logging={choice}", f"hydra/hydra_logging={of_hydra}", "trainer.limit_train_batches=1")
    done = in_a_process("train.py", *finished_run.words, *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "run folder   run\n" in done.stdout


def test_what_a_run_says_holds_where_the_command_was_given(finished_run: FinishedRun, tmp_path: Path) -> None:
    """hydra.job.chdir=true enters the run folder. Dropout between layers, of which there is one, is named."""
    words = ("hydra.job.chdir=true", "trainer.limit_train_batches=1", "model.num_layers=1", "model.dropout=.5")
    done = in_a_process("train.py", *finished_run.words, *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"run folder   {tmp_path / 'run'}\n" in done.stdout
    assert f"--logdir {tmp_path / 'run'})" in done.stdout
    assert done.stdout.count("model.dropout has no effect between layers, as there is one") == 1


def test_a_folder_of_its_own(tmp_path: Path) -> None:
    """Whoever comes second in the same second gets a number."""
    wanted = tmp_path / "outputs" / "now"
    assert [new_folder(wanted).name for _ in range(3)] == ["now", "now_2", "now_3"]


def test_a_run_that_has_ended_is_not_made_shorter(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    line = refusal(monkeypatch, "train.py", f"resume={run}", "trainer.max_epochs=0")
    assert f"trainer.max_epochs must be >= 1, as the run in {run} has ended, got 0" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "status": "interrupted"}))
    line = refusal(monkeypatch, "train.py", f"resume={run}", "trainer.max_epochs=0")
    assert line == "error: trainer.max_epochs must be an integer >= 1, got 0; -1 or null is no limit"
    assert yaml.safe_load((run / ".hydra" / "config.yaml").read_text())["trainer"]["max_epochs"] == 1


def test_an_error_in_a_task_of_ones_own_has_its_type_and_its_place(tmp_path: Path) -> None:
    """The traceback is shown on request."""
    (tmp_path / "own.py").write_text("def make(**_):\n    return {}['alphabet']\n")
    words = ("task._target_=own.make", "hydra.run.dir=run")
    done = in_a_process("train.py", *words, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line == f"error: task: KeyError: 'alphabet' in {tmp_path / 'own.py'}:2; see BPTT_TRACEBACK=1"
    done = in_a_process("train.py", *words, cwd=tmp_path, PYTHONPATH=str(tmp_path), BPTT_TRACEBACK="1")
    assert "Traceback" in done.stderr
    assert 'own.py", line 2' in done.stderr


def test_a_study_of_optuna_has_no_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    line = refusal(monkeypatch, "train.py", "-m", "+sweep=tune_copy_memory", "sweep.dry_run=true")
    assert line == "error: sweep.dry_run must be False, got True; its jobs follow from one another"
    assert not list(tmp_path.iterdir())


def test_a_study_that_would_look_for_the_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ("-m", "+sweep=tune_copy_memory", "callbacks.checkpoint.mode=max")
    line = refusal(monkeypatch, "train.py", *words)
    assert line.startswith("error: hydra.sweeper.direction must be maximize, as callbacks.checkpoint.mode=max says")
    assert not list(tmp_path.iterdir())


def test_a_run_from_before_a_setting_was_added_is_resumed(finished_run: FinishedRun, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(finished_run.folder, run.path)
    config = OmegaConf.load(run.config)
    assert isinstance(config, DictConfig)
    before = config.copy()
    for key in LATER_SETTINGS:
        section, _, name = key.partition(".")
        before[section].pop(name, None)
    OmegaConf.save(before, run.config)
    assert check_configuration(config, run.path)
    config.model.weight_dropout = 0.5
    with pytest.raises(ValueError, match=r"got model.weight_dropout=0.5 instead of 0.0"):
        check_configuration(config, run.path)


def test_loggers_may_be_others_when_a_run_goes_on(finished_run: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(finished_run.folder, tmp_path / "run")
    path = tmp_path / "run" / ".hydra" / "config.yaml"
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    OmegaConf.save(OmegaConf.merge(config, {"logger": {"other": {"_target_": "other.Logger"}}}), path)
    assert check_configuration(config, tmp_path / "run")
    OmegaConf.save(OmegaConf.merge(config, {"seed": 7}), path)
    with pytest.raises(ValueError, match="resumed with its own configuration, got seed=1 instead of 7"):
        check_configuration(config, tmp_path / "run")
