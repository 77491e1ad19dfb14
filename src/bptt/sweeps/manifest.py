"""The states of a sweep's jobs, recorded in `manifest.jsonl` in its folder."""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.conf import HydraConf

from bptt.configuration.environment import values_in
from bptt.run_folder import RunFolder, RunStatus
from bptt.sweeps.names import digest, identifying_overrides

LAUNCH = ""  # instead of a job's name: a record that marks the start of a launch of the sweep

Record = dict[str, Any]
FORMER_STATES = {"done": RunStatus.COMPLETED}  # states in manifests of earlier versions


class Manifest(NamedTuple):
    """One line of JSON for each start and end of a job; the newest line of a job counts.

    Fields of a line: job (folder relative to the sweep's), overrides, state (a `RunStatus`), error (one line),
    wall_seconds (of this attempt), objective (the best monitored metric), identity (see `identity`), summary (of a
    failed job, see `summary_hash`), attempt (in Slurm, see `first_process`), time.

    Lines are only appended, each in one write, from any process. An incomplete line, left by a killed process, is
    ignored.
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
                line = line if file.read() == b"\n" else f"\n{line}"  # end an incomplete line of a killed process first
            file.write(f"{line}\n".encode())

    def records(self) -> list[Record]:
        records = []
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.is_file() else ""
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):  # torn, or nested too deeply
                continue
            if isinstance(record, dict) and isinstance(record.get("job"), str):
                records.append(record)
        return records

    def newest(self) -> dict[str, Record]:
        """The newest line of every job."""
        return {record["job"]: record for record in self.records() if record["job"] != LAUNCH}

    def of_this_launch(self) -> dict[str, Record]:
        """The newest line of every job since the newest launch began."""
        newest: dict[str, Record] = {}
        for record in self.records():
            if record["job"] == LAUNCH:
                newest.clear()
            else:
                newest[record["job"]] = record
        return newest

    def failed_in_this_launch(self) -> bool:
        """True if a job of the newest launch has failed."""
        return any(recorded_state(record).is_failure for record in self.of_this_launch().values())


def identity(overrides: Sequence[str], *, files: str) -> str:
    """Hash of a job's overrides and all configuration files; equal hashes imply equal configurations.

    Also of the values that they have from the environment.
    """
    words = identifying_overrides(overrides)
    plain = " ".join(words).replace("\\", "")  # Hydra hands on $\{oc.env\:NAME} where a word is not in quotes
    return digest([*words, *values_in(plain), files])


def files_digest(hydra: HydraConf) -> str:
    """Hash of all files that Hydra can read, used or not, of the primary one's name, and of the working directory."""
    parts = [str(hydra.job.config_name), str(hydra.runtime.cwd)]
    for source in hydra.runtime.config_sources:
        if source.schema == "file":
            folder = Path(source.path)
            paths = sorted(configuration_files(folder))
            parts += [part for path in paths for part in (str(path.relative_to(folder)), *contents(path))]
    return digest(parts)


def configuration_files(folder: Path) -> Iterator[Path]:
    """Yield what Hydra can read in a folder, and in folders that links in it lead to."""
    seen = set()
    for name, folders, files in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(name)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(place)
        paths = (Path(name, file) for file in files if file.endswith(".yaml") and file[0] != ".")
        yield from (path for path in paths if path.is_file())


def contents(path: Path) -> list[str]:
    """Hash of a file's bytes, and the values from the environment that it refers to; empty if it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return [""]
    return [hashlib.sha256(content).hexdigest(), *values_in(content.decode(errors="replace"))]


def recorded_state(record: Record | None) -> RunStatus:
    """The state in a job's newest record; `MISSING` without a record."""
    recorded = (record or {}).get("state")
    state = FORMER_STATES.get(str(recorded), recorded)
    return RunStatus(state) if state in list(RunStatus) else RunStatus.MISSING


def job_state(folder: Path, record: Record | None) -> RunStatus:
    """The state of a job: the status of its run, or `FAILED` if it failed before its run could write a summary."""
    status = RunFolder(folder).status
    has_failed = recorded_state(record) == RunStatus.FAILED and not status.is_failure  # or diverged
    return RunStatus.FAILED if has_failed and summary_hash(folder) == (record or {}).get("summary") else status


def summary_hash(folder: Path) -> str | None:
    """Hash of a run's summary, which a job keeps that fails before it begins; None without one."""
    path = RunFolder(folder).summary
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
