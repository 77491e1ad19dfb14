"""The states of a sweep's jobs, recorded in `manifest.jsonl` in its folder."""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.conf import HydraConf

from bptt.run_folder import RunFolder, RunStatus
from bptt.sweeps.names import digest, identifying_overrides

LAUNCH = ""  # in place of a job's name: the records after it are of another launch

Record = dict[str, Any]
FORMER_STATES = {"done": RunStatus.COMPLETED}  # in manifests that were written before jobs had the status of their run


class Manifest(NamedTuple):
    """One line of JSON for each start and end of a job; the newest line of a job counts.

    job: folder below the sweep's. overrides. state: a `RunStatus`. error: one line. wall_seconds: of this attempt.
    objective: the best monitored metric. identity: see `identity`.

    Lines are only appended, each in one write, from any process. A line cut short by a kill is ignored.
    """

    sweep: Path

    @property
    def path(self) -> Path:
        return self.sweep / "manifest.jsonl"

    def add(self, job: str, **record: Any) -> None:
        line = json.dumps({"job": job, **record, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
        with self.path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else f"\n{line}"  # after a line that a killed process cut short
            file.write(f"{line}\n".encode())

    def records(self) -> list[Record]:
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.exists() else []:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and isinstance(record.get("job"), str):
                found.append(record)
        return found

    def newest(self) -> dict[str, Record]:
        """The newest line of every job."""
        return {record["job"]: record for record in self.records() if record["job"] != LAUNCH}

    def failed_in_this_launch(self) -> bool:
        failed = False
        for record in self.records():
            failed = record["job"] != LAUNCH and (failed or state_of(record).is_failure)
        return failed


def identity(words: Sequence[str], *, files: str) -> str:
    """Hash of a job's overrides and all configuration files; equal hashes imply equal configurations."""
    return digest([*identifying_overrides(words), files])


def files_digest(hydra: HydraConf) -> str:
    """Hash of all configuration files that Hydra can read, whether they are chosen or not."""
    found = []
    for source in hydra.runtime.config_sources:
        if source.schema == "file":
            folder = Path(source.path)
            paths = (path for path in sorted(folder.rglob("*.yaml")) if path.is_file() and path.name[0] != ".")
            found += [part for path in paths for part in (str(path.relative_to(folder)), contents(path))]
    return digest(found)


def contents(path: Path) -> str:
    """Hash of a file's bytes; empty if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def state_of(record: Record | None) -> RunStatus:
    """The state in a job's newest record; missing if there is none."""
    state = (record or {}).get("state")
    found = FORMER_STATES.get(str(state), state)
    return RunStatus(found) if found in list(RunStatus) else RunStatus.MISSING


def state(folder: Path, record: Record | None) -> RunStatus:
    """The state of a job: its run's status, or failed if it has failed before it had a summary."""
    found = RunFolder(folder).status
    if found == RunStatus.MISSING and state_of(record) == RunStatus.FAILED:
        return RunStatus.FAILED
    return found
