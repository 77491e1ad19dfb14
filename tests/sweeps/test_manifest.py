"""Files that Hydra does not read do not stop a sweep, and states of former manifests are understood."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bptt.run_folder import RunFolder, RunStatus
from bptt.sweeps.manifest import Manifest, files_digest, job_state, recorded_state, summary_hash
from bptt.sweeps.report import Job, report


def hydra_of(folder: Path, *, name: str = "train", cwd: str = "/here") -> Any:
    sources = [SimpleNamespace(schema="file", path=str(folder))]
    runtime = SimpleNamespace(config_sources=sources, cwd=cwd)
    return SimpleNamespace(runtime=runtime, job=SimpleNamespace(config_name=name))


def test_odd_files_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "text.yaml").write_text("length: 1", encoding="utf-8")
    plain = files_digest(hydra_of(tmp_path))
    (tmp_path / "task" / ".#text.yaml").symlink_to("user@host.1234")  # an editor's lock
    (tmp_path / "old.yaml").mkdir()
    assert files_digest(hydra_of(tmp_path)) == plain
    assert files_digest(hydra_of(tmp_path, name="own")) != plain  # of --config-name=own
    (tmp_path / "above").symlink_to(tmp_path)
    assert files_digest(hydra_of(tmp_path)) == plain
    linked = tmp_path.with_name(f"{tmp_path.name}_linked")
    linked.mkdir()
    (tmp_path / "model").symlink_to(linked)  # which Hydra follows
    (linked / "own.yaml").write_text("size: 1", encoding="utf-8")
    plain, before = files_digest(hydra_of(tmp_path)), plain
    assert plain != before
    (tmp_path / "task" / "latin.yaml").write_bytes(b"name: caf\xe9")
    changed = files_digest(hydra_of(tmp_path))
    assert changed != plain
    (tmp_path / "task" / "latin.yaml").write_bytes(b"name: caf\xe8")
    assert files_digest(hydra_of(tmp_path)) != changed


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"state": "done"}, RunStatus.COMPLETED),
        ({"state": "failed"}, RunStatus.FAILED),
        ({"state": "no such"}, RunStatus.MISSING),
        ({"state": []}, RunStatus.MISSING),
        (None, RunStatus.MISSING),
    ],
)
def test_states_of_records(tmp_path: Path, record: dict[str, Any] | None, expected: RunStatus) -> None:
    assert recorded_state(record) == expected
    assert job_state(tmp_path, record) == (expected if expected == RunStatus.FAILED else RunStatus.MISSING)


@pytest.mark.parametrize("status", ["completed", "interrupted", "failed"])
def test_a_job_that_failed_before_its_run_began_again_has_failed(tmp_path: Path, status: str) -> None:
    """Until its run writes another summary, in the sweep or by itself."""
    summary = RunFolder(tmp_path).summary
    summary.write_text(json.dumps({"status": status, "metrics": {}}))
    record = {"state": "failed", "summary": summary_hash(tmp_path)}
    assert job_state(tmp_path, record) == RunStatus.FAILED
    summary.write_text(json.dumps({"status": status, "metrics": {"validation/loss": 1.0}}))
    assert job_state(tmp_path, record) == RunStatus(status)
    summary.write_text(json.dumps({"status": "diverged", "metrics": {}}))
    assert job_state(tmp_path, {"state": "failed", "summary": summary_hash(tmp_path)}) == RunStatus.DIVERGED


def test_the_end_of_a_killed_job_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its process wrote the summary, and died before its line; or it left an interrupted run."""
    manifest, jobs = Manifest(tmp_path), [Job(name, [], RunStatus.MISSING) for name in ("a", "b")]
    for name, status in (("a", "completed"), ("b", "running")):
        manifest.add(name, state=RunStatus.RUNNING, identity="c")
        (tmp_path / name).mkdir()
        RunFolder(tmp_path / name).summary.write_text(f'{{"status": "{status}", "metrics": {{}}}}', encoding="utf-8")
    assert not report(tmp_path, jobs)
    states = {name: record["state"] for name, record in manifest.newest().items()}
    assert states == {"a": "completed", "b": "interrupted"}
    assert manifest.newest()["a"]["identity"] == "c"
    assert capsys.readouterr().err == "error: 1 completed, 1 interrupted: b; the same command runs what is left\n"


def test_a_torn_line_and_one_nested_too_deeply_are_ignored(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.add("a", state=RunStatus.RUNNING)
    with manifest.path.open("a", encoding="utf-8") as file:
        file.write("[" * 100_000 + "\n" + '{"job": "b", "sta')
    manifest.add("a", state=RunStatus.FAILED)
    assert [record["job"] for record in manifest.records()] == ["a", "a"]
    assert recorded_state(manifest.newest()["a"]) == RunStatus.FAILED
    assert manifest.failed_in_this_launch()


def test_relative_paths_are_of_the_working_directory(tmp_path: Path) -> None:
    """task.path=data.txt, said again elsewhere, may be another file: the configurations are compared then."""
    assert files_digest(hydra_of(tmp_path)) == files_digest(hydra_of(tmp_path))
    assert files_digest(hydra_of(tmp_path)) != files_digest(hydra_of(tmp_path, cwd="/elsewhere"))
