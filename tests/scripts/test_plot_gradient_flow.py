"""The exact gradient flow of finished and of untrained networks, drawn from the command line."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support import oracles
from support.script_runner import in_a_process, program, refusal
from torch import Tensor

from bptt.configuration.build import build_module
from bptt.configuration.compose import compose_config
from bptt.runs.loading import load_run

plot_gradient_flow = program("plot_gradient_flow")
SMALL = ("task=copy_memory", "task.delay=10", "task.batch_size=4", "model=gru", "model.hidden_size=8")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def run(tmp_path: Path, finished_run: Any) -> Path:
    """A copy of a finished run of two GRU layers, with other weights in its last checkpoint than in its best."""
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    last = folder / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    for name, value in content["state_dict"].items():
        if name.endswith("weight_hh_l0"):
            value *= 3
    torch.save(content, last)
    return folder


def draw(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> Path:
    """The picture that the script says it has drawn."""
    monkeypatch.setattr(sys, "argv", ["plot_gradient_flow.py", *words])
    plot_gradient_flow.run_script(plot_gradient_flow.main, plot_gradient_flow.__doc__)
    return Path(capsys.readouterr().out.strip())


def test_finished_run(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By default, the best checkpoint is used and the figure is saved in the run's folder."""
    done = in_a_process("plot_gradient_flow.py", f"run={run}", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(run / "gradient_flow_exact.png")]
    best = (run / "gradient_flow_exact.png").read_bytes()
    assert best[:8] == PNG
    last = draw(monkeypatch, capsys, f"run={run}", "checkpoint=last", "out=last.png")
    assert last == run / "last.png"
    assert last.read_bytes()[:8] == PNG
    assert last.read_bytes() != best


def test_several_runs_in_one_figure(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Each layer of each run is a curve. Folders of the same name appear with their paths."""
    monkeypatch.chdir(run.parent)
    shutil.copytree(run, "other")
    assert draw(monkeypatch, capsys, "run=run,other", "out=both.png") == Path("both.png")
    assert Path("both.png").read_bytes()[:8] == PNG
    figure = plot_gradient_flow.draw({name: load_run(Path(name), checkpoint="best") for name in ("run", "other")})
    labels = {line.get_label() for line in figure.axes[1].lines}
    assert {f"{name} layer{number}" for name in ("run", "other") for number in (1, 2)} <= labels
    assert plot_gradient_flow.names_of([Path("a/x"), Path("b/x")]) == ["a/x", "b/x"]
    twice = refusal(monkeypatch, "plot_gradient_flow.py", "run=run", "run=other")
    assert twice == "error: run must be given once, got 'run=other'; it is also run; leave one of them out"


def test_untrained_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Into the folder at hand."""
    monkeypatch.chdir(tmp_path)
    assert draw(monkeypatch, capsys, *SMALL) == Path("gradient_flow_exact.png")
    assert (tmp_path / "gradient_flow_exact.png").read_bytes()[:8] == PNG
    assert [path.name for path in tmp_path.iterdir()] == ["gradient_flow_exact.png"]


def median_norms(model: torch.nn.Module, features: Tensor, terms: Any) -> list[Tensor]:
    """Median norms of each GRU layer, per sequence: B times the gradient of the mean loss."""
    unrolled = oracles.run_model("gru", model, features)
    batch_size = features.shape[1]
    states = [[state[0] for state in level] for level in unrolled.states]
    loss = terms(unrolled.predictions).mean() * batch_size
    return [
        torch.stack(torch.autograd.grad(loss, outputs, retain_graph=True)).norm(dim=-1).quantile(0.5, dim=1)
        for outputs in states
    ]


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "untrained"])
def test_curves_are_exact_over_the_whole_first_validation_batch(run: Path, trained: bool) -> None:
    """Dropout is off, because its noise is not a property of the weights."""
    overrides = [*SMALL, "model.num_layers=2", "model.dropout=0.5"]
    module = load_run(run, checkpoint="best") if trained else build_module(compose_config(overrides))
    batch = module.task.batch("validation", 0)

    def terms(predictions: Tensor) -> Tensor:
        shares = predictions.exp() / predictions.exp().sum(-1, keepdim=True)
        return -shares.gather(-1, batch.targets.long().unsqueeze(-1)).squeeze(-1).log()

    truth = median_norms(module.model, oracles.one_hot(batch.inputs, module.task.input_size), terms)
    figure = plot_gradient_flow.draw({"": module})
    for number, norms in enumerate(truth, start=1):
        (line,) = [line for line in figure.axes[1].lines if line.get_label() == f"layer{number}"]
        assert len(line.get_ydata()) == batch.num_timesteps
        torch.testing.assert_close(torch.tensor(line.get_ydata()), norms.double(), rtol=1e-3, atol=1e-6)


def test_help_shows_both_ways_to_call_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["plot_gradient_flow.py", "--help"])
    plot_gradient_flow.run_script(plot_gradient_flow.main, plot_gradient_flow.__doc__)
    shown = capsys.readouterr().out
    assert "run=FOLDER" in shown
    assert "task=… model=…" in shown
    assert "out=FILE.png" in shown


def test_bad_input_ends_with_one_line(tmp_path: Path) -> None:
    done = in_a_process("plot_gradient_flow.py", "modell=gru", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "modell" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run={run}", "checkpoint=middle"), "checkpoint"),
        (("run={run}", "model=gru"), "model=gru"),
        (("run={run}/checkpoints",), "config.yaml"),
        (("run=",), "run=FOLDER"),
        (("run=,",), "folders of training runs, separated by commas, got ','"),
        (("run=nowhere",), "nowhere"),
        (("model.hidden_sice=3",), "hidden_sice"),
        ((*SMALL, "model.hidden_size=0"), "hidden_size"),
        ((*SMALL, "out={run}/nowhere/picture.png"), "in a folder that exists, got "),
        ((*SMALL, "out={run}/picture.docx"), "out must be a picture ending in .png, .pdf"),
        ((*SMALL, "out={run}/picture"), "out must be a picture ending in .png, .pdf"),
        (("run={run}", "out="), "out must be a picture"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_refusals(run: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], expected: str) -> None:
    line = refusal(monkeypatch, "plot_gradient_flow.py", *(word.format(run=run) for word in words))
    assert line.startswith("error: ")
    assert expected in line
    assert "\n" not in line


def test_run_without_a_checkpoint(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "checkpoints" / "best.ckpt").unlink()
    assert "best.ckpt" in refusal(monkeypatch, "plot_gradient_flow.py", f"run={run}")
