"""The package of docs/own_package.md, written to a folder as printed, trains and loads."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.code_blocks import code_blocks

from bptt.atomic_files import replace_text
from bptt.configuration.build import build_module
from bptt.configuration.compose import compose_config
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.hydra_files import as_yaml
from bptt.runs.loading import load_run
from bptt.runs.training import train

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own_package.md"


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Command line for a run of the page's parts."""
    blocks = [*code_blocks(PAGE, "python"), *code_blocks(PAGE, "yaml")]
    for block in blocks:
        (name,) = re.findall(r"\A# (\S+)$", block.text, re.MULTILINE)
        replace_text(tmp_path / "mine" / name, block.text)
    assert len(blocks) == 8
    monkeypatch.syspath_prepend(tmp_path / "mine" / "src")
    np.save(tmp_path / "walks.npy", np.random.default_rng(1).normal(size=(20, 13)).cumsum(1))
    choices = ["task=walks", "model=leaky", "estimator=last_window", "callbacks=largest_weight"]
    sizes = [
        f"task.path={tmp_path / 'walks.npy'}",
        "task.batch_size=2",
        "model.hidden_size=4",
        "logger=csv",
        "trainer.log_every_n_steps=1",
    ]
    yield ["--config-dir", str(tmp_path / "mine" / "conf"), *choices, *sizes]
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def test_a_run(words: list[str], tmp_path: Path) -> None:
    config = compose_config([*words, "callbacks.largest_weight.every_n_updates=1"])
    run = RunFolder(tmp_path / "run")
    replace_text(run.config, as_yaml(config))
    train(config, run.path)
    assert run.status == RunStatus.COMPLETED
    assert "largest_weight" in run.metrics.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="say trust=mine"):
        load_run(run.path, checkpoint="best")
    assert type(load_run(run.path, checkpoint="best", trust=["mine"]).task).__name__ == "Walks"


def test_an_own_encoding_is_kept_and_not_asked_for(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parts by the encoding of training are for tasks that say so; others are built as in training."""
    source = tmp_path / "mine" / "src" / "mine" / "tasks.py"
    own = '    @property\n    def encoding(self) -> dict[str, float]:\n        return {"largest": 3.0}\n\n'
    text = source.read_text(encoding="utf-8").replace("    def num_batches", f"{own}    def num_batches")
    source.write_text(text, encoding="utf-8")
    config = compose_config(words)
    run = RunFolder(tmp_path / "run")
    replace_text(run.config, as_yaml(config))
    train(config, run.path)
    capsys.readouterr()
    options: dict[str, Any] = {"checkpoint": "best", "trust": ["mine"], "other_data": True}
    assert load_run(run.path, **options).task.encoding == {"largest": 3.0}
    assert capsys.readouterr().err == ""
    np.save(tmp_path / "walks.npy", 2 * np.load(tmp_path / "walks.npy"))
    load_run(run.path, **options)
    assert "another encoding than in training: Walks needs reads_parts = True" in capsys.readouterr().err


@pytest.mark.parametrize("window", [4, 12, 50])
@pytest.mark.usefixtures("float64")
def test_the_last_window(words: list[str], window: int) -> None:
    """The gradient of a loop with `detach` before the window."""
    module = build_module(compose_config([*words, f"estimator.window={window}"]))
    model, task = module.model, module.task
    batch = task.batch("train", 0)
    (update,) = module.estimator.updates(model, task.loss, batch, model.initial_state(2))
    assert update.weight == 2 * min(window, 12)
    own = {name: parameter.grad for name, parameter in model.named_parameters()}
    layer: Any = next(iter(model.levels))
    (state,), outputs = model.initial_state(2), []
    for time, x in enumerate(batch.inputs):
        state = layer.step(x, state.detach() if time == 12 - window else state)
        outputs.append(state)
    model.zero_grad()
    predictions = model.readout(torch.stack(outputs))
    (predictions - batch.targets)[-window:].square().mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(own[name], parameter.grad, rtol=1e-10, atol=1e-12)
