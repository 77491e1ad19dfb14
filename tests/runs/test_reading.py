"""Odd runs do not stop the reading of others, and tell no secrets."""

import json
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from omegaconf import OmegaConf
from support.permissions import without_permission

from bptt.configuration.errors import one_line
from bptt.lightning.checkpoint_files import newest_checkpoint
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.groups import mode_of
from bptt.runs.reading import find_runs, read_run


def finished(folder: Path, *, summary: object = None, config: str = "seed: 1\n") -> Path:
    run = RunFolder(folder)
    run.settings.mkdir(parents=True)
    run.config.write_text(config, encoding="utf-8")
    content = {"status": "completed", "metrics": {"validation/loss": 1.0}} if summary is None else summary
    run.summary.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "summary",
    [
        {"status": [], "metrics": {}},
        {"status": "completed", "metrics": []},
        {"status": "nearly", "metrics": {}},
        [1],
        "{",
        "[" * 100_000,
        "\udcff".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_an_odd_summary_is_one_line(tmp_path: Path, summary: object) -> None:
    with pytest.raises(ValueError, match=r"summary\.json") as refused:
        read_run(finished(tmp_path / "run", summary=summary), metric="validation/loss")
    assert len(one_line(refused.value).splitlines()) == 1
    assert RunFolder(tmp_path / "run").status == RunStatus.MISSING


def test_pipes_are_not_read(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    os.mkfifo(run.summary)
    with pytest.raises(ValueError, match=r"summary\.json is no file"):
        run.read_summary()
    run.checkpoints.mkdir()
    os.mkfifo(run.last_checkpoint)
    assert newest_checkpoint(tmp_path) == (
        None,
        [f"a checkpoint must be a whole file written by training, got {run.last_checkpoint}: it is no file"],
    )


def test_odd_values_are_no_numbers(tmp_path: Path) -> None:
    metrics = {"huge": 10**400, "text": "1", "none": None, "whole": 3}
    summary = {"status": "failed", "metrics": metrics, "error": {}, "wall_seconds": "long"}
    run = read_run(finished(tmp_path / "run", summary=summary), metric="huge")
    assert run.metrics == {"huge": None, "text": None, "none": None, "whole": 3.0}
    assert run.error is None
    assert run.wall_seconds is None


@pytest.mark.parametrize("config", ["[1, 2]", "a: [", "a: ${nowhere}"])
def test_an_odd_configuration_is_one_line(tmp_path: Path, config: str) -> None:
    with pytest.raises(ValueError, match=r"config\.yaml cannot be read"):
        read_run(finished(tmp_path / "run", config=config), metric="validation/loss")


def test_odd_event_files_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe, which would wait for a writer; a file of 20 GB without content; a record longer than any."""
    folder = finished(tmp_path / "run")
    os.mkfifo(folder / "events.out.tfevents.1")
    with (folder / "events.out.tfevents.2").open("wb") as file:
        file.truncate(20 << 30)
    (folder / "events.out.tfevents.3").write_bytes(struct.pack("<Q", 1 << 60) + bytes(100))
    assert read_run(folder, metric="validation/loss").curves == {}
    assert capsys.readouterr().err == f"skipped {folder}/events.out.tfevents.1: it is no regular file\n"


def test_environment_variables_stay_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPTT_SECRET", "hunter2")
    config = "seed: 1\ntask: {path: '${oc.env:BPTT_SECRET}/text', length: '${seed}'}\n"
    settings = read_run(finished(tmp_path / "run", config=config), metric="validation/loss").settings
    assert settings["task.path"] == "${oc.env:BPTT_SECRET}/text"
    assert settings["task.length"] == 1


def test_linked_folders_are_found_once(tmp_path: Path) -> None:
    finished(tmp_path / "elsewhere" / "run")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "again").symlink_to(tmp_path / "elsewhere" / "run")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "elsewhere")  # leads back
    (found,) = find_runs([tmp_path / "runs"])
    assert found.resolve() == tmp_path / "elsewhere" / "run"


def test_closed_folders_are_named(open_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "closed", "z"):
        finished(open_folder / name)
    with without_permission(open_folder / "closed"):
        assert [path.name for path in find_runs([open_folder])] == ["a", "z"]
    assert capsys.readouterr().err == f"skipped {open_folder / 'closed'}: Permission denied\n"


def test_status_follows_the_lock(tmp_path: Path) -> None:
    run = RunFolder(finished(tmp_path / "run", summary={"status": "running", "metrics": {}}))
    assert run.status == RunStatus.INTERRUPTED
    with run.locked():
        assert RunFolder(run.path).status == RunStatus.RUNNING
        with pytest.raises(ValueError, match="must be a folder that no other run is using"), run.locked():
            pass
    assert not run.is_locked


def test_asking_for_the_lock_refuses_no_run(tmp_path: Path) -> None:
    """A sweep and `compare_runs.py` ask while runs start."""
    run, begun, done = RunFolder(tmp_path), Event(), Event()

    def ask() -> int:
        answers = []
        while not done.wait(0.0005):
            answers.append(run.is_locked)
            begun.set()
        return len(answers)

    with ThreadPoolExecutor(1) as pool:
        asker = pool.submit(ask)
        try:
            begun.wait()
            for _ in range(1000):
                with run.locked():
                    assert run.is_locked
        finally:
            done.set()
        assert asker.result()


def test_every_status_is_of_one_kind() -> None:
    for status in RunStatus:
        assert not (status.is_finished and status.is_failure)
        assert status.is_finished or not status.has_score


@pytest.mark.parametrize(
    ("metric", "best"),
    [
        ("validation/loss", "min"), ("test/perplexity", "min"), ("validation/bits_per_byte", "min"),
        ("validation/mae", "min"), ("test/mse", "min"), ("validation/recall", "max"), ("test/accuracy", "max"),
        ("validation/f1", "max"), ("validation/skill", "max"),
    ],
)  # fmt: skip
def test_the_direction_follows_from_the_metric(metric: str, best: str) -> None:
    assert mode_of(metric) == best


def test_a_configuration_that_is_empty_is_read(tmp_path: Path) -> None:
    assert OmegaConf.create({}) == {}
    assert read_run(finished(tmp_path / "run", config=""), metric="validation/loss").settings == {}
