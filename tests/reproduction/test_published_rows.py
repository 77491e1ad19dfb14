"""Published rows say what they need, and build."""

import re
from collections.abc import Callable
from itertools import islice

import pytest

from bptt.benchmarks import exact
from bptt.configuration.build import build_module
from bptt.configuration.compose import CONF, compose_config
from bptt.layers import Layer
from bptt.reproduction.rows import DIVERGES, KEYS, PUBLISHED, publication

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


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small files in place of the users' own, by key; a text by default."""
    folder = tmp_path_factory.mktemp("files")
    text, table = folder / "digits.txt", folder / "co2.csv"
    text.write_text("0123456789 " * 600, encoding="utf-8")
    table.write_text("week,co2\n" + "".join(f"{week},{week % 52}\n" for week in range(400)), encoding="utf-8")
    return dict.fromkeys(KEYS, str(text)) | {"chunk_size_series": str(table)}


@pytest.mark.parametrize(("key", "name"), ROWS)
def test_every_row_builds(key: str, name: str, files: dict[str, str]) -> None:
    (row,) = [row for row in publication(key, file=files[key]).rows if row.name == name]
    short = ["task.batch_size=4", "task.length=50"] if key == "tinyshakespeare" else []  # as the text is
    build_module(compose_config([*row.overrides, *short]))


@pytest.mark.parametrize("key", sorted({key for key, _ in ROWS}))
def test_every_quick_scale_composes(key: str, files: dict[str, str]) -> None:
    whole, quick = (publication(key, quick=scale, file=files[key]).rows[0] for scale in (False, True))
    assert compose_config(quick.overrides) != compose_config(whole.overrides)


def test_no_two_rows_of_a_key_are_the_same_or_share_a_folder() -> None:
    for key in KEYS:
        rows = publication(key).rows
        assert len({(row.overrides, row.title) for row in rows}) == len({row.name for row in rows}) == len(rows)


def test_the_benchmark_measures_every_row_of_checkpointing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = exact.Passes.of

    def small(layer: Callable[[int, int], Layer], **_: int) -> exact.Passes:
        return whole(layer, num_timesteps=4, batch_size=2, hidden_size=3)

    monkeypatch.setattr(exact.Passes, "of", small)
    each = publication("checkpointing")
    assert each.benchmark == "exact"
    measured = islice(exact.rows(1), 3 * 3)  # three lines a layer; the rest are curves
    assert {row.title for row in each.rows} <= {row.title for row in measured}
