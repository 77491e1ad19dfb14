"""Published experiments are run, collected and compared with the published numbers."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.script_runner import SCRIPTS, in_a_process, refusal

from bptt.reproduction import results
from bptt.reproduction.collection import collect
from bptt.reproduction.page import render
from bptt.reproduction.results import Results, RowResult
from bptt.reproduction.row_runs import OTHER, read_runs, waiting_runs
from bptt.reproduction.rows import KEYS, publication
from bptt.run_folder import RunFolder, RunStatus


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where one row was run on the quick scale."""
    folder = tmp_path_factory.mktemp("reproduced")
    done = in_a_process("reproduce.py", "influence_balancing/full", "--quick", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    announced, ended, page = done.stdout.splitlines()
    assert announced == "influence_balancing: 1 run of unknown length; left: 1 run of unknown length"
    assert ended.endswith("influence_balancing/full/seed_1: completed")
    assert page == "outputs/reproduce_quick/RESULTS.md"
    return folder


RUN = Path("outputs", "reproduce_quick", "influence_balancing", "full", "seed_1")


def test_a_row_is_run_scored_and_shown(reproduced: Path) -> None:
    page = (reproduced / "outputs" / "reproduce_quick" / "RESULTS.md").read_text(encoding="utf-8")
    score = json.loads((reproduced / RUN / "scores.json").read_text(encoding="utf-8"))["scores"]["layers.0.theta"]
    assert 0 < score < 0.5, "it went down from ½"
    assert re.search(rf"\| full +\| −1/6 +\| {score:.4g} ", page)
    assert len(re.findall(r"\| not run ", page)) == sum(len(publication(key).rows) for key in KEYS) - 1
    assert "task.train_batches=10 seed=1" in page
    assert "torch 2." in page
    picture = reproduced / "outputs" / "reproduce_quick" / "influence_balancing.png"
    assert 1000 < picture.stat().st_size < 60_000
    assert f"({picture.name})" in page
    assert {path.name for path in reproduced.iterdir()} == {"outputs"}, "the page of the full scale is unchanged"


def test_what_has_finished_is_not_run_again(reproduced: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (reproduced / RUN).rglob("*")}
    done = in_a_process("reproduce.py", "influence_balancing/full", "--quick", cwd=reproduced)
    assert (done.returncode, done.stderr) == (0, "")
    announced, page = done.stdout.splitlines()
    assert re.fullmatch(r"influence_balancing: 1 run: 0\.\d hours; left: 0 runs", announced)
    assert page == "outputs/reproduce_quick/RESULTS.md"
    assert {path: path.stat().st_mtime_ns for path in (reproduced / RUN).rglob("*")} == before


def test_runs_are_collected_and_stay_when_they_are_gone(reproduced: Path, tmp_path: Path) -> None:
    each, root, folder = publication("influence_balancing", quick=True), tmp_path / "outputs", tmp_path / "results"
    (full,) = [row for row in each.rows if row.name == "full"]
    shutil.copytree(reproduced / RUN, root / "influence_balancing" / "full" / "seed_1")
    collect([each], root, folder)
    path = folder / "influence_balancing.json"
    found, written = results.read(path), path.stat().st_mtime_ns
    assert found.rows.keys() == {"full"}
    assert found.rows["full"].command == each.command(full)
    assert found.figure == "influence_balancing.png"
    picture = (folder / found.figure).read_bytes()
    shutil.rmtree(root)
    collect([each], root, folder)
    assert (results.read(path), path.stat().st_mtime_ns) == (found, written)
    assert (folder / found.figure).read_bytes() == picture
    assert "(results/influence_balancing.png)" in render([each], folder, page=tmp_path / "RESULTS.md")


def test_nothing_is_written_about_what_was_not_run(tmp_path: Path) -> None:
    collect([publication(key) for key in KEYS], tmp_path / "outputs", tmp_path / "results")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("stay", "drawn"), [(0, True), (1, True), (2, False)])
def test_a_figure_stays_if_more_rows_stay_than_are_found(
    stay: int, drawn: bool, reproduced: Path, tmp_path: Path
) -> None:
    each, root, folder = publication("influence_balancing", quick=True), tmp_path / "outputs", tmp_path / "results"
    others = [row for row in each.rows if row.name != "full"][:stay]
    earlier = {row.name: RowResult(each.command(row), mean=0.123, seeds_ended=1) for row in others}
    results.write(Results(earlier), folder / "influence_balancing.json")
    shutil.copytree(reproduced / RUN, root / "influence_balancing" / "full" / "seed_1")
    collect([each], root, folder)
    assert len(results.read(folder / "influence_balancing.json").rows) == stay + 1
    assert (folder / "influence_balancing.png").is_file() == drawn


def test_runs_of_another_configuration_are_distinguished_from_unfinished_ones(reproduced: Path, tmp_path: Path) -> None:
    each, root, folder = publication("influence_balancing", quick=True), tmp_path / "outputs", tmp_path / "results"
    places = {name: root / each.key / name / "seed_1" for name in ("full", "rtrl")}
    for place in places.values():
        shutil.copytree(reproduced / RUN, place)
    summary = json.loads((places["full"] / "summary.json").read_text(encoding="utf-8"))
    (places["full"] / "summary.json").write_text(json.dumps({**summary, "status": "running"}), encoding="utf-8")
    runs = {row.name: [(run.status, run.error) for run in read_runs(each, row, root).values()] for row in each.rows}
    unfinished = (RunStatus.INTERRUPTED, None)  # its process is gone
    assert runs == {**{name: [] for name in runs}, "full": [unfinished], "rtrl": [(RunStatus.MISSING, OTHER)]}
    collect([each], root, folder)
    page = render([each], folder, page=tmp_path / "RESULTS.md")
    lines = {line.split()[1]: line for line in page.splitlines() if line.startswith("|")}
    assert "1 interrupted" in lines["full"]
    assert f"1 {OTHER}" in lines["rtrl"]
    assert "not run" in lines["randomized"]
    assert "yes" not in "".join(lines.values())


def test_runs_of_another_configuration_are_neither_drawn_nor_resumed(reproduced: Path, tmp_path: Path) -> None:
    root, each = tmp_path / "outputs", publication("influence_balancing")
    shutil.copytree(reproduced / RUN, root / "influence_balancing" / "rtrl" / "seed_1")
    collect([each], root, tmp_path / "results")
    assert not list(tmp_path.rglob("*/influence_balancing.png"))
    with pytest.raises(ValueError, match=f"must hold a run of its row, got one {OTHER}; move it away"):
        waiting_runs(each, root, keys=["influence_balancing"])


IN_A_COPY = """
import runpy
from pathlib import Path
from bptt.configuration import compose
import bptt.reproduction.rows  # reads the checkout's own docs/published
compose.ROOT = Path({root!r})
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_stops_all_runs_after_a_checkpoint(number: int, tmp_path: Path) -> None:
    """No further runs are started. The page is written into the checkout, wherever the script is started.

    SIGKILL leaves no time for a page. The run stops by itself.
    """
    command = [sys.executable, "-c", IN_A_COPY.format(root=str(tmp_path), script=str(SCRIPTS / "reproduce.py"))]
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    run = folder / "outputs" / "reproduce" / "lag_bits" / "chunk_5_units_4" / "seed_1"
    command += ["lag_bits/chunk_5_units_4", "jobs=1"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        # The first update is written, so signals are caught.
        while sum(path.stat().st_size for path in run.glob("events.*")) < 10_000 and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        output, error = process.communicate(timeout=120)
    if number == signal.SIGKILL:
        while RunFolder(run).status == RunStatus.RUNNING and time.monotonic() < deadline + 60:
            time.sleep(0.1)
        assert RunFolder(run).status == RunStatus.INTERRUPTED
        assert (run / "checkpoints" / "last.ckpt").is_file()
        return
    assert "seed_1: interrupted" in output
    assert error.count("\n") == 1
    first = run.relative_to(folder)
    assert f"got 3 that did not: {first} …; see {first}.out; the same command goes on" in error
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert "1 interrupted" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "lag_bits: 3 runs of unknown length; left: 3 runs of unknown length" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nosuch"], "KEY must be adding or adding_600 or aicher_copy"),
        (["adding/nosuch"], "got 'adding/nosuch'"),
        (["checkpointing/gru_time"], "KEY must be checkpointing, whose rows are measured together, got"),
        (["out=here"], "arguments must be KEY, KEY/ROW, --quick, jobs or file, got 'out=here'"),
        (["jobs=many"], "jobs must be an integer >= 0, got 'many'"),
    ],
)
def test_refused(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = refusal(monkeypatch, "reproduce.py", *words)
    assert message in line
    assert "\n" not in line
