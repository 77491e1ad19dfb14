"""Values from the environment stay out of what is shared, and may not change within a run."""

from pathlib import Path

import pytest

from bptt.configuration.compose import compose_config
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.groups import Group
from bptt.runs.reading import Run
from bptt.runs.training import train

WORDS = [
    "task=copy_memory", "task.delay=3", "task.batch_size=4", "task.train_batches=2", "task.validation_batches=1",
    "model.hidden_size=4", "~callbacks.gradient_flow", "~callbacks.jacobian_spectrum", "~callbacks.parameter_norms",
    "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1", "seed='${oc.decode:${oc.env:BPTT_SEED}}'",
]  # fmt: skip


def test_a_value_from_the_environment_is_kept_but_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPTT_SEED", "31415926")
    train(compose_config(WORDS), tmp_path, overrides=WORDS)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    assert b"${oc.env:BPTT_SEED}" in events.read_bytes()
    assert b"31415926" not in events.read_bytes()
    longer = compose_config([*WORDS, "resume=auto", "trainer.max_epochs=2"])
    monkeypatch.setenv("BPTT_SEED", "2")
    with pytest.raises(ValueError, match=r"^seed must be the value from the environment that the run began with"):
        train(longer, tmp_path, overrides=WORDS)
    monkeypatch.setenv("BPTT_SEED", "31415926")
    train(longer, tmp_path, overrides=WORDS)
    assert RunFolder(tmp_path).read_summary()["counters"]["batches"] == 4


def test_runs_with_values_from_the_environment_are_no_repetitions() -> None:
    def run(folder: str, seed: object) -> Run:
        return Run(Path(folder), {"seed": seed}, RunStatus.COMPLETED, {"loss": 1.0})

    assert len(Group({}, [run("a", "${oc.env:SEED}"), run("b", "${oc.env:SEED}")], "loss").counted) == 2
    assert len(Group({}, [run("a", 1), run("b", 1)], "loss").counted) == 1
