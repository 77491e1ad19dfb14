"""Scoring a finished run, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support.script_runner import FinishedRun, in_a_process, refusal

from bptt.runs.evaluation import evaluate

NAMES = {"loss", "bits_per_byte", "accuracy"}


def test_last_checkpoint_scores_what_training_reported(finished_run: FinishedRun) -> None:
    reported = json.loads((finished_run.folder / "summary.json").read_text())["metrics"]
    scores = evaluate(finished_run.folder, split="validation", checkpoint="last")
    assert scores.keys() == {f"validation/{name}" for name in NAMES}
    assert scores == pytest.approx({name: reported[name] for name in scores}, rel=1e-6)


def test_best_checkpoint_scores_the_best_validation(finished_run: FinishedRun) -> None:
    """With one validation, the best is the last."""
    best, last = (evaluate(finished_run.folder, split="validation", checkpoint=name) for name in ("best", "last"))
    assert best == last


def test_scores_as_a_user_sees_them(finished_run: FinishedRun, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.folder.rglob("*")}
    done = in_a_process("evaluate.py", f"run={finished_run.folder}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    printed = dict(line.split() for line in done.stdout.splitlines())
    expected = evaluate(finished_run.folder)
    assert printed.keys() == expected.keys() == {f"test/{name}" for name in NAMES}
    assert {name: float(value) for name, value in printed.items()} == pytest.approx(expected, rel=1e-5)
    assert {path: path.stat().st_mtime_ns for path in finished_run.folder.rglob("*")} == before, "it only reads"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("split", "limit"), [("test", "limit_test_batches"), ("validation", "limit_val_batches")])
def test_no_score_is_no_success(finished_run: FinishedRun, tmp_path: Path, split: str, limit: str) -> None:
    shutil.copytree(finished_run.folder, tmp_path / "run")
    rewrite(tmp_path / "run", f"trainer.{limit}", 0)
    with pytest.raises(ValueError, match=rf"split must be one .* scores batches \(trainer\.{limit}\), got '{split}'"):
        evaluate(tmp_path / "run", split=split)


@pytest.fixture(scope="module")
def broken(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs that went wrong, each in its own way; and one that did not."""
    root = tmp_path_factory.mktemp("broken")
    (root / "empty").mkdir()
    names = ("good", "other_size", "other_layer", "truncated", "rubbish", "unfinished", "no_text", "no_test")
    for name in names:
        shutil.copytree(finished_run.folder, root / name)
    rewrite(root / "other_size", "model.hidden_size", 13)
    rewrite(root / "other_layer", "model.layer._target_", "bptt.layers.LSTM")
    rewrite(root / "no_text", "task.path", "nosuch.txt")
    rewrite(root / "no_test", "task.fractions", [0.5, 0.5, 0.0])
    best = root / "truncated" / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:1000])
    (root / "rubbish" / "checkpoints" / "best.ckpt").write_text("rubbish")
    shutil.rmtree(root / "unfinished" / "checkpoints")
    return root


def rewrite(run: Path, key: str, value: object) -> None:
    config = OmegaConf.load(run / ".hydra" / "config.yaml")
    OmegaConf.update(config, key, value)
    OmegaConf.save(config, run / ".hydra" / "config.yaml")


def test_a_run_from_another_machine(finished_run: FinishedRun, tmp_path: Path) -> None:
    """The other machine has a GPU and several processes."""
    shutil.copytree(finished_run.folder, tmp_path / "run")
    for key, value in {"accelerator": "gpu", "devices": 2, "strategy": "ddp"}.items():
        rewrite(tmp_path / "run", f"trainer.{key}", value)
    assert evaluate(tmp_path / "run") == evaluate(finished_run.folder)


REFUSED = [
    ("", "run must be the folder of a training run, got None; say run=FOLDER"),
    ("run=", "run must be the folder of a training run"),
    ("run={root}/nosuch", "run must be the folder of a training run, got {root}/nosuch"),
    ("run={root}/empty", "run must be the folder of a training run, got {root}/empty"),
    ("run={root}/good/summary.json", "run must be the folder of a training run"),
    ("run={root}/good spilt=test", "spilt=test"),
    ("{root}/good", "{root}/good"),
    ("run={root}/good split=foo", "split must be validation or test, got 'foo'"),
    ("run={root}/good checkpoint=foo", "checkpoint must be best or last, got 'foo'"),
    ("run={root}/no_test", "split must be one that the task has, got test, which is empty; use split=validation"),
    (
        "run={root}/no_text",
        "task.path of the run must be an existing file, got 'nosuch.txt'; if it was moved, say train.py",
    ),
    ("run={root}/other_size", "the checkpoint must be of the same model"),
    ("run={root}/other_layer", "the checkpoint must be of the same model"),
    (
        "run={root}/truncated",
        "a whole file written by training, got {root}/truncated/checkpoints/best",
    ),
    (
        "run={root}/rubbish",
        "a whole file written by training, got {root}/rubbish/checkpoints/best",
    ),
    ("run={root}/unfinished", "which is missing; has it finished a validation?"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_bad_input_is_refused_in_one_line(
    words: str,
    message: str,
    broken: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    line = refusal(monkeypatch, "evaluate.py", *words.format(root=broken).split())
    assert line.startswith("error: ")
    assert len(line.splitlines()) == 1
    assert message.format(root=broken) in line
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")
