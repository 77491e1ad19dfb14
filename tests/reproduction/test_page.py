"""The page is rendered only from the committed files."""

from pathlib import Path

import pytest

from bptt.configuration.compose import ROOT
from bptt.reproduction import results
from bptt.reproduction.page import cells, commands, render
from bptt.reproduction.results import Results, RowResult, SeedResult
from bptt.reproduction.rows import DIVERGES, KEYS, Row, publication


def test_the_committed_page_is_what_the_committed_files_make() -> None:
    page = ROOT / "RESULTS.md"
    rendered = render([publication(key) for key in KEYS], ROOT / "docs" / "results", page=page)
    assert rendered == page.read_text(encoding="utf-8"), "python scripts/reproduce.py jobs=0 renders it again"


def test_a_page_without_results_names_every_row(tmp_path: Path) -> None:
    publications = [publication(key) for key in KEYS]
    page = render(publications, tmp_path, page=tmp_path / "RESULTS.md")
    assert page.count("| not run ") == sum(len(each.rows) for each in publications)
    assert "![" not in page
    assert all(each.note in page for each in publications)


def test_a_number_stands_beside_its_versions_and_date(tmp_path: Path) -> None:
    each = publication("anbn")
    versions = {"python": "3.11.7", "torch": "2.13.0", "lightning": "2.6.6"}
    row = RowResult("command", mean=0.149, seeds_ended=1, minutes=2.25, versions=versions, date="2026-01-02")
    results.write(Results({"chunk_2": row}, "anbn.png"), tmp_path / "anbn.json")
    page = render([each], tmp_path, page=tmp_path / "RESULTS.md")
    (line,) = [line for line in page.splitlines() if line.startswith("| chunk_2 ")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["chunk_2", "0.149", "0.149", "yes", "1 of 1", "2.2", "torch 2.13.0, lightning 2.6.6", "2026-01-02"]
    assert "![anbn: learning curves](anbn.png)" in page


@pytest.mark.parametrize(
    ("expect", "statuses", "mean", "deviation", "ours", "agrees"),
    [
        ([0.4, 0.6], ["completed"] * 3, 0.5, 0.1, "0.5 ± 0.1", "yes"),
        ([0.4, 0.6], ["completed"], 0.7, None, "0.7", "no"),
        ([0.4, 0.6], ["completed", "diverged"], 0.5, None, "diverges", "no"),
        (DIVERGES, ["diverged"], None, None, "diverges", "yes"),
        (DIVERGES, ["completed"], 0.5, None, "0.5", "no"),
        (None, ["completed"], 0.5, None, "0.5", "–"),
        (None, ["diverged"], None, None, "diverges", "–"),
        ([0.4, 0.6], ["interrupted"], None, None, "–", ""),
    ],
)
def test_verdicts(
    expect: object, statuses: list[str], mean: float | None, deviation: float | None, ours: str, agrees: str
) -> None:
    runs = tuple(SeedResult(seed, status) for seed, status in enumerate(statuses, start=1))
    row = Row("row", published=0.5, expect=expect, seeds=(1, 2, 3))
    found = RowResult("command", runs, mean, deviation, seeds_ended=len(runs))
    assert cells(row, found)[:5] == ["row", "0.5", ours, agrees, f"{len(runs)} of 3"]
    assert cells(row, None)[:5] == ["row", "0.5", "not run", "", "0 of 3"]


def test_commands_do_not_tell_where_a_text_lies(tmp_path: Path) -> None:
    (command,) = commands(publication("tinyshakespeare", file=str(tmp_path / "book.txt")))
    assert command.endswith("experiment=tinyshakespeare task.path=FILE seed=1")
    assert [command] == commands(publication("tinyshakespeare"))
