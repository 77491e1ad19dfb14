"""Published rows and the page that sets ours beside them."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.script_runner import SCRIPTS, in_a_process, program, refusal

from bptt.configuration.build import build_module
from bptt.configuration.compose import CONF, compose_config
from bptt.reproduction.page import cells, commands, write
from bptt.reproduction.rows import DIVERGES, KEYS, OTHER, PUBLISHED, Row, publication, read_runs
from bptt.runs.groups import Group
from bptt.runs.reading import Run

waiting_runs = program("reproduce").waiting_runs
ROWS = [(key, row.name) for key in KEYS if key != "checkpointing" for row in publication(key).rows]


def test_every_experiment_has_published_rows_and_the_other_way_round() -> None:
    experiments = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    assert experiments
    assert {path.stem for path in PUBLISHED.glob("*.yaml")} == {*experiments, "checkpointing"}


@pytest.mark.parametrize("key", KEYS)
def test_publications_have_what_they_need(key: str) -> None:
    each = publication(key)
    assert re.search(r"\((19|20)\d\d\)", each.source + each.says)
    assert each.rows
    for row in each.rows:
        assert row.published is not None
        assert row.expect in (None, DIVERGES) or row.expect[0] < row.expect[1]
        assert row.title if each.benchmark else row.seeds
        if isinstance(row.published, float) and row.expect is not None:
            assert row.fits(row.published) == "yes", "a published number agrees with itself"


@pytest.mark.parametrize(("key", "name"), ROWS)
def test_every_row_builds(key: str, name: str, text: Path) -> None:
    (row,) = [row for row in publication(key, text=str(text)).rows if row.name == name]
    short = ["task.batch_size=4", "task.length=50"] if key == "tinyshakespeare" else []  # as the text is
    build_module(compose_config([*row.words, *short]))


@pytest.mark.parametrize("key", sorted({key for key, _ in ROWS}))
def test_every_quick_scale_composes(key: str, text: Path) -> None:
    whole, quick = (publication(key, quick=scale, text=str(text)).rows[0] for scale in (False, True))
    assert compose_config(quick.words) != compose_config(whole.words)


def test_no_two_rows_of_a_key_are_the_same_or_share_a_folder() -> None:
    for key in KEYS:
        rows = publication(key).rows
        assert len({(row.words, row.title) for row in rows}) == len({row.name for row in rows}) == len(rows)


def test_the_benchmark_measures_every_row_of_checkpointing() -> None:
    """Its titles are made of the names of layers."""
    each = publication("checkpointing")
    source = (SCRIPTS / "benchmarks" / f"{each.benchmark}.py").read_text()
    for row in each.rows:
        section, layer, quantity = re.split(r", (?=[A-Z])|: ", row.title)
        assert f'f"{section}, {{layer.__name__}}"' in source
        assert f'f"{{title}}: {quantity}"' in source
        assert layer in ("Elman", "GRU", "LSTM")


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where one row was run on the quick scale."""
    folder = tmp_path_factory.mktemp("reproduced")
    done = in_a_process("reproduce.py", "influence_balancing/full", "--quick", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "influence_balancing/full/seed_1: completed" in done.stdout
    return folder


RUN = Path("outputs", "reproduce_quick", "influence_balancing", "full", "seed_1")


def test_a_row_is_run_scored_and_shown(reproduced: Path) -> None:
    page = (reproduced / "outputs" / "reproduce_quick" / "RESULTS.md").read_text()
    score = json.loads((reproduced / RUN / "scores.json").read_text())["scores"]["layers.0.theta"]
    assert 0 < score < 0.5, "it went down from ½"
    assert re.search(rf"\| full +\| −1/6 +\| {score:.4g} ", page)
    assert len(re.findall(r"\| not run ", page)) == sum(len(publication(key).rows) for key in KEYS) - 1
    assert "task.train_batches=10 seed=1" in page
    assert "torch 2." in page
    picture = reproduced / "outputs" / "reproduce_quick" / "influence_balancing.png"
    assert 1000 < picture.stat().st_size < 60_000
    assert f"({picture.name})" in page
    assert {path.name for path in reproduced.iterdir()} == {"outputs"}, "the page of the full scale is left alone"


def test_what_has_finished_is_not_run_again(reproduced: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (reproduced / RUN).rglob("*")}
    done = in_a_process("reproduce.py", "influence_balancing/full", "--quick", cwd=reproduced)
    assert (done.returncode, done.stdout) == (0, "outputs/reproduce_quick/RESULTS.md\n")
    assert {path: path.stat().st_mtime_ns for path in (reproduced / RUN).rglob("*")} == before


def test_runs_of_another_configuration_and_unfinished_ones_are_told_apart(reproduced: Path, tmp_path: Path) -> None:
    each = publication("influence_balancing", quick=True)
    root = tmp_path / "outputs"
    places = {name: root / each.key / name / "seed_1" for name in ("full", "rtrl")}
    for place in places.values():
        shutil.copytree(reproduced / RUN, place)
    summary = json.loads((places["full"] / "summary.json").read_text())
    (places["full"] / "summary.json").write_text(json.dumps({**summary, "status": "running"}))
    statuses = {row.name: [run.status for run in read_runs(each, row, root).values()] for row in each.rows}
    assert statuses == {**{name: [] for name in statuses}, "full": ["interrupted"], "rtrl": [OTHER]}, (
        "its process is gone"
    )
    write([each], root, page=tmp_path / "RESULTS.md", figures=tmp_path / "docs" / "results", quick=False)
    lines = {line.split()[1]: line for line in (tmp_path / "RESULTS.md").read_text().splitlines() if "|" in line}
    assert "1 interrupted" in lines["full"]
    assert f"1 {OTHER}" in lines["rtrl"]
    assert "not run" in lines["randomized"]
    assert "yes" not in "".join(lines.values())


def test_what_was_run_elsewhere_stays_on_the_page(reproduced: Path, tmp_path: Path) -> None:
    """Row by row, until it is run here; of a benchmark too."""
    keys = ("checkpointing", "influence_balancing", "lag_bits")
    each = [publication(key, quick=True) for key in keys]
    page, root, figures = tmp_path / "RESULTS.md", tmp_path / "outputs", tmp_path / "results"
    place = root / "influence_balancing" / "full" / "seed_1"
    shutil.copytree(reproduced / RUN, place)
    write(each, root, page=page, figures=figures, quick=False)
    first = page.read_text()
    assert "not run" in first
    # As on a page of before a row with a longer name was there.
    page.write_text(first.replace("not run", "0.123").replace("  python", " python"))
    shutil.copytree(place, root / "influence_balancing" / "rtrl" / "seed_1")
    write(each, root, page=page, figures=figures, quick=False)
    parts = page.read_text().split("\n## ")[1:]
    counts = [part.count("0.123") for part in parts]
    assert counts == [len(each[0].rows), len(each[1].rows) - 2, len(each[2].rows)]
    assert OTHER in parts[1], "what is found here is shown, whatever it is"
    before = page.read_text()
    write(each, root, page=page, figures=figures, quick=False)
    assert page.read_text() == before
    shutil.rmtree(root)
    write(each, root, page=page, figures=figures, quick=False)
    after = page.read_text()
    assert after.count("0.123") == sum(counts)
    (full,) = [line.split()[:6] for line in before.splitlines() if line.startswith("| full ")]
    assert full in [line.split()[:6] for line in after.splitlines()], "once run, it stays too"


@pytest.mark.parametrize(("stay", "drawn"), [(0, True), (1, True), (2, False)])
def test_a_figure_stays_where_more_rows_stay_than_are_found(
    stay: int, drawn: bool, reproduced: Path, tmp_path: Path
) -> None:
    each = [publication("influence_balancing", quick=True)]
    page, root, figures = tmp_path / "RESULTS.md", tmp_path / "outputs", tmp_path / "results"
    write(each, root, page=page, figures=figures, quick=False)
    page.write_text(page.read_text().replace("| not run", "| 0.123", stay))
    shutil.copytree(reproduced / RUN, root / "influence_balancing" / "full" / "seed_1")
    write(each, root, page=page, figures=figures, quick=False)
    assert page.read_text().count("0.123") == stay
    assert (figures / "influence_balancing.png").is_file() == drawn


def test_a_row_whose_command_is_another_now_does_not_stay(tmp_path: Path) -> None:
    each = publication("influence_balancing")
    page, figures = tmp_path / "RESULTS.md", tmp_path / "results"
    write([each], tmp_path, page=page, figures=figures, quick=False)
    head = "| row | published | ours | agrees | seeds |"
    rows = "\n".join(f"| {row.name} | x | 0.123 | yes | 1 of 1 |" for row in each.rows)
    page.write_text(
        f"# R\n\n## {each.key}\n\n{head}\n| --- | --- | --- | --- | --- |\n{rows}\n\n" + "\n".join(commands(each))
    )
    changed = each._replace(rows=(each.rows[0]._replace(words=("experiment=other",)), *each.rows[1:]))
    write([changed], tmp_path, page=page, figures=figures, quick=False)
    lines = {line.split()[1]: line for line in page.read_text().splitlines() if line.startswith("|")}
    assert ["0.123" in lines[row.name] for row in each.rows] == [False] + [True] * (len(each.rows) - 1)
    assert "not run" in lines[each.rows[0].name]


def test_runs_of_another_configuration_are_neither_drawn_nor_begun_again(reproduced: Path, tmp_path: Path) -> None:
    root, each = tmp_path / "outputs", publication("influence_balancing")
    shutil.copytree(reproduced / RUN, root / "influence_balancing" / "rtrl" / "seed_1")
    write([each], root, page=tmp_path / "RESULTS.md", figures=tmp_path / "results", quick=False)
    assert not (tmp_path / "results").exists()
    with pytest.raises(ValueError, match=f"must hold a run of its row, got one {OTHER}; move it away"):
        waiting_runs(each, root, words=["influence_balancing"])


def test_commands_do_not_tell_where_a_text_lies(text: Path) -> None:
    (command,) = commands(publication("tinyshakespeare", text=str(text)))
    assert command.endswith("experiment=tinyshakespeare task.path=FILE seed=1")
    assert [command] == list(commands(publication("tinyshakespeare")))


@pytest.mark.parametrize(
    ("expect", "scores", "ours", "agrees"),
    [
        ([0.4, 0.6], [0.4, 0.5, 0.6], "0.5 ± 0.1", "yes"),
        ([0.4, 0.6], [0.7], "0.7", "no"),
        ([0.4, 0.6], [0.5, None], "diverges", "no"),
        (DIVERGES, [None], "diverges", "yes"),
        (DIVERGES, [0.5], "0.5", "no"),
        (None, [0.5], "0.5", "–"),
        (None, [None], "diverges", "–"),
        ([0.4, 0.6], [], "not run", ""),
    ],
)
def test_verdicts(expect: object, scores: list[float | None], ours: str, agrees: str) -> None:
    """None stands for a run that diverged."""
    runs = [Run(Path(), {}, "diverged" if score is None else "completed", {"loss": score}, 60.0) for score in scores]
    row = Row("row", published=0.5, expect=expect, seeds=(1, 2, 3))
    found = cells(row, Group({}, runs, "loss"), quick=False)
    assert found[:5] == ["row", "0.5", ours, agrees, f"{len(scores)} of 3"]


def test_asked_to_stop_it_stops_its_runs_after_a_checkpoint(tmp_path: Path) -> None:
    """And begins no more."""
    command = [sys.executable, str(SCRIPTS / "reproduce.py"), "lag_bits/chunk_5_units_4", "jobs=1"]
    run = tmp_path / "outputs" / "reproduce" / "lag_bits" / "chunk_5_units_4" / "seed_1"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        # The first update is written, so signals are caught.
        while sum(path.stat().st_size for path in run.glob("events.*")) < 10_000 and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said, error = process.communicate(timeout=120)
    assert "seed_1: interrupted" in said
    assert error.count("\n") == 1
    assert "got 3 that did not" in error
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert "1 interrupted" in (tmp_path / "RESULTS.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nosuch"], "KEY must be adding or adding_600 or aicher_copy"),
        (["adding/nosuch"], "got 'adding/nosuch'"),
        (["jobs=many"], "jobs must be an integer >= 0, got 'many'"),
    ],
)
def test_refused(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, "reproduce.py", *words)
    assert message in said
    assert "\n" not in said
