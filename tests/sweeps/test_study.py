"""Another launch of a study draws other trials, unless all former ones were interrupted."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from bptt.sweeps.manifest import Manifest
from bptt.sweeps.study import go_on, let_grid_fail

optuna = pytest.importorskip("optuna", reason="the extra `launchers` is not installed")


@pytest.mark.filterwarnings("ignore:Deprecated API features")  # of SQLAlchemy, in Optuna
@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ((), 6),
        ((("FAIL", "interrupted"), ("RUNNING", "interrupted"), ("RUNNING", "running")), 6),
        ((("FAIL", "failed"), ("COMPLETE", "completed"), ("FAIL", "diverged")), 9),
        ((("COMPLETE", "completed"), ("FAIL", "interrupted")), 7),
    ],
)
def test_the_seed_of_the_next_launch(tmp_path: Path, trials: tuple[tuple[str, str], ...], expected: int) -> None:
    """The state of each trial in Optuna's storage, and of its job; both take a stopped job of Slurm differently."""
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(study_name="study", storage=storage)
    for state, job in trials:
        number = study.ask().number
        Manifest(tmp_path).add(str(number), state=job)
        if state != "RUNNING":
            study.tell(number, 0.5 if state == "COMPLETE" else None, optuna.trial.TrialState[state])
    sweeper = OmegaConf.create({"storage": storage, "study_name": "study", "sampler": {"seed": 6}})
    go_on(sweeper, Manifest(tmp_path))
    assert sweeper.sampler.seed == expected


def test_a_grid_whose_last_point_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna would stop a loop of its own, which Hydra's sweeper does not use."""
    sampler = optuna.samplers.GridSampler({"x": [0.1]})
    monkeypatch.setattr(optuna.samplers.GridSampler, "after_trial", optuna.samplers.GridSampler.after_trial)
    study = optuna.create_study(sampler=sampler)
    trial = study.ask()
    trial.suggest_categorical("x", [0.1])
    let_grid_fail(OmegaConf.create({"sampler": {"_target_": "optuna.samplers.GridSampler"}}))
    study.tell(trial, None, optuna.trial.TrialState.FAIL)
    assert study.trials[0].state == optuna.trial.TrialState.FAIL
