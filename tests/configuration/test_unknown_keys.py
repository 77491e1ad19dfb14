"""The error for a misspelt setting suggests a similar existing one."""

from pathlib import Path

import pytest
from hydra.errors import HydraException

from bptt.configuration.compose import compose_config
from bptt.configuration.errors import one_line


@pytest.mark.parametrize(
    ("word", "choices", "answer"),
    [
        ("model.hiden_size=5", [], "did you mean model.hidden_size?"),
        ("estimator.chunksize=5", [], "did you mean estimator.chunk_size?"),
        ("optimizer.learning_rate=1", [], "did you mean optimizer.lr?"),
        ("optimizer.nosuch=1", [], "all of them are shown by --cfg job"),
        ("task.dealy=5", ["task=copy_memory"], "did you mean task.delay?"),
        ("hidden_size=5", [], "did you mean model.hidden_size?"),
        ("task.delay=5", ["task=text"], "must be a setting of task"),
        ("trainer.max_epoch=5", [], "did you mean trainer.max_epochs or"),
        ("trainer.overfit_batches=1", [], "say +trainer.overfit_batches=…"),
        ("sed=1", [], "did you mean seed?"),
    ],
)
def test_the_setting_that_was_meant(
    word: str, choices: list[str], answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", *choices, word])
    with pytest.raises(HydraException) as refused:
        compose_config([*choices, word])
    line = one_line(refused.value)
    assert answer in line
    assert line.startswith(f"{word.partition('=')[0]} must be a setting of ")
    assert len(line.splitlines()) == 1


def test_a_folder_of_own_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts that are no Hydra applications find them, too, and know their settings."""
    folder = tmp_path / "Anna's own"
    (folder / "estimator").mkdir(parents=True)
    (folder / "estimator" / "own.yaml").write_text("_target_: bptt.estimators.Sliding\nwidth: 8\n", encoding="utf-8")
    assert compose_config(["estimator=own", "--config-dir", str(folder)]).estimator.width == 8
    for option in ([f"--config-dir={folder}"], ["--config-dir", str(folder)], ["-cd", str(folder)]):
        words = [*option, "estimator=own", "estimator.widht=9"]
        monkeypatch.setattr("sys.argv", ["choose_chunk_size.py", *words])
        with pytest.raises(HydraException) as refused:
            compose_config(words)
        assert "did you mean estimator.width?" in one_line(refused.value)
    (folder / "experiment").mkdir()
    text = "# @package _global_\nseed: 5\nsweep: {fail_fast: true}"
    (folder / "experiment" / "own.yaml").write_text(text, encoding="utf-8")
    config = compose_config(["experiment=own", "--config-dir", str(folder)])
    assert (config.seed, config.sweep.fail_fast) == (5, True)
    with pytest.raises(ValueError, match="--config-dir must be a folder"):
        compose_config(["--config-dir", str(tmp_path / "missing")])
