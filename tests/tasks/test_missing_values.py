"""Numbers and texts that mean no value, in files of every kind."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from bptt.tasks.missing_values import Missing, hint, suspected
from bptt.tasks.sequences import Sequences
from bptt.tasks.series import Series
from bptt.tasks.tables import read_table

GAPS = [0.5, -9999.0, 0.25, 1.5, -9999.0, 0.75, -0.5, 1.0, 0.0, 2.0, -1.0, 0.5]
MARKED = [np.nan if value == -9999 else value for value in GAPS]
OTHER = [float(index % 5) for index in range(12)]


def series(path: Path, **options: Any) -> Series:
    settings: dict[str, Any] = {"length": 4, "batch_size": 1, "fractions": (1.0, 0.0, 0.0), **options}
    return Series(path=str(path), **settings)


def written(path: Path, values: list[float]) -> Path:
    """A file with the columns 0 and 1."""
    frame = pl.DataFrame({"0": values, "1": OTHER})
    if path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".npy":
        np.save(path, frame.to_numpy())
    else:
        columns: dict[str, Any] = {"0": np.array(values), "1": np.array(OTHER)}
        np.savez(path, **columns)
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet", "npy", "npz"])
def test_a_named_number_is_a_missing_value(tmp_path: Path, ending: str) -> None:
    marked = series(written(tmp_path / f"marked.{ending}", GAPS), missing=-9999)
    plain = series(written(tmp_path / f"plain.{ending}", MARKED))
    assert marked.statistics.plain() == plain.statistics.plain()
    for index in range(plain.num_batches("train")):
        ours, expected = marked.batch("train", index), plain.batch("train", index)
        assert torch.equal(ours.inputs, expected.inputs)
        assert torch.equal(ours.targets.nan_to_num(7), expected.targets.nan_to_num(7))


@pytest.mark.parametrize("number", [-99.9, 1e20, 9.96921e36])
@pytest.mark.parametrize("ending", ["npy", "npz", "parquet"])
def test_numbers_in_float32(tmp_path: Path, ending: str, number: float) -> None:
    """−99.9 is another number in float32."""
    values = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    values[::7, 0] = np.float32(number)
    path = tmp_path / f"gaps.{ending}"
    if ending == "parquet":
        pl.DataFrame(values, schema=["0", "1"]).write_parquet(path)
    else:
        columns: dict[str, Any] = {"a": values[:, 0], "b": values[:, 1].astype(np.float64)}
        np.save(path, values) if ending == "npy" else np.savez(path, **columns)
    marked = series(path, missing=[number])
    mean = marked.statistics.plain()
    values[::7, 0] = np.nan
    assert str(np.nanmean(values[:, 0], dtype=np.float64))[:5] in str(mean)
    assert mean == series(path, missing=[float(np.float32(number))]).statistics.plain()


def test_numbers_in_a_folder_of_float32(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(4):
            values = np.random.default_rng(number).normal(size=(9, 2)).astype(np.float32)
            values[3, 0] = np.float32(-99.9)
            np.savez(tmp_path / label / f"{number}.npz", x=values)
    task = Sequences(path=str(tmp_path), batch_size=1, missing=[-99.9])
    assert abs(float(task.encoding["mean"][0])) < 1


def test_other_kinds_are_compared_as_they_are() -> None:
    missing = Missing([-99.9, 16777217, 1e300, -9999])
    frame = pl.DataFrame({"i": [-99, 16777216, 16777217], "f": pl.Series([np.inf, -9999, 0], dtype=pl.Float32)})
    assert missing.absent_in(frame).to_dict(as_series=False) == {"i": [-99, 16777216, None], "f": [np.inf, None, 0]}
    values = np.array([-99.0, 16777216, -99.9, np.float32(-99.9)])
    assert np.isnan(missing.absent(values, np.dtype(np.int16))).tolist() == [False, False, True, False]
    assert np.isnan(missing.absent(values, np.dtype(np.float64))).tolist() == [False, False, True, True]
    for number in (-99.9, 9.969209968386869e36, float(np.float32(-99.9))):
        named = re.search(r"may mean no value: task.missing=\[(.*)\]$", hint({"x": np.array([number, number, 1, 2.0])}))
        assert named is not None
        assert np.isnan(Missing([float(named[1])]).absent(np.array([number]), np.dtype(np.float64))).all()


def test_named_texts_are_missing_values(tmp_path: Path) -> None:
    """A station that writes M for missing and T for a trace: M is named, T is refused as before."""
    (tmp_path / "rain.csv").write_text(
        "rain,wind\n" + "".join(f"{'M' if row == 3 else row},{row % 3}\n" for row in range(12))
    )
    task = series(tmp_path / "rain.csv", missing=["M", -99])
    assert task.input_size == 2
    with pytest.raises(ValueError, match="column 'rain' must be numbers, time stamps, or texts that are neither"):
        series(tmp_path / "rain.csv")


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.Enum(["u", "v", " NA ", "", "M"])])
def test_texts_of_parquet(tmp_path: Path, kind: Any) -> None:
    """As those of CSV, in a column of texts, beside dates and in lists; a name of a series stays."""
    texts = ["u", "v", " NA ", "", "M", "u"] * 4
    days = [f"2024-05-{1 + row:02}" if row % 6 else "NA" for row in range(24)]
    frame = pl.DataFrame({"id": ["NA", "b"] * 12, "x": range(24), "kind": texts, "day": days})
    path = tmp_path / "log.parquet"
    frame.with_columns(pl.col("kind").cast(kind)).write_parquet(path)
    task = series(path, missing=["M"], leave_out="day", series="id", inputs=["x", "kind"], targets="x")
    assert task.encoding["categories"] == {"kind": ["u", "v"]}
    read = read_table(path, Missing("M"))
    assert read["day"].dtype == pl.Date
    assert read["kind"].to_list() == ["u", "v", None, None, None, "u"] * 4
    frame.with_columns(id=pl.int_range(24) // 6).group_by("id").agg("kind").write_parquet(path)
    assert read_table(path, Missing("M"))["kind"].to_list() == [["u", "v", None, None, None, "u"]] * 4


def test_numbers_of_other_types_and_other_columns_stay(tmp_path: Path) -> None:
    pl.DataFrame({"id": [-9999, -9999, 1, 1] * 3, "x": [1, -9999, 2, 3] * 3, "on": [True, False] * 6}).write_csv(
        tmp_path / "log.csv"
    )
    task = series(tmp_path / "log.csv", missing="-9999", leave_out="id")
    assert task.input_size == 2
    assert float(task.batch("train", 0).inputs[1, 0, 0]) == float(task.batch("train", 0).inputs[0, 0, 0])


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_missing_values_of_sequences(tmp_path: Path, ending: str) -> None:
    def made(values: list[float], name: str, **options: Any) -> Sequences:
        path = tmp_path / f"{name}.{ending}"
        x = np.stack([values, OTHER], axis=1).reshape(6, 2, 2)
        y = np.arange(6) % 2
        if ending == "npz":
            np.savez(path, x=x, y=y)
            return Sequences(path=str(path), batch_size=2, fractions=(1.0, 0.0, 0.0), **options)
        rows = x.reshape(12, 2)
        pl.DataFrame({"id": np.repeat(range(6), 2), "a": rows[:, 0], "b": rows[:, 1], "y": np.repeat(y, 2)}).write_csv(
            path
        )
        return Sequences(path=str(path), batch_size=2, sequence="id", targets="y", fractions=(1.0, 0.0, 0.0), **options)

    marked, plain = made(GAPS, "marked", missing=[-9999]), made(MARKED, "plain")
    for index in range(plain.num_batches("train")):
        assert torch.equal(marked.batch("train", index).inputs, plain.batch("train", index).inputs)
    assert "task.missing" not in plain.contents
    assert made(GAPS, "hint").contents.endswith("may mean no value: task.missing=[-9999]")


@pytest.mark.parametrize("given", [True, {"a": 1}, [[1]]])
def test_other_values_are_refused(tmp_path: Path, given: Any) -> None:
    with pytest.raises(ValueError, match=r"task.missing must be a number, a text, or a list of them, got"):
        series(written(tmp_path / "log.csv", MARKED), missing=given)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (GAPS, -9999),
        ([0.5, -999.25, 1.0, -999.25], -999.25),
        ([1.0, 2.0, 1e20, 1e20], 1e20),
        ([3.0, 99.9, 4.0, 99.9, np.nan], 99.9),
        ([0.5, -9999.0, 1.0, 2.0], None),  # once: it may be a value
        ([95.0, 99.0, 99.0, 97.0, 91.0], None),  # among the others
        ([-500.0, 999.0, 999.0, 600.0], None),  # not farther than they are from each other
        ([0.0, 5000.0, 5000.0, 1.0], None),  # no usual mark
        ([-9999.0, -9999.0], None),
        ([np.nan, np.nan], None),
    ],
)
def test_which_numbers_are_suspected(values: list[float], found: float | None) -> None:
    assert suspected(np.array(values)) == found


def test_a_run_says_what_to_set(tmp_path: Path) -> None:
    task = series(written(tmp_path / "log.csv", GAPS))
    assert task.contents.endswith("; -9999 in 0 may mean no value: task.missing=[-9999]")
    assert "task.missing" not in series(tmp_path / "log.csv", missing=[-9999]).contents
