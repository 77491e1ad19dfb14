"""The cost of chunk sizes as a table, files and a picture, with a recommendation that a user can follow."""

import csv
import json
import re
from pathlib import Path

import pytest
from support.script_runner import FinishedRun, in_a_process, refusal

SMALL = ("task=adding", "task.length=30", "task.batch_size=4", "model.hidden_size=6")


def costs(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of the last moment, by the overrides that choose an estimator."""
    with (folder / "chunk_size.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    last = max(int(line["updates"]) for line in lines)
    return {line["overrides"]: line for line in lines if int(line["updates"]) == last}


def recommended(output: str) -> list[str]:
    """Overrides in the printed advice."""
    (words,) = re.findall(r"^Recommended: ([^,]*?)[,.] ", output, re.MULTILINE)
    return words.split()


def test_a_user_follows_the_advice(tmp_path: Path) -> None:
    """First of an untrained network, which warns and says what to do; then over training; then trains with it.

    The same command gives the same answer.
    """
    done = in_a_process("choose_chunk_size.py", *SMALL, "timesteps=20", "batches=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "measuring: batch 1 of 2" in done.stderr
    found = costs(tmp_path)
    assert [line["size"] for line in found.values() if line["name"] == "chunked"] == ["1", "2", "4", "8", "16", "64"]
    assert {line["name"] for line in found.values()} == {"chunked", "sliding", "randomized", "full"}
    assert "estimator=sliding estimator.stride=4 estimator.window=8" in found
    assert float(found["estimator=full"]["bias"]) == 0
    assert float(found["estimator=chunked estimator.chunk_size=1"]["bias"]) > 0.01
    assert all(float(line["microseconds"]) > 0 < float(line["megabytes"]) for line in found.values())
    assert (tmp_path / "chunk_size.png").stat().st_size > 10_000
    (train,) = re.findall(r"Warning: these weights are untrained.*(train=\d+)\.", done.stdout)

    over_training = (*SMALL, "timesteps=20", "batches=2", train.replace("500", "8"))
    answers = []
    for _ in range(2):
        done = in_a_process("choose_chunk_size.py", *over_training, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        answer = json.loads((tmp_path / "chunk_size.json").read_text(encoding="utf-8"))
        assert [moment["updates"] for moment in answer["moments"]] == [0, 1, 2, 8]
        assert "untrained" not in done.stdout
        assert "The horizon over training: measured" in done.stdout
        assert "estimator=full" in done.stdout
        assert answer["recommended"].split() == recommended(done.stdout)
        for moment in answer["moments"]:
            for line in moment["costs"]:
                del line["microseconds"]
        answers.append(answer)
    assert answers[0] == answers[1]

    words = recommended(done.stdout)
    done = in_a_process("train.py", *SMALL, *words, "trainer.max_epochs=1", "task.train_batches=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_run_at_the_weights_it_reached(finished_run: FinishedRun, tmp_path: Path) -> None:
    """A stream of text with a loss at every timestep, and the run's own chunk size among those measured."""
    words = (f"run={finished_run.folder}", "batches=2", "timesteps=30", "delta=0.5", f"out={tmp_path / 'there'}")
    done = in_a_process("choose_chunk_size.py", *words, cwd=finished_run.folder.parent)
    assert done.returncode == 0, done.stderr
    found = costs(tmp_path / "there")
    biases = {int(line["size"]): float(line["bias"]) for line in found.values() if line["name"] == "chunked"}
    assert 20 in biases
    best = next(size for size in sorted(biases) if all(bias < 0.5 for other, bias in biases.items() if other >= size))
    assert recommended(done.stdout) == ["estimator=chunked", f"estimator.chunk_size={best}"]
    assert "untrained" not in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["delta=0"], "delta must be a number above 0, got '0'"),
        (["batches=x"], "batches must be a whole number above 0, got 'x'"),
        (["train=-3"], "train must be a whole number above 0, got '-3'"),
        (["run=nosuch"], "run must be the folder of a training run, got nosuch"),
        (["task=copy_memory", f"out={__file__}"], "out must be a folder that can be created and written, got "),
        (["run=nosuch", "train=5"], "train must be 0 with run=FOLDER, whose weights are trained"),
        (["run=nosuch", "model=gru"], "with run=FOLDER the configuration is the run's own, got model=gru"),
    ],
)
def test_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(monkeypatch, "choose_chunk_size.py", *words)
    assert message in line
    assert "\n" not in line
    assert capsys.readouterr() == ("", ""), "before anything is measured"
