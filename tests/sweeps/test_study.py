"""Another launch of a study draws other trials, unless none of the former ones has a value."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from bptt.sweeps.study import go_on

optuna = pytest.importorskip("optuna", reason="the extra `launchers` is not installed")


@pytest.mark.filterwarnings("ignore:Deprecated API features")  # of SQLAlchemy, in Optuna
@pytest.mark.parametrize(("states", "expected"), [((), 6), (("FAIL", "RUNNING"), 6), (("COMPLETE", "FAIL"), 7)])
def test_the_seed_of_the_next_launch(tmp_path: Path, states: tuple[str, ...], expected: int) -> None:
    """The same trials again are those that were interrupted, which are resumed."""
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(study_name="study", storage=storage)
    for state in states:
        number = study.ask().number
        if state != "RUNNING":
            study.tell(number, 0.5 if state == "COMPLETE" else None, optuna.trial.TrialState[state])
    sweeper = OmegaConf.create({"storage": storage, "study_name": "study", "sampler": {"seed": 6}})
    go_on(sweeper)
    assert sweeper.sampler.seed == expected
