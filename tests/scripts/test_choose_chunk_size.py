"""What a chunk size costs, as a table, a file and a picture, with a recommendation."""

import csv
import math
from pathlib import Path

import pytest
from support.script_runner import FinishedRun, in_a_process, program, refusal

choose_chunk_size = program("choose_chunk_size")
Cost, recommend = choose_chunk_size.Cost, choose_chunk_size.recommend


def costs(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    with (folder / "chunk_size.csv").open() as file:
        lines = list(csv.DictReader(file))
    return {
        (line["estimator"], line["size"]): {
            name: float(value) for name, value in line.items() if name in Cost._fields[2:]
        }
        for line in lines
    }


def test_a_task_with_one_loss_at_the_end(tmp_path: Path) -> None:
    """Of 30 timesteps the last 20 are measured, where the loss is."""
    words = ("task=adding", "task.length=30", "task.batch_size=4", "model.hidden_size=6")
    done = in_a_process("choose_chunk_size.py", *words, "timesteps=20", "batches=2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = costs(tmp_path)
    assert [size for name, size in found if name == "chunked"] == ["1", "2", "4", "8", "16"]
    assert {name for name, _ in found} == {"chunked", "sliding", "randomized", "full"}
    assert found["full", ""]["bias"] == 0
    assert found["chunked", "1"]["bias"] > 0.01
    assert all(cost["microseconds"] > 0 and cost["megabytes"] > 0 for cost in found.values())
    assert found["chunked", "1"]["megabytes"] < found["chunked", "16"]["megabytes"]
    assert "The gradient reaches" in done.stdout
    assert (tmp_path / "chunk_size.png").stat().st_size > 10_000


def test_a_run_at_the_weights_it_reached(finished_run: FinishedRun, tmp_path: Path) -> None:
    """A stream of text with a loss at every timestep; what is written goes where it is told."""
    words = (f"run={finished_run.folder}", "batches=2", "timesteps=30", "delta=0.5", f"out={tmp_path / 'there'}")
    done = in_a_process("choose_chunk_size.py", *words, cwd=finished_run.folder.parent)
    assert (done.returncode, done.stderr) == (0, "")
    found = costs(tmp_path / "there")
    biases = {int(size): cost["bias"] for (name, size), cost in found.items() if name == "chunked"}
    best = next(size for size in sorted(biases) if all(bias < 0.5 for other, bias in biases.items() if other >= size))
    assert f"Recommended: estimator=chunked estimator.chunk_size={best}," in done.stdout


def cost(size: int, bias: float, estimator: str = "chunked") -> Cost:
    return Cost(estimator, size, bias, 0.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("biases", "expected"),
    [
        ({1: 0.5, 2: 0.05, 4: 0.01}, 2),
        ({1: 0.05, 2: 0.5, 4: 0.01}, 4),  # that a smaller one is below is chance
        ({1: 0.5, 2: 0.5, 4: 0.2}, None),
        ({1: math.nan, 2: math.nan}, None),
    ],
)
def test_recommendation(biases: dict[int, float], expected: int | None) -> None:
    """The smallest below delta, with all larger ones below it too; other estimators do not count."""
    best = recommend([*(cost(*each) for each in biases.items()), cost(1, 0.0, "sliding")], delta=0.1)
    assert (best and best.size) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["delta=0"], "delta must be a number above 0, got '0'"),
        (["batches=x"], "batches must be a whole number above 0, got 'x'"),
        (["run=nosuch"], "run must be the folder of a training run, got nosuch"),
        (["run=nosuch", "model=gru"], "with run=FOLDER the configuration is the run's own, got model=gru"),
    ],
)
def test_refused(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, "choose_chunk_size.py", *words)
    assert message in said
    assert "\n" not in said
