"""What the first process of a job decides for the others: to train, or that the job is finished."""

import os
from typing import NamedTuple

from bptt.configuration.build import is_first_process
from bptt.run_folder import RunStatus
from bptt.sweeps.manifest import Manifest, recorded_state


class Decision(NamedTuple):
    """The decision of the first process about a job, a line of the manifest with the name of this attempt."""

    manifest: Manifest
    job: str
    attempt: str

    @property
    def is_made(self) -> bool:
        return self._state is not None

    @property
    def is_to_train(self) -> bool:
        return self._state == RunStatus.RUNNING

    @property
    def _state(self) -> RunStatus | None:
        records = [record for record in self.manifest.records() if record["job"] == self.job]
        own = [record for record in records if record.get("attempt") == self.attempt]
        return recorded_state(own[-1]) if own else None


def decision_of_another(manifest: Manifest, job: str) -> Decision | None:
    """The decision that a further process of a job of Slurm waits for; None in the first process, and elsewhere.

    Each could decide by itself, but a job may end between two looks. Then the others would wait for the first one.
    """
    attempt = attempt_of_job()
    return None if attempt is None or is_first_process() else Decision(manifest, job, attempt)


def attempt_of_job() -> str | None:
    """Slurm's number of the job, and how often it was queued again; None outside Slurm, and for one process."""
    number = os.environ.get("SLURM_JOB_ID")
    if not number or os.environ.get("SLURM_NTASKS", "1") == "1":
        return None
    return f"{number}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
