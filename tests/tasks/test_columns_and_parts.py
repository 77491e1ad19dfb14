"""Columns keep their part in other files, identifiers their values, and what makes up the data is known again."""

import math
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from bptt.lightning.data_identity import same_data
from bptt.tasks.sequences import Sequences
from bptt.tasks.series import Series
from bptt.tasks.time_stamps import units_of_clock, whole_number_dates

ROWS, DAY = 60, datetime(2024, 1, 1)
VALUES = np.random.default_rng(0).normal(size=ROWS)


def series(path: Path, columns: dict[str, Any], **options: Any) -> Series:
    frame = pl.DataFrame({"x": VALUES, **columns})
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
    return Series(path=str(path), **{"length": 5, "batch_size": 1, **options})


def sequences(path: Path, **options: Any) -> Sequences:
    words = {"batch_size": 1, "fractions": (1.0, 0.0, 0.0), **options}
    return Sequences(path=str(path), **words)


def long_table(path: Path, labels: list[Any], **columns: Any) -> Path:
    """Sequences of two timesteps with a label each."""
    number = len(labels)
    rows = {"id": [f"s{index // 2}" for index in range(2 * number)], "x": VALUES[: 2 * number]}
    pl.DataFrame({**rows, "y": [each for each in labels for _ in range(2)], **columns}).write_parquet(path)
    return path


@pytest.mark.parametrize("kind", [pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Int8])
def test_whole_numbers_of_any_kind_must_ascend(tmp_path: Path, kind: Any) -> None:
    time = pl.Series([*range(30), 29, *range(30, 59)], dtype=kind)
    with pytest.raises(ValueError, match="must ascend, got the same again in row 31"):
        series(tmp_path / "log.parquet", {"t": time}, time="t")
    down = pl.Series(range(ROWS, 0, -1), dtype=kind)
    assert series(tmp_path / "log.parquet", {"left": down}).encoding["inputs"] == ["x", "left"]


def test_a_date_that_training_left_out_is_not_the_time_of_another_file(tmp_path: Path) -> None:
    columns = {
        "issued": [DAY + timedelta(days=900 + row) for row in range(ROWS)],
        "valid": [DAY + timedelta(hours=row) for row in range(ROWS)],
    }
    task = series(tmp_path / "log.parquet", columns, leave_out=["issued"], calendar=True)
    other = series(tmp_path / "log.parquet", columns, leave_out=["issued"], calendar=True, encoding=task.encoding)
    assert list(other._file.labels) == ["valid"]


def test_columns_that_are_called_like_functions(tmp_path: Path) -> None:
    columns = {"sin(theta)": 1000 + VALUES, "u": VALUES[::-1].copy()}
    task = series(tmp_path / "log.csv", columns)
    assert task.target_names == ["x", "sin(theta)", "u"]
    assert float(task.batch("train", 0).inputs.abs().max()) < 10
    one = series(tmp_path / "log.csv", columns, targets="sin(theta)", inputs="u", horizon=0)
    assert one.encoding["inputs"] == ["u"]
    with pytest.raises(ValueError, match=r"task\.inputs must be a column of the file"):
        series(tmp_path / "log.csv", columns, inputs=["sin(thta)"])


def test_names_of_the_calendar(tmp_path: Path) -> None:
    hours = [DAY + timedelta(hours=row) for row in range(ROWS)]
    columns = {"when": hours, "sin(day)": VALUES[::-1].copy()}
    with pytest.raises(ValueError, match=r"called otherwise, got 'sin\(day\)'; rename it"):
        series(tmp_path / "log.csv", columns, calendar=True)
    words: dict[str, Any] = {"calendar": True, "leave_out": ["sin(day)"]}
    task = series(tmp_path / "log.csv", columns, **words)
    other = series(tmp_path / "log.csv", columns, **words, encoding=task.encoding)
    assert other.encoding["inputs"] == task.encoding["inputs"]
    assert other.batch("test", 0).inputs[0, 0, 1:3].tolist() == [0.0, 1.0]  # sin(day), cos(day) at midnight
    days = [DAY + timedelta(days=row) for row in range(ROWS)]
    with pytest.raises(ValueError, match=r"task\.inputs must be columns, or of the calendar \[.*got 'sin\(day\)'"):
        series(tmp_path / "log.csv", {"when": days}, calendar=True, inputs=["x", "sin(day)"])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_numbers_that_mean_no_value_may_be_identifiers(tmp_path: Path, suffix: str) -> None:
    path, counted = tmp_path / f"log{suffix}", {"row": list(range(ROWS))}
    assert series(path, counted, missing=[0]).encoding["inputs"] == ["x"]
    names = {"name": [row // 20 for row in range(ROWS)]}
    assert len(series(path, names, series="name", missing=[0])._file.segments) == 3
    marks = {"begins": [int(row % 20 == 0) for row in range(ROWS)]}
    assert len(series(path, marks, reset_at="begins", missing=[1])._file.segments) == 3
    if suffix == ".csv":
        frame = pl.DataFrame({"id": [0, 0, 1, 1], "x": [1.0, 2.0, 0.0, 4.0], "y": [0, 1, 1, 0]})
        frame.write_csv(path)
        task = sequences(path, sequence="id", targets="y", every_step=True, kind="labels", missing=[0])
        assert task.ids == [0, 1]


def test_numbers_that_mean_no_value_among_others(tmp_path: Path) -> None:
    """A column of true and false stays one, and a second column of dates is no input."""
    path, dates = tmp_path / "log.csv", [20240101 + row % 28 for row in range(ROWS)]
    flags = [("true", "false", "-9999")[row % 3] for row in range(ROWS)]
    columns = {"t": [DAY + timedelta(hours=row) for row in range(ROWS)], "on": flags, "serviced": [-9999, *dates[1:]]}
    task = series(path, columns, missing=[-9999])
    assert (task.encoding["inputs"], task.encoding["categories"]) == (["x", "on"], {})


def test_columns_that_are_empty_in_another_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    columns: dict[str, Any] = {"kind": ["a", "b", "c"] * 20, "end": [int(row % 20 == 19) for row in range(ROWS)]}
    task = series(path, columns, reset_after="end")
    empty: dict[str, Any] = {"kind": [None] * ROWS, "end": [None] * ROWS}
    other = series(path, empty, reset_after="end", encoding=task.encoding)
    assert (other.input_size, len(other._file.segments)) == (task.input_size, 1)


def test_a_target_or_time_called_row(tmp_path: Path) -> None:
    task = series(tmp_path / "log.csv", {"row": [DAY + timedelta(hours=row) for row in range(ROWS)]})
    batch = task.batch("test", 0)
    found = task.tabulate(torch.zeros(*batch.inputs.shape[:2], 1), "test", 0)
    assert list(found)[:2] == ["row number", "row"]
    assert len({len(column) for column in found.values()}) == 1


def test_other_episodes_are_other_data(tmp_path: Path) -> None:
    at = [[int(row % size == 0) for row in range(ROWS)] for size in (20, 20, 15)]
    first, same, other = (series(tmp_path / "log.csv", {"m": marks}, reset_at="m").identity for marks in at)
    assert first == same != other
    assert same_data(first.partition("; ")[0], first)  # as earlier versions wrote it
    assert not same_data(first, other)


def test_other_parts_borders_and_gaps_are_other_data(tmp_path: Path) -> None:
    labels: list[Any] = ["a", "b", "a", "b"]
    parts = [name for name in ("train", "train", "validation", "test") for _ in range(2)]
    words: dict[str, Any] = {"sequence": "id", "targets": "y", "split": "part", "leave_out": ["ids"]}
    identities = set()
    for number, (own, part) in enumerate(
        (
            (labels, parts),
            (["a", "b", "a", None], parts),
            (labels, [*parts[:4], "test", "test", "validation", "validation"]),
        )
    ):
        path = long_table(tmp_path / f"{number}.parquet", own, part=part, ids=[0] * 8)
        identities.add(sequences(path, **words).identity)
    assert len(identities) == 3
    assert all(same_data(each.partition("; ")[0], each) for each in identities)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([date(2024, 1, 1), date(2024, 1, 2)], ["2024-01-01", "2024-01-02"]),
        ([Decimal(3), Decimal(4)], [3, 4]),
    ],
)
def test_labels_are_kept_as_plain_values(tmp_path: Path, labels: list[Any], classes: list[Any]) -> None:
    task = sequences(long_table(tmp_path / "a.parquet", labels * 2), sequence="id", targets="y")
    assert task.encoding["classes"] == classes
    assert all(type(each) in (str, int) for each in task.encoding["classes"])


def test_balanced_weights_are_those_of_training(tmp_path: Path) -> None:
    path = long_table(tmp_path / "a.parquet", ["a", "a", "a", "b"])
    words: dict[str, Any] = {"sequence": "id", "targets": "y", "class_weights": "balanced"}
    task = sequences(path, **words)
    other = sequences(path, **words, encoding=task.encoding)
    assert task.targets.weights is not None
    assert other.targets.weights is not None
    assert torch.equal(task.targets.weights, other.targets.weights)
    former = {key: value for key, value in task.encoding.items() if key != "class_weights"}
    with pytest.raises(ValueError, match="class_weights must be those of the training part"):
        sequences(path, **words, encoding=former)


def folder_of(root: Path, **columns: list[list[str]]) -> Path:
    """Two files of each of the classes a and b, with these texts in each column, one list for each file."""
    for number in range(4):
        file = root / "ab"[number // 2] / f"{number}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        texts = {name: files[number] for name, files in columns.items()}
        lines = [
            f"x,{','.join(texts)}",
            *(f"{row},{','.join(text[row] for text in texts.values())}" for row in range(2)),
        ]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def test_a_date_that_is_empty_in_one_file(tmp_path: Path) -> None:
    days = ["2024-01-01", "2024-01-02"]
    task = sequences(folder_of(tmp_path / "empty", when=[days, ["", ""], days, days]))
    assert task.encoding["inputs"] == ["x"]
    with pytest.raises(
        ValueError, match=r"column 'when' must be time in all of the files of .*, or in none, got 'both'"
    ):
        sequences(folder_of(tmp_path / "mixed", when=[days, ["1", "2"], days, days]))
    backwards = [days[::-1]] * 4
    with pytest.raises(ValueError, match="time stamps in 'when' must not descend"):
        sequences(folder_of(tmp_path / "backwards", when=[*backwards[:3], ["", ""]]))


def test_hidden_folders_are_not_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, z=[["1", "2"]] * 4)
    hidden = folder / "a" / ".ipynb_checkpoints"
    hidden.mkdir()
    (hidden / "0-checkpoint.csv").write_text("x,z\n1,2\n", encoding="utf-8")
    task = sequences(folder)
    assert (task.class_names, len(task.ids)) == (["a", "b"], 4)


def test_columns_of_a_folder_may_have_any_name(tmp_path: Path) -> None:
    texts = [["0", "1"]] * 4
    folder = folder_of(tmp_path, label=texts, split=texts, sequence=texts)
    task = sequences(folder, targets="label", every_step=True)
    assert (task.encoding["inputs"], len(task.ids)) == (["x", "split", "sequence"], 4)


def test_what_fills_no_training_batch_is_said(tmp_path: Path) -> None:
    task = sequences(long_table(tmp_path / "a.parquet", ["a", "b"] * 7), sequence="id", targets="y", batch_size=4)
    assert task.left_out("train") == "2 of 14 training sequences, drawn at random, as they fill no batch"
    assert task.left_out("test") == ""


@pytest.mark.parametrize("form", ["%Y%m%d%H", "%y%m%d%H%M"])
def test_dates_with_hours_are_no_seconds(tmp_path: Path, form: str) -> None:
    """2024010100 would be a second of the year 2034, and an hour would be one second. The hour 24 ends a day."""
    hours = [DAY + timedelta(hours=row) for row in range(ROWS)]
    columns = {"when": [int(hour.strftime(form)) for hour in hours]}
    assert series(tmp_path / "log.csv", columns).encoding["time"] == "when"
    if form == "%Y%m%d%H":
        columns = {"when": [each - 76 if each % 100 == 0 and row else each for row, each in enumerate(columns["when"])]}
        assert columns["when"][24] % 100 == 24
        found, expected = (series(tmp_path / "log.csv", each, calendar=True) for each in (columns, {"when": hours}))
        assert found.encoding["inputs"] == expected.encoding["inputs"]
        torch.testing.assert_close(found.batch("test", 0).inputs, expected.batch("test", 0).inputs)
        return
    with pytest.raises(ValueError, match="calendar must be false without"):
        series(tmp_path / "log.csv", columns, calendar=True)
    assert units_of_clock(pl.Series([950101000000, 950101010000])) is None  # with seconds, before 2000
    assert units_of_clock(pl.Series([950101000000, 950101010060])) == 1000
    columns = {"when": [1_700_000_000 + 3600 * row for row in range(ROWS)]}
    assert len(series(tmp_path / "log.csv", columns, calendar=True).encoding["inputs"]) > 1


@pytest.mark.parametrize("form", ["%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S"])
@pytest.mark.parametrize("kind", [pl.Int64, pl.Float64])
@pytest.mark.parametrize("start", [datetime(1875, 2, 27), datetime(1989, 12, 30, 5), DAY, datetime(2160, 1, 1)])
def test_numbers_with_hours_are_the_dates_that_they_say(tmp_path: Path, form: str, kind: Any, start: datetime) -> None:
    """In any year; a missing one is no number either."""
    hours = [start + timedelta(hours=row) for row in range(ROWS)]
    numbers = pl.Series([int(hour.strftime(form)) for hour in hours]).cast(kind)
    found, expected = (series(tmp_path / "log.parquet", {"when": each}, calendar=True) for each in (numbers, hours))
    assert (
        found.encoding["inputs"]
        == expected.encoding["inputs"]
        == ["x", "sin(day)", "cos(day)", "sin(week)", "cos(week)", "sin(year)", "cos(year)"]
    )
    torch.testing.assert_close(found.batch("test", 0).inputs, expected.batch("test", 0).inputs)
    for missing in [None, math.nan] if kind == pl.Float64 else [None]:
        numbers[20] = missing
        with pytest.raises(ValueError, match="column 'when' must have a time stamp in every row, got none in row 21"):
            series(tmp_path / "log.parquet", {"when": numbers})


def test_a_few_seconds_since_1970_are_no_dates() -> None:
    """1830010105 is 2027-12-28 in seconds, and the fifth hour of a day in 1830."""
    few = pl.DataFrame({"clock": [1830010105, 1830010106]})
    assert list(whole_number_dates(few)) == []
    assert list(whole_number_dates(pl.DataFrame({"when": [2024010105]}))) == ["when"]
    assert list(whole_number_dates(pl.DataFrame({"when": [1830010100 + hour for hour in range(12)]}))) == ["when"]


def test_a_time_in_numbers_with_points_that_may_part_thousands(tmp_path: Path) -> None:
    rows = "".join(f"{1 + row / 8:.3f};{row},5\n" for row in range(60))
    (tmp_path / "log.csv").write_text(f"t;x\n{rows}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"task\.time must be .*, got '1\.000'; its point may be decimal or between"):
        Series(path=str(tmp_path / "log.csv"), length=5, batch_size=1, time="t")


def test_times_with_and_without_a_zone_are_not_those_of_one_clock(tmp_path: Path) -> None:
    """The hours of the calendar would be shifted. Dates alone, and runs without a calendar, have no hours."""
    hours = [DAY + timedelta(hours=row) for row in range(ROWS)]
    local = {"when": [hour.isoformat() for hour in hours]}
    zoned = {"when": [f"{hour.isoformat()}+09:00" for hour in hours]}
    since_1970 = {"when": [int(hour.timestamp()) for hour in hours]}
    cases: list[tuple[dict[str, Any], list[dict[str, Any]]]]
    cases = [(zoned, [local]), (local, [zoned, since_1970]), (since_1970, [local])]
    for columns, others in cases:
        encoding = series(tmp_path / "log.csv", columns, calendar=True).encoding
        series(tmp_path / "log.csv", columns, calendar=True, encoding=encoding)
        for each in others:
            with pytest.raises(
                ValueError, match=r"time stamps in 'when' must (have a zone or count from 1970|be local times), as in"
            ):
                series(tmp_path / "log.csv", each, calendar=True, encoding=encoding)
        plain = series(tmp_path / "log.csv", columns).encoding
        series(tmp_path / "log.csv", others[0], encoding=plain)
    encoding = series(tmp_path / "log.csv", zoned, calendar=True).encoding
    series(tmp_path / "log.csv", since_1970, calendar=True, encoding=encoding)
    words: dict[str, Any] = {"time": "when", "calendar": True, "encoding": encoding}
    categories = {name: pl.Series(each["when"], dtype=pl.Categorical) for name, each in (("when", zoned),)}
    assert series(tmp_path / "log.parquet", categories, **words).encoding["zoned"]


def test_numbers_that_are_dates_are_no_inputs_of_sequences(tmp_path: Path) -> None:
    """As dates in texts are none, unless they are named."""
    days = [20240101 + index for index in range(12)]
    path = long_table(tmp_path / "a.parquet", ["p", "q"] * 3, day=days, hour=[100 * day + 7 for day in days])
    words: dict[str, Any] = {"sequence": "id", "targets": "y", "batch_size": 2}
    assert sequences(path, **words).encoding["inputs"] == ["x"]
    assert sequences(path, **words, inputs=["x", "day"]).encoding["inputs"] == ["x", "day"]
    path = long_table(tmp_path / "b.parquet", ["p", "q"] * 3, day=days[::-1])
    with pytest.raises(ValueError, match="time stamps in 'day' must not descend within a sequence"):
        sequences(path, **words)


@pytest.mark.parametrize("texts", [["true", "false", "maybe"], ["TRUE", "FALSE", "Maybe"]])
def test_true_and_false_alone_are_classes_that_are_texts(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "log.csv"
    words: dict[str, Any] = {"sequence": "id", "targets": "kind", "every_step": True}
    columns: dict[str, Any] = {"id": [row // 4 for row in range(12)], "x": range(12)}
    pl.DataFrame({**columns, "kind": texts * 4}).write_csv(path)
    task = sequences(path, **words)
    pl.DataFrame({**columns, "kind": texts[:2] * 6}).write_csv(path)
    other = Sequences(path=str(path), **words, batch_size=1, encoding=task.encoding)
    assert [other.targets.classes[int(each)] for each in other.targets.values[:3]] == [*texts[:2], texts[0]]


def test_numbers_alone_are_classes_that_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    words: dict[str, Any] = {"sequence": "id", "targets": "kind", "every_step": True, "batch_size": 1}
    columns: dict[str, Any] = {"id": [row // 4 for row in range(12)], "x": range(12)}
    pl.DataFrame({**columns, "kind": ["1.5", "2", "x"] * 4, "note": range(12)}).write_csv(path)
    task = Sequences(path=str(path), **words, leave_out=["note"], fractions=(1.0, 0.0, 0.0))
    pl.DataFrame({**columns, "kind": ["1.5", "2", "2"] * 4}).write_csv(path)  # and without what was left out
    other = Sequences(path=str(path), **words, leave_out=["note"], encoding=task.encoding)
    assert [other.targets.classes[int(each)] for each in other.targets.values[:3]] == ["1.5", "2", "2"]
    pl.DataFrame({**columns, "kind": ["1.0", "2", "x"] * 4}).write_csv(path)
    task = Sequences(path=str(path), **words, fractions=(1.0, 0.0, 0.0))
    pl.DataFrame({**columns, "kind": [1, 2, 2] * 4}).write_csv(path)
    other = Sequences(path=str(path), **words, encoding=task.encoding)
    assert [other.targets.classes[int(each)] for each in other.targets.values[:3]] == ["1.0", "2", "2"]


def test_times_that_are_no_inputs_are_named(tmp_path: Path) -> None:
    hours = [DAY + timedelta(hours=row) for row in range(ROWS)]
    columns = {"when": hours, "wait": [timedelta(minutes=row % 7) for row in range(ROWS)]}
    pl.DataFrame({"x": VALUES, **columns}).write_parquet(tmp_path / "log.parquet")
    words: dict[str, Any] = {"length": 5, "batch_size": 1}
    assert "no inputs: wait" in Series(path=str(tmp_path / "log.parquet"), **words).contents
    left_out = Series(path=str(tmp_path / "log.parquet"), leave_out=["wait"], **words)
    assert "no inputs" not in left_out.contents
