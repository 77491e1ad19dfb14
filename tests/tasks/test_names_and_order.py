"""Names of series and sequences stay apart, rows are in the order of time, and what training lacks is said."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from bptt.figures.predictions import spans
from bptt.layers import Elman
from bptt.lightning.evaluation import Evaluation
from bptt.model import SequenceModel
from bptt.runs.prediction import write_table
from bptt.tasks.missing_values import Missing
from bptt.tasks.sequences import Sequences
from bptt.tasks.series import Series
from bptt.tasks.tables import read_table

LONG = [str(10**19 + number) for number in range(3)]
NAMES = {
    "plain": ["1", "2", "10"],
    "zeros": ["1", "01", "001"],
    "decimals": ["1.1", "1.10", "1.100"],
    "long": LONG,
    "longer than 64 bits": [f"{name}0000" for name in LONG],
    "dates": ["1/2/2020", "01/2/2020", "1/02/2020"],
}
ROWS = 20  # of each series


def table(names: list[str], **columns: Any) -> pl.DataFrame:
    number = len(names) * ROWS
    values = np.random.default_rng(0).normal(size=number)
    every = {"id": [name for name in names for _ in range(ROWS)], "x": values, "y": [0, 1] * (number // 2), **columns}
    return pl.DataFrame(every)


def series(path: Path, **options: Any) -> Series:
    return Series(path=str(path), **{"length": 5, "batch_size": 1, **options})


def sequences(path: Path, **options: Any) -> Sequences:
    shares = {} if "split" in options else {"fractions": (1.0, 0.0, 0.0)}
    words = {"sequence": "id", "targets": "y", "every_step": True, "batch_size": 1, **shares, **options}
    return Sequences(path=str(path), **words)


@pytest.mark.parametrize("names", NAMES.values(), ids=list(NAMES))
def test_names_that_are_alike_as_numbers(tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "log.csv"
    table(names).write_csv(path)
    task = series(path, series="id", targets="x")
    assert task._file.segments == [(0, ROWS), (ROWS, 2 * ROWS), (2 * ROWS, 3 * ROWS)]
    assert sequences(path).lengths.tolist() == [ROWS] * 3
    kind = pl.Int64 if names == NAMES["plain"] else pl.String
    assert read_table(path, Missing(), names="id").schema["id"] == kind


def test_names_that_differ_as_numbers_are_numbers(tmp_path: Path) -> None:
    """Also as inputs, and in their order."""
    path = tmp_path / "log.csv"
    for names in (["1.0", "2.0", "10.0"], ["01", "02", "10"]):
        table(names).write_csv(path)
        assert read_table(path, Missing(), names="id")["id"].unique(maintain_order=True).to_list() == [1, 2, 10]
        assert series(path, series="id", inputs=["id", "x"], targets="x").input_size == 2


def test_a_column_of_names_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    table(["7", "007", "8"]).rename({"id": ""}).write_csv(path)
    assert sequences(path, sequence="column_1").ids == ["7", "007", "8"]


def test_days_beside_times_of_day_are_names(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    days = [f"2024-05-{1 + row // ROWS:02d}" for row in range(3 * ROWS)]
    clock = [f"00:{row % ROWS:02d}:00" for row in range(3 * ROWS)]
    table(["a", "b", "c"], day=days, clock=clock).drop("id").write_csv(path)
    assert sequences(path, sequence="day").lengths.tolist() == [ROWS] * 3


def test_numbers_that_are_too_long_are_no_names(tmp_path: Path) -> None:
    """They come as float64 from Parquet, where neighbours are the same."""
    path = tmp_path / "log.parquet"
    table(["1", "2", "3"]).with_columns(pl.col("id").cast(pl.Float64) + 1e16).write_parquet(path)
    for task in (lambda: series(path, series="id"), lambda: sequences(path)):
        with pytest.raises(ValueError, match=r"column 'id' must be names, or whole numbers .*; write a letter before"):
            task()
    table(["1", "2", "3"]).with_columns(pl.col("id").cast(pl.Float64) / 10).write_parquet(path)
    with pytest.raises(ValueError, match=r"as 1\.1 and 1\.10 are the same, got 0\.1"):
        sequences(path)
    classes = table(["1", "2", "3"]).with_columns(pl.col("y").cast(pl.Float64) + 1e17)
    classes.write_parquet(path)
    with pytest.raises(ValueError, match="column 'y' must be names, or whole numbers"):
        sequences(path)


def stamped(order: list[int], **columns: Any) -> pl.DataFrame:
    when = [f"2024-05-01 00:{minute % ROWS:02d}:00" for minute in range(3 * ROWS)]
    return table(["a", "b", "c"], when=when, **columns)[order]


def test_sequences_must_be_in_the_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    ascending = list(range(3 * ROWS))
    stamped(ascending).write_csv(path)
    expected = sequences(path).batch("train", 0).inputs
    stamped([*range(ROWS, 3 * ROWS), *range(ROWS)]).write_csv(path)
    assert sequences(path).lengths.tolist() == [ROWS] * 3, "the order of the sequences themselves is free"
    for order in (ascending[::-1], [1, 0, *ascending[2:]]):
        stamped(order).write_csv(path)
        with pytest.raises(ValueError, match=r"'when' must not descend within a sequence, got .* in sequence '[ac]'"):
            sequences(path)
    assert sequences(path, leave_out="when").batch("train", 0).inputs.shape == expected.shape


def test_missing_time_stamps_hide_no_order(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    frame = stamped([2, 1, 0, *range(3, 3 * ROWS)])
    frame = frame.with_columns(pl.Series("when", [frame["when"][0], None, *frame["when"][2:]]))
    frame.write_csv(path)
    with pytest.raises(ValueError, match="must not descend within a sequence, got 2024-05-01 00:00:00 after"):
        sequences(path)


def test_other_times_may_stand_in_any_order(tmp_path: Path) -> None:
    """Times of day begin again at midnight; a date of birth stays; of two columns one may be of another event."""
    path, ascending = tmp_path / "log.csv", list(range(3 * ROWS))
    clock = [f"{(minute + 1435) // 60 % 24:02d}:{(minute + 1435) % 60:02d}:00" for minute in range(3 * ROWS)]
    born = [f"19{70 + row // ROWS}-01-01" for row in range(3 * ROWS)]
    visit = [f"2023-01-{1 + 7 * row % 28:02d}" for row in range(3 * ROWS)]
    for columns in ({"clock": clock}, {"born": born}, {"visit": visit}):
        stamped(ascending, **columns).write_csv(path)
        assert sequences(path).lengths.tolist() == [ROWS] * 3
    table(["a", "b", "c"], clock=clock).write_csv(path)
    assert sequences(path).lengths.tolist() == [ROWS] * 3


@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_infinite_numbers_are_refused_everywhere(tmp_path: Path, kind: str) -> None:
    """In a sequence that is not trained, and in a file to predict."""
    path = tmp_path / "log.csv"
    whole = table(["a", "b", "c"], part=["train"] * 2 * ROWS + ["test"] * ROWS)
    targets = {"kind": kind, "targets": "z" if kind == "numbers" else "y", "split": "part"}
    frame = whole.with_columns((pl.col("x") * 2).alias("z"))
    frame.write_csv(path)
    encoding = sequences(path, **targets).encoding
    for name in ["x", *(["z"] if kind == "numbers" else [])]:
        odd = frame.with_columns(pl.Series(name, [*frame[name][:-1], np.inf]))
        odd.write_csv(path)
        for given in (None, encoding):
            with pytest.raises(ValueError, match=rf"column '{name}' must hold finite numbers, got inf in row 60"):
                sequences(path, **targets, encoding=given)


@pytest.mark.parametrize("read", [series, sequences])
@pytest.mark.parametrize("texts", [("True", "False"), ("TRUE", "FALSE"), ("true", "false")])
def test_booleans_are_the_categories_of_training(tmp_path: Path, read: Any, texts: tuple[str, str]) -> None:
    """A column with another text beside True and False is one of texts; in a file to predict it may be of booleans."""
    path = tmp_path / "log.csv"
    options: dict[str, Any] = {} if read is sequences else {"series": "id", "targets": "x"}
    table(["a", "b"], c=[*texts, "unknown", texts[0]] * 10).write_csv(path)
    encoding = read(path, **options).encoding
    table(["a", "b"], c=[*texts] * 20).write_csv(path)
    task = read(path, **options, encoding=encoding)
    assert task.unseen == ""
    assert read_table(path, Missing())["c"].dtype == pl.Boolean


@pytest.mark.parametrize("read", [series, sequences])
def test_texts_that_training_lacks_are_said(tmp_path: Path, read: Any) -> None:
    path = tmp_path / "log.csv"
    kinds = ["sun", "rain"] * (3 * ROWS // 2)
    options = {"targets": "x", "inputs": ["x", "kind"]} if read is series else {}
    table(["a", "b", "c"], kind=kinds).drop("id" if read is series else []).write_csv(path)
    task = read(path, **options)
    assert task.unseen == ""
    kinds[-1] = kinds[-2] = "snow"
    table(["a", "b", "c"], kind=kinds).drop("id" if read is series else []).write_csv(path)
    said = "texts that training lacks count as no category: 'snow' in kind (2 rows)"
    assert read(path, **options, encoding=task.encoding).unseen == said
    if read is series:
        assert read(path, **options).contents.endswith(f"; {said}")


def test_times_of_day_have_no_calendar(tmp_path: Path) -> None:
    table(["a"], clock=[f"00:{minute:02d}:00" for minute in range(ROWS)]).drop("id").write_csv(tmp_path / "log.csv")
    with pytest.raises(
        ValueError, match=r"task\.calendar must be false without dates, as .clock. holds numbers, durations, or"
    ):
        series(tmp_path / "log.csv", calendar=True)


@pytest.mark.parametrize(
    ("write", "remedy"),
    [
        (lambda frame, path: frame.write_parquet(path), "the file is Parquet; rename it to .parquet"),
        (lambda frame, path: frame.write_ipc(path), "the file is Arrow; convert it by polars"),
        (lambda frame, path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00"), "an array of numpy; rename it to .npy"),
    ],
    ids=["Parquet", "Arrow", "numpy"],
)
def test_other_formats_called_csv(tmp_path: Path, write: Any, remedy: str) -> None:
    write(table(["a"]), tmp_path / "lie.csv")
    with pytest.raises(ValueError, match=remedy):
        series(tmp_path / "lie.csv")


@pytest.mark.parametrize("form", ["%Y/%m/%d", "%Y.%m.%d", "%Y/%m/%d %H:%M"])
def test_texts_of_dates_are_the_same_in_both_formats(tmp_path: Path, form: str) -> None:
    days = [(datetime(2012, 1, 1) + timedelta(days=row)).strftime(form) for row in range(ROWS)]
    frame = table(["a"], when=days).drop("id")
    frame.write_csv(tmp_path / "log.csv")
    frame.write_parquet(tmp_path / "log.parquet")
    read, other = (read_table(tmp_path / f"log.{ending}", Missing())["when"] for ending in ("csv", "parquet"))
    assert read.cast(pl.Date).to_list() == other.cast(pl.Date).to_list()


@pytest.mark.parametrize("units", [1, 1000, 10**9], ids=["seconds", "milliseconds", "nanoseconds"])
def test_numbers_since_1970_have_a_calendar(tmp_path: Path, units: int) -> None:
    """The same as their dates."""
    hours = [datetime(2024, 2, 28) + timedelta(hours=2 * row + row % 2) for row in range(60)]
    seconds = [(hour - datetime(1970, 1, 1)) // timedelta(seconds=1) for hour in hours]
    values = np.sin(np.arange(60))
    pl.DataFrame({"t": [second * units for second in seconds], "x": values}).write_csv(tmp_path / "numbers.csv")
    pl.DataFrame({"t": hours, "x": values}).write_csv(tmp_path / "dates.csv")
    numbers, dates = (series(tmp_path / f"{name}.csv", calendar=True) for name in ("numbers", "dates"))
    assert numbers.encoding["inputs"] == dates.encoding["inputs"]
    assert "sin(day)" in numbers.encoding["inputs"]
    assert np.allclose(numbers.batch("train", 0).inputs, dates.batch("train", 0).inputs, atol=1e-6)


@pytest.mark.parametrize(
    ("columns", "options", "got"),
    [
        ({"y+1": range(60)}, {"targets": ["y", "y+1"], "horizon": [0, 1], "inputs": "x"}, "'y\\+1' twice"),
        ({"y predicted": range(60)}, {"targets": ["y", "y predicted"], "horizon": 0, "inputs": "x"}, "'y predicted'"),
        ({"y+1": [datetime(2024, 1, 1) + timedelta(days=day) for day in range(60)]}, {"targets": "y"}, "'y\\+1' twice"),
    ],
    ids=["targets", "prediction", "time"],
)
def test_columns_of_predictions_have_different_names(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], got: str
) -> None:
    table(["a", "b", "c"], **columns).drop("id").write_csv(tmp_path / "log.csv")
    with pytest.raises(ValueError, match=f"different names for labels, targets and predictions, got {got}"):
        series(tmp_path / "log.csv", **options)


@pytest.mark.parametrize("kind", ["numbers", "labels"])
def test_columns_of_predicted_targets_have_different_names(tmp_path: Path, kind: str) -> None:
    other = "y predicted" if kind == "numbers" else "y probability"
    table(["a", "b"], **{other: [0, 1] * ROWS}).write_csv(tmp_path / "log.csv")
    with pytest.raises(ValueError, match=f"different names for labels, targets and predictions, got '{other}' twice"):
        sequences(tmp_path / "log.csv", targets=["y", other], kind=kind)


@pytest.mark.parametrize("kind", ["numbers", "labels"])
def test_targets_of_texts_are_classes(tmp_path: Path, kind: str) -> None:
    """The remedy is not to leave them out, as they are what is predicted."""
    table(["a", "b"], who=["p", "q"] * ROWS).write_csv(tmp_path / "log.csv")
    with pytest.raises(
        ValueError, match=r"'who' must be a column of numbers or booleans, .*; name other targets, or on"
    ):
        sequences(tmp_path / "log.csv", targets="who", kind=kind)
    assert sequences(tmp_path / "log.csv", targets="who", kind="classes").class_names == ["p", "q"]


def test_targets_of_many_texts(tmp_path: Path) -> None:
    table(["a", "b", "c"], who=[f"n{row}" for row in range(3 * ROWS)]).drop("id").write_csv(tmp_path / "log.csv")
    with pytest.raises(ValueError, match=r"column of numbers or booleans, got .* 'n0'; name other targets"):
        series(tmp_path / "log.csv", targets="who")


def test_names_that_are_true_and_false_stay_as_written(tmp_path: Path) -> None:
    table(["TRUE", "false"]).write_csv(tmp_path / "log.csv")
    assert set(series(tmp_path / "log.csv", series="id", targets="x")._file.labels["id"]) == {"TRUE", "false"}


@pytest.mark.parametrize(("names", "message"), [("0.5,0.25", "write a line of names above"), ("a;b", "")])
def test_lines_above_the_header(tmp_path: Path, names: str, message: str) -> None:
    path, separator = tmp_path / "log.csv", names[-2] if message == "" else ","
    path.write_text("\n\n".join(["", names, *(f"{row}.5{separator}{row}" for row in range(20))]))
    if message:
        with pytest.raises(ValueError, match=message):
            read_table(path, Missing())
    else:
        assert read_table(path, Missing()).columns == ["a", "b"]


def test_targets_with_units(tmp_path: Path) -> None:
    table(["a", "b"], w=[f"{row}.5 kg" for row in range(2 * ROWS)]).write_csv(tmp_path / "log.csv")
    with pytest.raises(ValueError, match=r"got '0\.5 kg' in row 1; write them as .*, or name other targets"):
        series(tmp_path / "log.csv", series="id", targets="w")


def test_a_zero_beside_commas_between_thousands(tmp_path: Path) -> None:
    """They are no decimal commas: 1,500 was 1.5, and 12 stayed 12."""
    (tmp_path / "log.csv").write_text('t,a\n1,0\n2,"1,500"\n3,"2,000"\n4,"12"\n')
    with pytest.raises(ValueError, match=r"write them as 1234\.5"):
        series(tmp_path / "log.csv")
    (tmp_path / "log.csv").write_text("t;a\n" + "".join(f"{row};0,{row:03}\n" for row in range(60)))
    assert read_table(tmp_path / "log.csv", Missing())["a"][59] == 0.059


def test_a_column_called_sequence_in_a_table_of_lists(tmp_path: Path) -> None:
    lists = [[float(row), 1.0, 2.0] for row in range(6)]
    pl.DataFrame({"sequence": lists, "y": [0, 1] * 3}).write_parquet(tmp_path / "log.parquet")
    task = sequences(tmp_path / "log.parquet", sequence=None, every_step=False)
    assert task.lengths.tolist() == [3] * 6


def test_classes_of_texts_are_known_in_a_file_with_numbers_among_them_alone(tmp_path: Path) -> None:
    table(["a", "b", "c"], who=["1"] * ROWS + ["2"] * ROWS + ["x"] * ROWS).write_csv(tmp_path / "log.csv")
    task = sequences(tmp_path / "log.csv", targets="who")
    table(["a", "b"], who=[2] * ROWS + [1] * ROWS).write_csv(tmp_path / "other.csv")
    other = sequences(tmp_path / "other.csv", targets="who", encoding=task.encoding)
    assert sorted({str(each) for each in other.targets.classes}) == ["1", "2", "x"]
    assert sorted(other.targets.values[::ROWS].tolist()) == [0, 1]


def test_results_are_no_times_of_day(tmp_path: Path) -> None:
    table(["a", "b"], result=["2:1"] * ROWS + ["0:0"] * ROWS).write_csv(tmp_path / "log.csv")
    assert sequences(tmp_path / "log.csv", targets="result").class_names == ["0:0", "2:1"]
    table(["a", "b"], at=[f"7:{row:02}" for row in range(2 * ROWS)]).write_csv(tmp_path / "log.csv")
    assert read_table(tmp_path / "log.csv", Missing()).schema["at"] == pl.Time
    table(["a"], at=[f"8:{row}:7" for row in range(ROWS)]).write_csv(tmp_path / "log.csv")
    assert read_table(tmp_path / "log.csv", Missing()).schema["at"] == pl.Time


@pytest.mark.parametrize(("targets", "nested"), [(None, True), (None, False), ("y", False)])
def test_folders_of_parts_with_another_name(tmp_path: Path, targets: str | None, nested: bool) -> None:
    """Otherwise the parts would be classes, or divided at random."""
    flat = not nested
    for part in ("train", "val", "test"):
        for label in ("a", "b"):
            folder = tmp_path / part / ("" if flat else label)
            folder.mkdir(parents=True, exist_ok=True)
            table(["a"]).drop("id").write_csv(folder / f"{label}.csv")
    words: dict[str, Any] = {"sequence": None, "targets": targets, "every_step": False}
    with pytest.raises(ValueError, match="a folder with train, validation, test alone, got 'val'; rename it"):
        sequences(tmp_path, **words)
    shutil.rmtree(tmp_path / "val")
    table(["a"]).drop("id").write_csv(tmp_path / "beside.csv")
    if targets:  # divided at random
        assert len(sequences(tmp_path, **words | {"every_step": True}).lengths) == 5


def test_labels_that_are_missing_in_a_ts_file(tmp_path: Path) -> None:
    rows = ["1,2,3:a", "2,3,4:b", "3,4,5:?", "4,5,6:a", "5,6,7:"]
    (tmp_path / "log.ts").write_text("@classLabel true a b\n@data\n" + "\n".join(rows) + "\n")
    task = sequences(tmp_path / "log.ts", sequence=None, targets=None, every_step=False)
    assert task.class_names == ["a", "b"]
    rows = ["1,2,3:None", "2,3,4:Mild", "3,4,5:None", "4,5,6:?"]
    (tmp_path / "log.ts").write_text("@classLabel true None Mild\n@data\n" + "\n".join(rows) + "\n")
    task = sequences(tmp_path / "log.ts", sequence=None, targets=None, every_step=False)
    assert task.class_names == ["Mild", "None"]


def test_a_label_may_be_called_train(tmp_path: Path) -> None:
    for label in ("train/slow", "train/fast", "bus/slow"):
        (tmp_path / label).mkdir(parents=True)
        table(["a"]).drop("id").write_csv(tmp_path / label / "one.csv")
    task = sequences(tmp_path, sequence=None, targets=None, every_step=False)
    assert task.class_names == ["bus/slow", "train/fast", "train/slow"]


def test_a_table_separated_by_tabs_with_commas_in_its_names(tmp_path: Path) -> None:
    lines = ["date\tload (mean, max, min)", *(f"{row}\t{row % 7}" for row in range(20))]
    (tmp_path / "log.tsv").write_text("\n".join(lines))
    assert read_table(tmp_path / "log.tsv", Missing()).columns == ["date", "load (mean, max, min)"]


@pytest.mark.parametrize("name", ["row", "number", "row number"])
def test_pieces_of_the_figure_of_predictions(tmp_path: Path, name: str) -> None:
    """A series called row, or a time called row, whose predictions have row numbers."""
    table(["a"], **{name: range(ROWS)}).drop("id", "y").write_csv(tmp_path / "log.csv")
    task = series(tmp_path / "log.csv", fractions=(1.0, 0.0, 0.0))
    found = task.tabulate(torch.zeros(5, 1, task.output_size), "train", 0)
    assert spans(found) == [(0, 5)]
    if name == "row":
        table(["a", "b"]).rename({"id": "row"}).drop("y").write_csv(tmp_path / "log.csv")
        task = series(tmp_path / "log.csv", series="row", fractions=(1.0, 0.0, 0.0))
        assert spans(task.tabulate(torch.zeros(5, 1, task.output_size), "train", 0)) == [(0, 5)]
        table(["a", "b"], **{"row number": range(2 * ROWS)}).rename({"id": "row"}).write_csv(tmp_path / "log.csv")
        with pytest.raises(ValueError, match=r"different names .* got 'row number' twice; rename a column"):
            series(tmp_path / "log.csv", series="row", fractions=(1.0, 0.0, 0.0))


@pytest.mark.parametrize(("value", "message"), [("inf", "got inf in row 11"), ("1 200", "'1 200' in row 11")])
def test_messages_name_the_row_of_the_file(tmp_path: Path, value: str, message: str) -> None:
    """Also where the rows of two series alternate."""
    rows = [f"{'ab'[row % 2]},{value if row == 10 else row + 0.5}" for row in range(40)]
    (tmp_path / "log.csv").write_text("\n".join(["id,x", *rows]))
    with pytest.raises(ValueError, match=message):
        series(tmp_path / "log.csv", series="id", targets="x")
    times = [f"{'ab'[row % 2]},{row},{'' if row == 10 else datetime(2024, 1, 1 + row // 2)}" for row in range(40)]
    (tmp_path / "log.csv").write_text("\n".join(["id,x,t", *times]))
    with pytest.raises(ValueError, match="got none in row 11"):
        series(tmp_path / "log.csv", series="id", time="t", targets="x")


def test_classes_of_durations_and_nested_names(tmp_path: Path) -> None:
    frame = table(["a", "b"]).with_columns(pl.Series("d", [timedelta(seconds=each) for each in [1, 2] * ROWS]))
    frame.write_parquet(tmp_path / "log.parquet")
    assert len(sequences(tmp_path / "log.parquet", targets="d").class_names) == 2
    frame.with_columns(id=pl.struct("id", "y")).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(ValueError, match=r"column 'id' must be numbers or texts as names, got .Struct"):
        sequences(tmp_path / "log.parquet")
    frame.with_columns(d=pl.struct("id", "y")).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(ValueError, match=r"column 'd' must be numbers or texts for classes, got .Struct"):
        sequences(tmp_path / "log.parquet", targets="d")


def test_a_remedy_for_rows_sorted_by_series_is_enough(tmp_path: Path) -> None:
    """The number of texts is that of the training rows, which are the first of each series."""
    names = np.random.default_rng(1).integers(0, 60, 100)
    rows = [f"{'ab'[row % 2]},{row}.5,k{names[row]}" for row in range(100)]
    (tmp_path / "log.csv").write_text("\n".join(["id,x,who", *rows]))
    with pytest.raises(ValueError, match=r"set task\.max_categories=(\d+)") as refused:
        series(tmp_path / "log.csv", series="id", targets="x")
    number = int(str(refused.value).partition("max_categories=")[2].partition(",")[0])
    series(tmp_path / "log.csv", series="id", targets="x", max_categories=number)


def test_a_table_with_durations_as_time(tmp_path: Path) -> None:
    columns = {"x": [timedelta(seconds=row) for row in range(40)], "c": [float(row % 7) for row in range(40)]}
    pl.DataFrame(columns).write_parquet(tmp_path / "log.parquet")
    task = series(tmp_path / "log.parquet", fractions=(1.0, 0.0, 0.0))
    part = task.tabulate(torch.zeros(5, 1, task.output_size), "train", 0)
    write_table(iter([part]), tmp_path / "out.csv")
    assert "PT4S" in (tmp_path / "out.csv").read_text()


def test_metrics_of_tiny_numbers_are_told_apart(tmp_path: Path) -> None:
    """Sums of squares and of absolute values are close to one another below 1e-8."""
    values = np.random.default_rng(0).normal(size=200)
    scores = []
    for unit in (1.0, 1e-12):
        pl.DataFrame({"x": unit * values}).write_parquet(tmp_path / "log.parquet")
        task = series(tmp_path / "log.parquet", length=50)
        torch.manual_seed(0)
        model = SequenceModel(Elman, input_size=1, output_size=1, hidden_size=3)
        evaluation = Evaluation(task)
        evaluation.add(model, task.batch("train", 0))
        scores.append({name: float(score) for name, score in evaluation.scores().items()})
    assert scores[1]["mae"] == pytest.approx(1e-12 * scores[0]["mae"])
    assert scores[1]["mse"] == pytest.approx(1e-24 * scores[0]["mse"])
