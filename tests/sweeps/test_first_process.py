"""Further processes of a job wait for what the first one decides."""

from pathlib import Path

import pytest

from bptt.run_folder import RunStatus
from bptt.sweeps.first_process import decision_of_another
from bptt.sweeps.manifest import Manifest

FIRST = {"SLURM_JOB_ID": "12", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}


@pytest.mark.parametrize("environment", [{}, FIRST, {"RANK": "1"}, {**FIRST, "SLURM_NTASKS": "1", "RANK": "1"}])
def test_the_first_process_and_those_outside_slurm_decide_themselves(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert decision_of_another(Manifest(tmp_path), "job") is None


def test_the_decision_is_that_of_this_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of an equal trial, of another job, or of the attempt before the job was queued again."""
    for name, value in {**FIRST, "SLURM_PROCID": "1", "SLURM_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RANK", raising=False)
    manifest = Manifest(tmp_path)
    decision = decision_of_another(manifest, "job")
    assert decision is not None
    for job, attempt in (("job", "12.0"), ("other", "12.1"), ("job", "11.1")):
        manifest.add(job, state=RunStatus.COMPLETED, attempt=attempt)
        assert not decision.is_made
    manifest.add("job", state=RunStatus.RUNNING, attempt="12.1")
    manifest.add("job", state=RunStatus.RUNNING, attempt="13.0")
    assert decision.is_made
    assert decision.is_to_train
    manifest.add("job", state=RunStatus.COMPLETED, attempt="12.1")
    assert decision.is_made
    assert not decision.is_to_train
