"""Values from the environment stay out of what is shared, and may not change within a run."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support.script_runner import in_a_process

from bptt.configuration.environment import references, without_environment
from bptt.configuration.paths import with_absolute_paths
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.groups import Group
from bptt.runs.reading import Run

WORDS = [
    "task=copy_memory", "task.delay=3", "task.batch_size=4", "task.train_batches=2", "task.validation_batches=1",
    "model.hidden_size=4", "~callbacks.gradient_flow", "~callbacks.jacobian_spectrum", "~callbacks.parameter_norms",
    "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1", "seed='${oc.decode:${oc.env:BPTT_SEED}}'",
]  # fmt: skip


def test_a_value_from_the_environment_is_kept_but_not_shown(tmp_path: Path) -> None:
    words, folder = [*WORDS, "hydra.run.dir=run"], tmp_path / "run"
    begun = in_a_process("train.py", *words, cwd=tmp_path, BPTT_SEED="31415926")
    assert begun.returncode == 0, begun.stderr
    (events,) = folder.glob("events.out.tfevents.*")
    assert b"${oc.env:BPTT_SEED}" in events.read_bytes()
    assert b"31415926" not in events.read_bytes()
    longer = [*words, "resume=auto", "trainer.max_epochs=2"]
    refused = in_a_process("train.py", *longer, cwd=tmp_path, BPTT_SEED="2")
    assert refused.stderr.startswith("error: seed must be the value from the environment that the run began with")
    done = in_a_process("train.py", *longer, cwd=tmp_path, BPTT_SEED="31415926")
    assert done.returncode == 0, done.stderr
    assert RunFolder(folder).read_summary()["counters"]["batches"] == 4


def test_a_sweep_does_not_take_results_of_other_values(tmp_path: Path) -> None:
    words = ["-m", *WORDS, "model=gru,elman", "hydra.sweep.dir=sweep"]
    assert in_a_process("train.py", *words, cwd=tmp_path, BPTT_SEED="3").returncode == 0
    again = in_a_process("train.py", *words, cwd=tmp_path, BPTT_SEED="3")
    assert again.stdout.endswith("sweep: 2 completed\n")
    refused = in_a_process("train.py", *words, cwd=tmp_path, BPTT_SEED="4")
    assert refused.stderr.startswith("error: seed must be the value from the environment that the run began with")


def test_a_path_keeps_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPTT_DATA", "data")
    config = OmegaConf.create({"task": {"path": "${oc.env:BPTT_DATA}/text"}})
    absolute = with_absolute_paths(config, Path("/home"))
    assert absolute.task.path == "/home/data/text"
    assert dict(references(absolute)) == {"task.path": "/home/${oc.env:BPTT_DATA}/text"}
    for folder in ("/data", "~/data"):
        monkeypatch.setenv("BPTT_DATA", folder)
        assert with_absolute_paths(config, Path("/home")).task.path == f"{folder}/text"


def test_data_may_move_with_their_variable(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "text").write_text("abcab" * 200)
    words = ["task=text", "task.path=${oc.env:BPTT_DATA}/text", "task.length=10", "task.batch_size=2", *WORDS[5:-1]]
    words += ["hydra.run.dir=run"]
    begun = in_a_process("train.py", *words, cwd=tmp_path, BPTT_DATA=str(tmp_path / "first"))
    assert begun.returncode == 0, begun.stderr
    (tmp_path / "first").rename(tmp_path / "second")
    longer = ["resume=run", "trainer.max_epochs=2"]
    done = in_a_process("train.py", *longer, cwd=tmp_path, BPTT_DATA=str(tmp_path / "second"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:BPTT_DATA}",
        "${oc.decode:${oc.env:BPTT_DATA}}",
        r"\${oc.env:BPTT_DATA}",
        r"\\${oc.env:BPTT_DATA}",
        "$a",
    ],
)
def test_what_is_shown_never_holds_the_value(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPTT_DATA", "31415926")
    config = OmegaConf.create({"task": {"token": value, "m": {1: value, "b.c": [value]}}})
    shown = str(OmegaConf.to_container(without_environment(config), resolve=True))
    assert "31415926" not in shown
    assert shown.count(value.replace("\\", "").removeprefix("$")) >= 3


def test_runs_with_values_from_the_environment_are_no_repetitions() -> None:
    def run(folder: str, seed: object) -> Run:
        return Run(Path(folder), {"seed": seed}, RunStatus.COMPLETED, {"loss": 1.0})

    assert len(Group({}, [run("a", "${oc.env:SEED}"), run("b", "${oc.env:SEED}")], "loss").counted) == 2
    assert len(Group({}, [run("a", 1), run("b", 1)], "loss").counted) == 1
