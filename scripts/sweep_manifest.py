"""What became of the jobs of a sweep, kept in `manifest.jsonl` in its folder."""

import fcntl
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.conf import HydraConf
from resumption import is_locked, status
from sweep_names import digest, named

LAUNCH = ""  # in place of a job's name: from here on, jobs of another launch

Record = dict[str, Any]
ENDED = {"completed": "done", "pruned": "done", "failed": "failed", "diverged": "failed"}  # by the status of a summary


class Manifest(NamedTuple):
    """One line of JSON for each beginning and end of a job; the newest line of a job counts.

    job: its folder below the sweep's. overrides. state: running, done, failed or interrupted. error: its line.
    wall_seconds: of this attempt. objective: the best monitored metric. identity: see `identity`.

    Lines are only added, each at once, from any process. What a killed one left of a line is passed over.
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
                line = line if file.read() == b"\n" else f"\n{line}"  # after what a killed process left
            file.write(f"{line}\n".encode())

    def records(self) -> list[Record]:
        found = []
        for line in self.path.read_text(errors="replace").splitlines() if self.path.exists() else []:
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
            failed = record["job"] != LAUNCH and (failed or record.get("state") == "failed")
        return failed


def identity(words: Sequence[str], *, files: str) -> str:
    """Of a job, by its overrides and all files they refer to: where it is the same, the configuration is."""
    return digest([*named(words), files])


def files_digest(hydra: HydraConf) -> str:
    """Of all configuration files, whether they are chosen or not."""
    folders = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    paths = [(folder, path) for folder in folders for path in sorted(folder.rglob("*.yaml"))]
    return digest(part for folder, path in paths for part in (str(path.relative_to(folder)), path.read_text()))


def state(folder: Path, record: Record | None) -> str:
    """Of a job: done, failed, interrupted, running (in another process) or missing."""
    ended = status(folder)
    if ended is None:
        return "failed" if record is not None and record.get("state") == "failed" else "missing"
    return ENDED.get(ended) or ("running" if is_locked(folder) else "interrupted")
