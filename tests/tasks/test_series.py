"""Rows of users' files as forecasting tasks, checked against the files read by hand."""

import datetime as dt
import os
import random
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from bptt.layers import GRU
from bptt.lightning.data_identity import same_data
from bptt.model import SequenceModel
from bptt.tasks import SPLITS
from bptt.tasks.base import DIVIDED
from bptt.tasks.batch_checks import check_task
from bptt.tasks.categories import require_categories
from bptt.tasks.forward_fill import FilledRows
from bptt.tasks.missing_values import Missing
from bptt.tasks.rows import ArrayRows
from bptt.tasks.series import Series
from bptt.tasks.standardise import moments
from bptt.tasks.streams import Stretch, divide
from bptt.tasks.tables import read_table

ROWS = 97


@pytest.fixture
def numbers() -> np.ndarray:
    return np.random.default_rng(0).normal([5, -300], [2, 1e-3], (ROWS, 2))


def written(path: Path, columns: dict[str, Any]) -> str:
    """A table as CSV or Parquet, None as a missing value."""
    frame = pl.DataFrame(columns)
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
    return str(path)


def series(path: str | Path, **options: Any) -> Series:
    return Series(**{"path": str(path), "length": 7, "batch_size": 3, "fractions": (0.6, 0.2, 0.2), **options})


def table(task: Series) -> dict[int, dict[str, Any]]:
    """Tabulated values by row of the file, with the standardised values as predictions."""
    found: dict[int, dict[str, Any]] = {}
    for split in SPLITS:
        for index in range(task.num_batches(split)):
            columns = task.tabulate(task.batch(split, index).targets[..., 0], split, index)
            for place, row in enumerate(columns["row"]):
                assert row not in found, "every row is read once"
                found[row] = {name: column[place] for name, column in columns.items()}
    return found


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("name", ["log[1]", "log?", "log*", "**", "{log1}"])
def test_a_name_is_no_pattern(tmp_path: Path, name: str, suffix: str) -> None:
    """Where polars expands patterns, these are those of the other file, too."""
    written(tmp_path / f"log1{suffix}", {"a": [0.25] * 5, "b": [0.5] * 5})
    path = written(tmp_path / f"{name}{suffix}", {"a": [1.25] * 4, "b": [2.5] * 4})
    assert read_table(Path(path), Missing()).rows() == [(1.25, 2.5)] * 4


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy", ".npz"])
@pytest.mark.parametrize("horizon", [1, 5, [2, 4]])
def test_targets_are_the_rows_that_follow_in_their_own_units(
    tmp_path: Path, numbers: np.ndarray, suffix: str, horizon: Any
) -> None:
    path = tmp_path / f"data{suffix}"
    if suffix == ".npy":
        np.save(path, numbers)
    elif suffix == ".npz":
        columns: dict[str, Any] = {"0": numbers[:, 0], "1": numbers[:, 1]}
        np.savez(path, **columns)
    else:
        written(path, {"0": numbers[:, 0], "1": numbers[:, 1]})
    task = series(str(path), horizon=horizon)
    horizons = [horizon] if isinstance(horizon, int) else horizon
    found, borders = table(task), [0, 58, 78, 97]
    for first, last in pairwise(borders):
        for row in range(first, last - min(horizons)):
            for name in ("0", "1"):
                for each in horizons:
                    value = found[row + 1][f"{name}+{each}"]
                    if row + each >= last:
                        assert value is None, "no target from another part"
                    else:
                        assert value == pytest.approx(numbers[row + each, int(name)], rel=1e-6)
    assert len(found) == ROWS - 3 * min(horizons)
    assert task.input_size == 2
    assert task.output_size == 2 * len(horizons)


def test_inputs_are_standardised_by_the_training_part(tmp_path: Path, numbers: np.ndarray) -> None:
    task = series(written(tmp_path / "data.csv", {"a": numbers[:, 0], "b": numbers[:, 1]}))
    train = numbers[:58]
    expected = (numbers - train.mean(0)) / train.std(0)
    windows = [task.batch("train", index).inputs[:, 0] for index in range(task.num_batches("train"))]
    first = torch.cat(windows)[:19]  # 57 rows with a target in 3 streams
    torch.testing.assert_close(first, torch.from_numpy(expected[:19]).float(), rtol=1e-5, atol=1e-5)


def test_state_is_carried_through_each_stream_and_begins_with_an_epoch(tmp_path: Path, numbers: np.ndarray) -> None:
    task = series(written(tmp_path / "data.csv", {"a": numbers[:, 0]}))
    resets = [task.batch("train", index).reset for index in range(task.num_batches("train") + 1)]
    assert [reset.tolist() for reset in resets if reset is not None] == [
        [True] * 3,
        [False] * 3,
        [False] * 3,
        [True] * 3,
    ]


def test_skill_and_errors_by_hand(tmp_path: Path, numbers: np.ndarray) -> None:
    """Persistence itself has skill 0; the mean error is in the data's own units."""
    task = series(written(tmp_path / "data.csv", {"a": numbers[:, 0]}), horizon=3)
    metrics = task.metrics()
    for index in range(task.num_batches("train")):
        batch = task.batch("train", index)
        assert batch.mask is not None
        for metric in metrics.values():
            metric.update(batch.targets[batch.mask][..., 1], batch.targets[batch.mask])
    errors = numbers[3:58, 0] - numbers[:55, 0]
    assert float(metrics["skill"].compute()) == pytest.approx(0, abs=1e-6)
    assert float(metrics["mse"].compute()) == pytest.approx((errors**2).mean(), rel=1e-4)
    assert float(metrics["mae"].compute()) == pytest.approx(np.abs(errors).mean(), rel=1e-4)


def test_missing_values_are_carried_forward_as_inputs_and_have_no_loss(tmp_path: Path) -> None:
    values = [None, 1.0, None, 3.0, None, None, 6.0, 7.0, 8.0, None] * 6
    other = [float(row * row) for row in range(60)]
    path = written(tmp_path / "data.csv", {"a": values, "b": other})
    task = series(path, batch_size=1, length=60, fractions=(1, 0, 0), missing_indicators=True)
    batch = task.batch("train", 0)
    assert task.input_size == 3
    assert batch.inputs[:, 0, 2].tolist() == [float(value is None) for value in values[:-1]]
    filled = pl.Series(values).forward_fill().to_numpy()
    expected = (filled - np.nanmean(np.array(values, dtype=float))) / np.nanstd(np.array(values, dtype=float))
    torch.testing.assert_close(batch.inputs[:, 0, 0], torch.from_numpy(np.nan_to_num(expected)).float()[:-1])
    missing = batch.targets[:, 0, 0, 0].isnan()
    assert missing.tolist() == [value is None for value in values[1:]]
    predictions = torch.randn(59, 1, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(task.loss(predictions, batch), predictions)
    assert (gradient[:, 0, 0] == 0).tolist() == missing.tolist()
    assert gradient[:, 0, 1].all()


def test_a_timestep_without_any_target_is_outside_the_mask(tmp_path: Path) -> None:
    values = [1.0, 2.0, None, 4.0, 0.0, 3.0]
    task = series(written(tmp_path / "data.csv", {"a": values}), batch_size=1, fractions=(1, 0, 0))
    batch = task.batch("train", 0)
    assert batch.mask is not None
    assert batch.mask[:, 0].tolist() == [True, False, True, True, True]
    assert batch.targets.isfinite().all()


@given(
    gaps=st.lists(st.integers(0, 9999), max_size=60),
    start=st.integers(0, 9998),
    size=st.integers(1, 30),
    border=st.integers(1, 9999),
)
def test_values_carried_forward_are_the_same_from_wherever_they_are_read(
    gaps: list[int], start: int, size: int, border: int
) -> None:
    values = np.arange(10_000.0)[:, None]
    for gap in gaps:
        values[gap : gap + 700] = np.nan
    filled = FilledRows(ArrayRows(values), [(0, border), (border, 10_000)], ["a"])
    parts = (values[:border, 0], values[border:, 0])
    whole = np.concatenate([pl.Series(part).fill_nan(None).forward_fill().to_numpy() for part in parts])
    stop = min(start + size, border if start < border else 10_000)
    np.testing.assert_array_equal(filled.read(start, stop).values[:, 0], whole[start:stop])


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=9), streams=st.integers(1, 8))
def test_every_row_is_in_one_stream(sizes: list[int], streams: int) -> None:
    stretches, origin = [], 0
    for size in sizes:
        stretches.append(Stretch(origin, origin + size, origin, origin + size))
        origin += size
    divided = divide(stretches, streams)
    rows = [row for stream in divided for piece in stream for row in range(piece.start, piece.stop)]
    assert sorted(rows) == list(range(origin))
    assert len(divided) == streams
    assert all(divided) or origin < streams


@given(st.lists(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=9), min_size=1, max_size=6))
def test_moments_merged_from_blocks(blocks: list[list[float]]) -> None:
    count, mean, deviation = moments(np.array(block)[:, None] for block in blocks)
    whole = np.concatenate([np.array(block) for block in blocks])
    whole = whole[~np.isnan(whole)]
    assert count[0] == len(whole)
    if len(whole):
        assert mean[0] == pytest.approx(whole.mean(), rel=1e-9, abs=1e-6)
        assert deviation[0] == pytest.approx(whole.std(), rel=1e-6, abs=1e-3)


def test_texts_and_booleans_and_calendar(tmp_path: Path) -> None:
    rows = 48
    columns = {
        "when": [f"2024-01-0{1 + row // 24} {row % 24:02}:00:00" for row in range(rows)],
        "a": [float(row % 5) for row in range(rows)],
        "kind": [("x", "y", None)[row % 3] for row in range(rows)],
        "open": [row % 2 == 0 for row in range(rows)],
    }
    task = series(written(tmp_path / "data.csv", columns), targets="a", calendar=True, batch_size=1, length=48)
    assert task.input_size == 1 + 2 + 1 + 2 + 2 + 2  # a, kind, open, sin and cos of day, week, year
    inputs = task.batch("train", 0).inputs[:, 0]
    assert inputs[:5, 1:3].tolist() == [[1, 0], [0, 1], [0, 1], [1, 0], [0, 1]]
    torch.testing.assert_close(inputs[6, 4:6], torch.tensor([1.0, 0.0]), atol=1e-6, rtol=0)  # six o'clock
    assert list(task.tabulate(torch.zeros(27, 1, 1), "train", 0)) == ["row", "when", "a+1 predicted", "a+1"]


def test_several_series_stay_apart(tmp_path: Path) -> None:
    """Rows of two series, interleaved: neither targets nor carried values come from the other."""
    rows = range(40)
    x = [None if row == 1 else row + 1000.0 * (row % 2) for row in rows]
    columns = {"id": ["b" if row % 2 else "a" for row in rows], "x": x}
    task = series(written(tmp_path / "data.csv", columns), series="id", fractions=(1, 0, 0), batch_size=2, length=50)
    found = table(task)
    assert [found[row + 1]["x+1"] for row in range(38)] == pytest.approx(
        x[2:], abs=1e-4
    )  # of a deviation of 500, in float32
    batch = task.batch("train", 0)
    assert batch.inputs[0, 1, 0] == 0, "nothing is known yet of the second series"
    one = series(str(tmp_path / "data.csv"), series="id", fractions=(1, 0, 0), batch_size=1, length=50)
    (batch,) = (one.batch("train", index) for index in range(one.num_batches("train")))
    assert batch.reset is not None
    assert batch.reset[:, 0].nonzero().flatten().tolist() == [0, 19], "one after the other, in one stream"
    assert table(one) == found


def test_regression_on_columns_of_the_same_row(tmp_path: Path, numbers: np.ndarray) -> None:
    path = written(tmp_path / "data.csv", {"a": numbers[:, 0], "b": numbers[:, 1]})
    task = series(path, targets="b", horizon=0, batch_size=1, length=100)
    assert task.input_size == 1
    assert [row["b"] for row in table(task).values()] == pytest.approx(numbers[:, 1].tolist(), rel=1e-6)
    persistence = task.batch("train", 0).targets[:, 0, 0, 1]
    torch.testing.assert_close(persistence[1:], task.batch("train", 0).targets[:-1, 0, 0, 0])


def test_sound(tmp_path: Path) -> None:
    samples = np.sin(np.arange(4000) / 20)[:, None] * [0.5, 0.25]
    soundfile.write(tmp_path / "tone.wav", samples, 8000, subtype="FLOAT")
    task = series(str(tmp_path / "tone.wav"), inputs="0", targets="1", horizon=0)
    found = table(task)
    assert [found[row + 1]["1"] for row in range(4000)] == pytest.approx(samples[:, 1].tolist(), abs=1e-6)

    soundfile.write(tmp_path / "played.wav", samples[:, 0], 8000, subtype="FLOAT")  # a sound to predict from
    words: dict[str, Any] = {"inputs": "0", "targets": "1", "horizon": 0, "batch_size": 1}
    other = series(str(tmp_path / "played.wav"), encoding=task.encoding, **words)
    assert {row["1"] for row in table(other).values()} == {None}
    whole = series(str(tmp_path / "tone.wav"), encoding=task.encoding, **words)
    torch.testing.assert_close(other.batch("test", 5).inputs, whole.batch("test", 5).inputs)
    with pytest.raises(ValueError, match=r"task.targets must be a column of the file"):
        series(str(tmp_path / "played.wav"), **words)


def test_another_file_by_the_encoding_of_a_task(tmp_path: Path, numbers: np.ndarray) -> None:
    """Statistics and categories are those of the first file; every row is read, the last one too."""
    kinds = [("x", "y", "z")[row % 3] for row in range(ROWS)]
    one = written(tmp_path / "one.csv", {"a": numbers[:, 0], "b": numbers[:, 1], "kind": kinds})
    first = series(one, targets="a", inputs=["b", "kind"])
    path = written(tmp_path / "two.csv", {"kind": ["z", "y"] * 10, "b": [-299.0] * 20})
    second = series(path, encoding=first.encoding, batch_size=1, targets="a", inputs=None)
    assert "a" not in pl.read_csv(path).columns
    assert (second.num_batches("train"), second.num_batches("test")) == (0, 3)
    inputs = second.batch("test", 0).inputs[0, 0]
    expected = (-299 - numbers[:58, 1].mean()) / numbers[:58, 1].std()
    torch.testing.assert_close(inputs, torch.tensor([expected, 0, 0, 1]).float(), rtol=1e-4, atol=1e-4)
    assert len(table(second)) == 20
    same = series(one, encoding=first.encoding, batch_size=1)
    assert same.statistics.plain() == first.statistics.plain()


def test_another_array_with_more_columns_is_refused(tmp_path: Path, numbers: np.ndarray) -> None:
    """Columns of arrays have no names, so the first ones need not be those of the training data."""
    np.save(tmp_path / "two.npy", numbers)
    np.save(tmp_path / "three.npy", np.concatenate([numbers[:, :1], numbers], 1))
    encoding = series(str(tmp_path / "two.npy"), inputs=["1"], targets="1").encoding
    assert series(str(tmp_path / "two.npy"), encoding=encoding, batch_size=1).input_size == 1
    with pytest.raises(ValueError, match="the data must be in 2 columns, as in training, got 3; their order"):
        series(str(tmp_path / "three.npy"), encoding=encoding, batch_size=1)


GOOD = {"t": list(range(30)), "a": [float(row % 4) for row in range(30)], "b": [float(row % 3) for row in range(30)]}
TEXTS = [f"remark {row}" for row in range(60)]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {"inputs": ["a", "c"]}, r"task.inputs must be a column of the file \(t, a, b\), got 'c'"),
        ({}, {"targets": "z"}, "task.targets must be a column of the file"),
        ({}, {"time": "z"}, "task.time must be a column of the file"),
        ({}, {"horizon": 0, "inputs": "a", "targets": "a"}, "horizon must be above 0"),
        ({}, {"horizon": [1, 1]}, "horizon must be a number of rows or several different ones"),
        ({}, {"horizon": 28}, "the train part of .* must have a row with a target for each of 3 streams, got 0"),
        ({}, {"fractions": (0.9, 0.05, 0.05)}, "the validation part .*, got 1 such rows; use a longer file"),
        ({}, {"calendar": True}, "task.calendar must be false without time stamps"),
        ({"a": [None] * 30}, {}, r"column 'a' must have values in the training part, got none; .*task.leave_out=\[a\]"),
        ({"a": [2.5] * 30}, {}, r"'a' must vary in the training part by more .*, got 2.5 ± 0; .*leave_out=\[a\]"),
        ({"a": [2.5] * 30, "b": [1] * 30}, {}, r"leave it out: task.leave_out=\[a,b\]"),
        ({"a": [1.0] * 29 + [float("inf")]}, {}, "column 'a' must hold finite numbers, got inf in row 30"),
        ({"t": [0, 1, 1, *range(3, 30)]}, {"time": "t"}, "time stamps in 't' must ascend, got the same again in row 3"),
        ({"t": [5, *range(1, 30)]}, {"time": "t"}, "time stamps in 't' must ascend, got an earlier one in row 2"),
        ({"t": [f"{(20 + n) % 24}:00:00" for n in range(30)]}, {}, r"times of day .* out: task.leave_out=\[t\]"),
        ({"t": [None, *range(29)]}, {"time": "t"}, "must have a time stamp in every row, got none in row 1"),
        ({"a": [1e300, 2e300] * 15}, {}, r"column 'a' must hold numbers whose squares are finite, .*leave_out=\[a\]"),
        ({"a ": list(range(30))}, {}, "columns have different names, got 'a'; it is twice"),
        ({}, {"horizon": [1, 6]}, "horizon must be below 6, the number of rows .* of the validation part, got 6"),
        ({}, {"horizon": 1.5}, r"horizon\[0\] must be an integer >= 0, got 1.5"),
        ({"t": ["soon"] * 30}, {"time": "t"}, "task.time must be a column of time stamps such as .*, got 'soon'"),
        ({"a": ["x", "y", "z"] * 10}, {"targets": "a"}, "task.targets must be columns of numbers, got 'a'; texts can"),
        (
            {"a": list(range(30)), "date": [f"2024-01-{day:02}" for day in range(1, 31)]},
            {"targets": "date", "leave_out": "date"},
            "task.targets must be columns of numbers, got 'date'; times and columns left out are none",
        ),
        ({"b": [None, *["u"] * 29]}, {"series": "b"}, "must name a series in every row, got none in row 1"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    path = written(tmp_path / "data.csv", GOOD | columns)
    with pytest.raises(ValueError, match=message) as refused:
        series(path, **options)
    assert "\n" not in str(refused.value)


def test_a_column_of_many_texts_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", {"a": [float(row % 7) for row in range(60)], "remark": TEXTS})
    with pytest.raises(ValueError, match=r"column 'remark' must be .* at most 32 different texts, got .*'remark 0'"):
        series(path)
    assert series(path, leave_out="remark").input_size == 1
    texts = series(path, max_categories=60, fractions=(1, 0, 0))
    assert texts.input_size == 1 + 60


def test_a_column_of_texts_with_an_encoder_is_an_embedding(tmp_path: Path) -> None:
    """`model.embedding_size` adds an embedding of each text to a linear map of the numbers."""
    columns = {"a": [float(row % 7) for row in range(60)], "kind": ["xyz"[row % 3] for row in range(60)]}
    task = series(written(tmp_path / "data.csv", columns), targets="a")
    model = SequenceModel(GRU, input_size=task.input_size, output_size=1, hidden_size=4, embedding_size=5)
    assert model.encoder is not None
    inputs = task.batch("train", 0).inputs
    kinds = inputs[..., 1:].argmax(-1)
    numbers, embedding = model.encoder.weight[:, :1], model.encoder.weight[:, 1:].T
    expected = inputs[..., :1] @ numbers.T + torch.nn.functional.embedding(kinds, embedding)
    torch.testing.assert_close(model.encode(inputs), expected)


def unreadable(folder: Path) -> dict[str, Callable[[], Path]]:
    def content(name: str, raw: bytes) -> Path:
        (folder / name).write_bytes(raw)
        return folder / name

    def pipe() -> Path:
        os.mkfifo(folder / "pipe.csv")
        return folder / "pipe.csv"

    return {
        "no such file": lambda: folder / "none.csv",
        "the file is empty": lambda: content("empty.csv", b""),
        "a header alone": lambda: content("header.csv", b"a,b\n"),
        "ending of task.path must be .csv.*'.xlsx'; export the sheet as CSV": lambda: content(
            "data.xlsx", b"PK\x03\x04"
        ),
        "the file is compressed by gzip; decompress it": lambda: content("log.csv.gz", b"\x1f\x8b\x08" + bytes(20)),
        "it is a folder": lambda: folder,
        "it is a pipe": pipe,
        "UTF-16.*iconv": lambda: content("wide.csv", "a,b\n1,2\n".encode("utf-16")),
        "compressed by gzip.*gunzip": lambda: content("small.csv", b"\x1f\x8b\x08" + bytes(20)),
        "polars cannot read: lines have more fields than the first": lambda: content(
            "ragged.csv", b"a,b\n1,2\n1,2,3\n"
        ),
        "polars cannot read: .": lambda: content("false.parquet", b"PAR0" * 9),
        "an .npy array of numbers": lambda: content("false.npy", b"no array"),
        "an .npz file of arrays": lambda: content("false.npz", b"no archive"),
        "must be a sound file": lambda: content("false.wav", b"RIFFRIFF" * 9),
    }


@pytest.mark.parametrize("message", unreadable(Path()))
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, message: str) -> None:
    folder = tmp_path / "data.csv"
    folder.mkdir()
    path = unreadable(folder)[message]()
    with pytest.raises(ValueError, match=message) as refused:
        series(str(path))
    assert "\n" not in str(refused.value)


def test_a_damaged_file_is_refused_or_read(tmp_path: Path) -> None:
    """Files cut short and with changed bytes never end in another error, nor in one of several lines."""
    numbers, chance = np.arange(240.0).reshape(120, 2) % 7, random.Random(1)
    columns = {"a": numbers[:, 0].tolist(), "b": ["x", "y"] * 60, "t": after("%Y-%m-%d", 120)}
    paths = [Path(written(tmp_path / f"good{ending}", columns)) for ending in (".csv", ".parquet")]
    np.save(tmp_path / "good.npy", numbers)
    np.savez(tmp_path / "stored.npz", numbers)
    np.savez_compressed(tmp_path / "good.npz", numbers)
    paths += [tmp_path / name for name in ("good.npy", "stored.npz", "good.npz")]
    for ending in (".wav", ".flac"):
        paths.append(tmp_path / f"good{ending}")
        soundfile.write(paths[-1], numbers / 7, 8000)
    errors = []
    for path in paths:
        good = path.read_bytes()
        for trial in range(20):
            place = chance.randrange(len(good))
            path.write_bytes(good[:place] if trial % 2 else good[:place] + chance.randbytes(4) + good[place + 4 :])
            try:
                check_task(series(str(path)))
            except ValueError as error:
                errors.append(str(error))
    assert len(errors) > 100
    assert not [error for error in errors if "\n" in error]


def test_a_sound_that_was_copied_in_part(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    soundfile.write(path, np.sin(np.arange(2000.0)), 8000)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a whole sound file of 4044 bytes, .*; it has 2000"):
        series(str(path))


def test_arrays_that_are_no_rows_are_refused(tmp_path: Path) -> None:
    for shape, kind in (((3, 4, 5), float), ((0, 2), float), ((9,), "U3")):
        np.save(tmp_path / "data.npy", np.zeros(shape, dtype=kind))
        with pytest.raises(ValueError, match=r"task.path must hold numbers \(N,\) or \(N, C\)"):
            series(str(tmp_path / "data.npy"))
    np.savez(tmp_path / "data.npz", a=np.zeros(4), b=np.zeros(5))
    with pytest.raises(ValueError, match=re.escape("columns (N,) of one length, got a [4], b [5]")):
        series(str(tmp_path / "data.npz"))
    np.savez(tmp_path / "dates.npz", value=np.zeros(4), day=np.arange("2020-01-01", "2020-01-05", dtype="M8[D]"))
    with pytest.raises(ValueError, match=re.escape("must hold numbers (N,) or (N, C), got day [4] of datetime64[D]")):
        series(str(tmp_path / "dates.npz"))
    np.save(tmp_path / "data.npy", np.array([{"pickled": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"an \.npy array of numbers"):
        series(str(tmp_path / "data.npy"))


def test_a_file_that_changes_under_a_map_is_noticed(tmp_path: Path, numbers: np.ndarray) -> None:
    path = tmp_path / "data.npy"
    np.save(path, numbers)
    task = series(str(path))
    np.save(path, np.concatenate([numbers, numbers]))
    with pytest.raises(ValueError, match="it has changed"):
        task.batch("train", 0)


def test_fewer_columns_than_the_encoding_are_refused(tmp_path: Path, numbers: np.ndarray) -> None:
    first = series(written(tmp_path / "one.csv", {"a": numbers[:, 0], "b": numbers[:, 1]}), targets="a")
    with pytest.raises(ValueError, match=r"task.inputs must be a column of the file \(a\), got 'b'"):
        series(written(tmp_path / "two.csv", {"a": numbers[:, 0]}), encoding=first.encoding)


@pytest.mark.parametrize("horizon", [1, [2, 4]])
def test_changes_from_the_last_value(tmp_path: Path, horizon: Any) -> None:
    """With mean 0 and deviation 1 over the training part; tables and metrics stay those of the values."""
    values = np.arange(ROWS) * 3.0 + np.random.default_rng(1).normal(0, 2, ROWS)
    given = [None if row % 9 == 4 else float(value) for row, value in enumerate(values)]
    path = written(tmp_path / "trend.csv", {"level": given})
    plain, task = (series(path, horizon=horizon, difference=each, warm_up=0) for each in (False, True))
    found, expected = table(task), table(plain)
    for row, columns in expected.items():
        for name, value in columns.items():
            if columns[name.removesuffix(" predicted")] is None:
                assert found[row][name.removesuffix(" predicted")] is None
            else:
                assert found[row][name] == pytest.approx(value, rel=1e-6)
    batches = [task.batch("train", index) for index in range(task.num_batches("train"))]
    observed = torch.cat([batch.inside(batch.targets) for batch in batches])[..., 0]
    assert observed.nanmean(0).abs().max() < 1e-5
    assert torch.nan_to_num(observed).square().mean(0).max() <= 1 + 1e-5
    batch, level = task.batch("validation", 0), plain.batch("validation", 0)
    scores = []
    for each, data in ((task, batch), (plain, level)):
        metrics = each.metrics()
        for metric in metrics.values():
            metric.update(data.inside(data.targets)[..., 1], data.inside(data.targets))  # persistence
        scores.append({name: float(metric.compute()) for name, metric in metrics.items()})
    assert scores[0]["skill"] == scores[1]["skill"] == 0
    assert scores[0]["mae"] == pytest.approx(scores[1]["mae"], rel=1e-4)
    skills = []
    for each, data in ((task, batch), (plain, level)):
        skill, (value, persistence) = each.metrics()["skill"], data.inside(data.targets).unbind(-1)
        share = torch.linspace(0.2, 0.9, value.shape[-1])  # horizons of unlike quality
        skill.update(share * value + (1 - share) * persistence, data.inside(data.targets))
        skills.append(float(skill.compute()))
    assert skills[0] == pytest.approx(skills[1], rel=1e-4)
    again = series(path, horizon=horizon, difference=True, encoding=task.encoding)
    assert again.encoding == task.encoding


def test_changes_need_a_value_before(tmp_path: Path, numbers: np.ndarray) -> None:
    path = written(tmp_path / "data.csv", {"a": numbers[:, 0], "b": numbers[:, 1]})
    with pytest.raises(ValueError, match=r"horizon must be above 0 with task\.difference=true, got 0"):
        series(path, inputs="a", targets="b", horizon=0, difference=True)


def after(form: str, days: int = 30) -> list[str]:
    """`days` dates from 1 January 2020 on in a form of strftime."""
    first = dt.date(2020, 1, 1)
    return [(first + dt.timedelta(day)).strftime(form) for day in range(days)]


@pytest.mark.parametrize(
    ("columns", "third"),
    [
        ({"t": after("%m/%d/%Y")}, dt.date(2020, 1, 3)),
        ({"t": after("%d/%m/%Y")}, dt.date(2020, 1, 3)),
        ({"t": after("%d.%m.%Y")[:9]}, dt.date(2020, 1, 3)),  # month first would fit, too, but steps by months
        ({"t": after("%b %d %Y")}, dt.date(2020, 1, 3)),
        ({"t": after("%m/%d/%y")}, dt.date(2020, 1, 3)),
        ({"t": after("%d/%m/%y 07:30")}, dt.datetime(2020, 1, 3, 7, 30)),
        ({"t": after("%d-%b-%Y")}, dt.date(2020, 1, 3)),
        ({"t": after("%d-%b-%y")}, dt.date(2020, 1, 3)),
        ({"t": after("%m/%d/%Y 07:30 PM")}, dt.datetime(2020, 1, 3, 19, 30)),
        ({"t": [f"2021-W{week:02}" for week in range(1, 31)]}, dt.date(2021, 1, 18)),
        ({"t": [f"{day}.1.2020 7:05" for day in range(1, 31)]}, dt.datetime(2020, 1, 3, 7, 5)),
        ({"t": [f"{2000 + month // 12}-{1 + month % 12:02}" for month in range(30)]}, dt.date(2000, 3, 1)),
        ({"t": [f"{2000 + n // 4} Q{1 + n % 4}" for n in range(30)]}, dt.date(2000, 7, 1)),
        ({"t": [int(text) for text in after("%Y%m%d")]}, dt.date(2020, 1, 3)),
        ({"t": [1.6e9 + 60 * n + n % 7 / 8 for n in range(30)]}, 1.6e9 + 120.25),  # seconds since 1970, uneven
        ({"t": [1_600_000_000_000 + 1000 * n + n % 7 for n in range(30)]}, 1_600_000_002_002),
        ({"t": [f"{1 + n % 12}/1/{2000 + n // 12}" for n in range(30)]}, dt.date(2000, 3, 1)),
        ({"t": [f"1/{1 + n % 12}/{2000 + n // 12}" for n in range(30)]}, dt.date(2000, 3, 1)),
        (
            {"t": ["1/31/2020"] * 30, "of_day": [f"12:{row:02}:00" for row in range(30)]},
            dt.datetime(2020, 1, 31, 12, 2),
        ),
        ({"t": list(range(1990, 2020))}, 1992),
        ({"t": [float(year) for year in range(1990, 2020)]}, 1992),
    ],
)
def test_time_stamps_are_recognised(tmp_path: Path, columns: dict[str, Any], third: Any) -> None:
    """Dates in the forms of real files, and a column that numbers the rows, are the time and no inputs."""
    rows = len(columns["t"])
    path = written(tmp_path / "data.csv", {**columns, "a": [float(row % 4) for row in range(rows)]})
    task = series(path, batch_size=1)
    assert task.encoding["inputs"] == ["a"]
    assert task.encoding["targets"] == ["a"]
    found = task.tabulate(torch.zeros(7, 1, 1), "train", 0)
    assert found["t"][2] == third


def test_zones_are_written_in_utc(tmp_path: Path) -> None:
    """Those that Parquet keeps as those that CSV spells out; the clock is set back in between."""
    hours = [dt.datetime(2020, 10, 24, 22, tzinfo=dt.UTC) + dt.timedelta(hours=hour) for hour in range(40)]
    frame = pl.DataFrame({"t": hours, "a": [float(hour % 5) for hour in range(40)]})
    frame.with_columns(pl.col("t").dt.convert_time_zone("Europe/Berlin")).write_parquet(tmp_path / "data.parquet")
    frame.with_columns(pl.col("t").dt.to_string("%Y-%m-%dT%H:%M:%S+00:00")).write_csv(tmp_path / "data.csv")
    for name in ("data.parquet", "data.csv"):
        found = series(tmp_path / name, batch_size=1).tabulate(torch.zeros(7, 1, 1), "train", 0)
        assert found["t"] == hours[:7]
        assert str(found["t"][0].tzinfo) == "UTC"


def test_seconds_since_1970_must_ascend_in_another_file(tmp_path: Path) -> None:
    """A column that was time in training is not ignored in a file whose rows are not in order."""
    columns = {"t": [1.6e9 + 60 * n + n % 7 for n in range(40)], "a": [float(n % 5) for n in range(40)]}
    task = series(written(tmp_path / "data.csv", columns), batch_size=1)
    backwards = {name: values[::-1] for name, values in columns.items()}
    with pytest.raises(ValueError, match="time stamps in 't' must ascend, got an earlier one in row 2"):
        series(written(tmp_path / "other.csv", backwards), batch_size=1, encoding=task.encoding)
    without = series(written(tmp_path / "third.csv", {"a": columns["a"]}), batch_size=1, encoding=task.encoding)
    assert without.encoding["time"] is None


def test_infinite_numbers_in_parquet(tmp_path: Path) -> None:
    columns = {"a": [float("inf") if row == 3 else float(row % 4) for row in range(40)]}
    with pytest.raises(ValueError, match="column 'a' must hold finite numbers, got inf in row 4"):
        series(written(tmp_path / "data.parquet", columns))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            ("1,500", "12,000"),
            r"got '1,500' in row 1; write them as 1234\.5",
        ),  # commas between thousands, or decimal ones
        (("1,5", "1.5"), r"got '1,5' beside '1\.5'|got '1,5' in row 1; write them as"),
        (("1.000,5", "2.000,5"), r"got '1\.000,5' in row 1; write them as"),
        (("1 000", "2 000"), "got '1 000' in row 1; write them as"),
        (("5%", "6%"), "got '5%' in row 1; write them as"),
        (("1.5|", "2|"), r"got '1\.5\|' in row 1; write them as"),
        (("00:00", "34:30", "46:00"), "got '00:00' in row 1; write elapsed times as numbers, or begin codes"),
        (("-10:00", "-31:21"), "got '-10:00' in row 1; write elapsed times as numbers"),
        (("1 days 01:00:00", "2 days 01:00:00"), "got '1 days 01:00:00' in row 1; write elapsed times as numbers"),
        (("[2.5, 3]", "[1e-3 nan 4]", "[]"), r"got '\[2\.5, 3\]' in row 1; write a row for each of their numbers, or"),
        (("03-Mar-2024", "04-Mar-2024", "none known"), "got '03-Mar-2024' beside 'none known'; leave the fields"),
        (("$1.5", "$2"), r"got '\$1\.5' in row 1; write them as"),
        (("1.5 kg", "2.5 kg"), r"got '1\.5 kg' in row 1; write them as"),
        (("0.5", "2.5", "−1.5", "3"), "got '−1.5' in row 3; write them as"),
        (("−1", "−2"), "write them as"),
        (("1.5D+02", "2D+02"), "write them as"),
        (("0x1F", "0x20"), "write them as"),
        (("1", "2", "error"), "got '1' beside 'error'; leave the fields with 'error' empty"),
        (("1.5", "2", "\0\0"), "got '1.5' beside .*; leave the fields"),
        (("2024-05-31", "2024-06-01", "Total"), "got '2024-05-31' beside 'Total'; leave the fields"),
        (("2024/5/31 noon", "2024/6/1 noon"), "got '2024/5/31 noon' in row 1; write them as 2024-05-31 12:00:00"),
    ],
)
def test_numbers_and_dates_are_no_categories(tmp_path: Path, fields: Sequence[str], message: str) -> None:
    """Such a column would silently become a few categories, and no target."""
    path = tmp_path / "data.csv"
    rows = "".join(f"{row % 5};{fields[row % len(fields)]}\n" for row in range(60))
    path.write_text(f"a;b\n{rows}", encoding="utf-8")
    with pytest.raises(ValueError, match=f"column 'b' must be numbers, .*{message}.*leave_out=\\[b\\]"):
        series(path)


def test_codes_like_months_are_categories(tmp_path: Path) -> None:
    """Years and months alone would be time stamps. Intervals and footnotes are no lists."""
    path = tmp_path / "data.csv"
    codes = ["1001-02", "1001-13", "(0, 5]", "[5,10]", "[1]", "[1-2]", "[1, 2, 3]", "1:1 a", "May", "Mar 5"]
    path.write_text("a;b\n" + "".join(f"{row % 7};{codes[row % 10]}\n" for row in range(60)), encoding="utf-8")
    assert series(path).encoding["categories"] == {"b": sorted(codes)}


@pytest.mark.parametrize(
    ("sizes", "otherwise"), [((100, 200), False), ((120, 200), False), ((300, 60), True), ((200,), True)]
)
def test_a_shorter_series_is_divided_otherwise(tmp_path: Path, sizes: Sequence[int], otherwise: bool) -> None:
    """Its test part begins where the training part was. Earlier versions knew the number of all rows."""

    def log(sizes: Sequence[int]) -> str:
        rows = [f"{'ab'[number]},{row % 7}\n" for number, size in enumerate(sizes) for row in range(size)]
        (tmp_path / "data.csv").write_text("id,x\n" + "".join(rows), encoding="utf-8")
        return str(tmp_path / "data.csv")

    encoding = {**series(log((100, 200)), series="id").encoding, DIVIDED: True}
    assert series(log(sizes), series="id", encoding=encoding).divided_otherwise is otherwise
    encoding["rows"] = 300
    assert series(log(sizes), series="id", encoding=encoding).divided_otherwise is (sum(sizes) < 300)


def test_long_lists_that_are_none_take_no_time() -> None:
    """A pattern with two ways to read a number would take days."""
    texts = pl.Series("b", [f"[{', '.join(['1111'] * 40)}{end}" for end in (", 'x']", "", "] mV")])
    require_categories(texts, "leave it out")


def test_texts_after_the_training_part_alone(tmp_path: Path) -> None:
    """Such as late remarks: more categories would be no remedy."""
    path = tmp_path / "data.csv"
    path.write_text("a,b\n" + "".join(f"{row % 7},{'low' if row > 50 else ''}\n" for row in range(60)), "utf-8")
    message = r"column 'b' must have values in the training part, got none before 'low' in row 52; leave it out: task"
    with pytest.raises(ValueError, match=message):
        series(path)
    assert series(path, leave_out="b").encoding["inputs"] == ["a"]


def test_two_lines_of_names(tmp_path: Path) -> None:
    """As under a title, and in files of yfinance, whose fields would be left empty one after another."""
    path = tmp_path / "data.csv"
    path.write_text("Southern index,,\n,,\nmonth,low,high\n" + "".join(f"{row},2.5,3\n" for row in range(60)), "utf-8")
    with pytest.raises(ValueError, match="got '0' beside 'month'; keep one line of names if row 2 is another; else"):
        series(path)


@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_decimal_commas(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "data.csv"
    texts = [f"{'-' if row % 2 else ''}{row},{row % 10}5" if row % 7 else str(row) for row in range(60)]
    rows = "".join(f'{row % 5}{separator}"{text}"\n' for row, text in enumerate(texts))
    path.write_text(f"a{separator}b\n{rows}", encoding="utf-8")
    frame = read_table(path, Missing())
    assert frame["b"].to_list() == [float(text.replace(",", ".")) for text in texts]
    assert series(path).encoding["targets"] == ["a", "b"]


@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("late", [False, True])
def test_points_between_thousands_beside_decimal_commas(tmp_path: Path, separator: str, late: bool) -> None:
    """1.012 was 1.012 beside 993. late: the first one follows 1,500 rows without a point."""
    path = tmp_path / "data.csv"
    numbers = [*([993] * 1500 if late else []), *range(990, 1050)]
    german = [(f"{number:,}".replace(",", "."), f"{number / 8}".replace(".", ",")) for number in numbers]
    path.write_text(f"a{separator}b\n" + "".join(f'{a}{separator}"{b}"\n' for a, b in german), encoding="utf-8")
    message = r"got '1\.000' in row \d+; its point may be decimal or between thousands: write 1000 or 1\.0000"
    with pytest.raises(ValueError, match=f"column 'a' must be numbers, .*{message}"):
        series(path)
    spaced = "".join(f'{a}{separator}" {b} "\n' for a, b in german) + f'993{separator}"NA "\n'
    path.write_text(f"a{separator}b\n{spaced}", encoding="utf-8")
    with pytest.raises(ValueError, match=f"column 'a' must be numbers, .*{message}"):
        series(path)
    path.write_text(f"a{separator}b\n" + "".join(f'{a}{separator}"{b}"\n' for a, b in german), encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace("1.000", "1.0000"), encoding="utf-8")
    expected = [number if number < 1000 else number / 1000 for number in numbers]
    assert read_table(path, Missing())["a"].to_list() == expected


@pytest.mark.parametrize(
    ("separator", "fields", "expected"),
    [
        (";", ["993", "1.012"], None),
        (";", ["993", "1.012", "1.5"], [993, 1.012, 1.5]),
        (";", ["0.125", "1.012", "2"], [0.125, 1.012, 2]),
        (";", ["1.012", "1000000"], [1.012, 1e6]),  # thousands that are not parted
        ("\t", ["1.125", "1500"], [1.125, 1500]),
        ("|", ["1.125", "1e2"], [1.125, 100]),
        (";", ["234.840", "17.000"], [234.84, 17]),
        (",", ["993", "1.012"], [993, 1.012]),
    ],
)
def test_points_that_are_decimal(
    tmp_path: Path, separator: str, fields: list[str], expected: list[float] | None
) -> None:
    """Points with three places and numbers without beside them may part thousands, unless commas part columns."""
    path = tmp_path / "data.csv"
    path.write_text(f"a{separator}b\n" + "".join(f"{field}{separator}0\n" for field in fields))
    column = read_table(path, Missing())["a"]
    assert column.to_list() == (fields if expected is None else expected)


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_ends_of_lines(tmp_path: Path, end: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(end.join(["a,b", *(f"{row},{row / 2}" for row in range(60))]).encode())
    frame = read_table(path, Missing())
    assert frame.columns == ["a", "b"]
    assert frame["b"].to_list() == [row / 2 for row in range(60)]


def test_rows_of_separators_at_the_end(tmp_path: Path) -> None:
    """As spreadsheets leave them; between rows they are timesteps without values."""
    path = tmp_path / "data.csv"
    rows = [f"2024-01-{day:02};{day % 7},5" for day in range(1, 31)]
    path.write_text("\n".join(["when;x;;", *(f"{row};;" for row in rows), ";;;", ";;;", ""]), encoding="utf-8")
    frame = read_table(path, Missing())
    assert (frame.height, frame.columns, frame["x"].null_count()) == (30, ["when", "x"], 0)
    path.write_text("\n".join(["when;x", *rows[:9], ";", *rows[9:]]), encoding="utf-8")
    assert read_table(path, Missing()).height == 31
    with pytest.raises(
        ValueError, match="column 'when' must have a time stamp in every row, got none in row 10; remove"
    ):
        series(path)
    path.write_text("\n".join(["when;x", *rows, "NaN;NA", '"";-', ";", '" ";""']), encoding="utf-8")
    assert read_table(path, Missing()).height == 32  # a sensor that failed is predicted
    path.write_text("x;y\n;\n;\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a table with rows, .* it has a header alone"):
        read_table(path, Missing())


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=\t"])
def test_a_line_for_excel(tmp_path: Path, line: str) -> None:
    (tmp_path / "data.csv").write_text(f"{line}\na;b\n1;2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"whose first line names the columns, got .*; remove this line, which"):
        read_table(tmp_path / "data.csv", Missing())


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_blank_lines_are_no_rows(tmp_path: Path, end: str) -> None:
    """Between the rows and at the end; lines of separators alone are rows without values."""
    path = tmp_path / "data.csv"
    rows = [f'{row},{row % 7},"a{end}{end}b"' for row in range(40)]
    path.write_bytes(end.join([",x,c", "", *rows[:20], "", "  ", *rows[20:], "", ""]).encode())
    frame = read_table(path, Missing())
    assert frame["column_1"].to_list() == list(range(40))
    assert series(path, time="column_1").encoding["inputs"] == ["x", "c"]
    path.write_bytes(end.join(["", "", "n,x,c", *rows[:20], "", *rows[20:], "", ""]).encode())  # above the header
    assert read_table(path, Missing())["n"].to_list() == list(range(40))
    path.write_bytes(end.join([",x,c", "", *rows, ",,", "NA,NA,", "", *rows]).encode())
    assert read_table(path, Missing())["x"].is_null().to_numpy().nonzero()[0].tolist() == [40, 41]
    path.write_bytes(end.join(["x", *"0123", "", *"4567"]).encode())
    assert read_table(path, Missing())["x"].to_list() == [0, 1, 2, 3, None, 4, 5, 6, 7]
    path.write_bytes(end.join(["x,y", "1,2", "", f"1,{'y' * 200_000}"]).encode())
    assert read_table(path, Missing())["x"].to_list() == [1, 1]


@pytest.mark.parametrize("key", ["time", "series", "reset_at", "reset_after"])
@pytest.mark.parametrize("given", [["a", "b"], 3])
def test_a_column_is_named_by_one_text(tmp_path: Path, key: str, given: Any) -> None:
    path = written(tmp_path / "data.csv", {"a": [row % 7 for row in range(60)], "b": [row % 5 for row in range(60)]})
    with pytest.raises(ValueError, match=f"task.{key} must be the name of one column, got {re.escape(str(given))}"):
        series(path, **{key: given})


def test_codes_are_categories(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", {"a": [row % 7 for row in range(60)], "b": ["1A", "18-25", "3 rooms"] * 20})
    assert series(path).encoding["categories"] == {"b": ["18-25", "1A", "3 rooms"]}


def test_spaces_around_fields(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    rows = "".join(f"2024-05-{1 + row:02} , {row % 7}.5 , {'NA' if row == 3 else row % 5} ,\n" for row in range(30))
    path.write_text(f"t , a\u00a0x , b,\n{rows}", encoding="utf-8")
    task = series(path, batch_size=1)
    assert task.encoding["inputs"] == task.encoding["targets"] == ["a x", "b"]
    assert task.contents.endswith("by t")


@pytest.mark.parametrize("kind", [pl.Int8, pl.UInt8, pl.Int16, pl.UInt64, pl.Int128, pl.Float32, pl.Decimal])
def test_numbers_of_every_width(tmp_path: Path, kind: Any) -> None:
    columns = {"a": pl.Series([row * 7 % 5 for row in range(40)], dtype=kind)}
    assert series(written(tmp_path / "data.parquet", columns)).encoding["inputs"] == ["a"]


def test_integers_that_numpy_lacks(tmp_path: Path) -> None:
    path = written(tmp_path / "data.csv", {"a": [10**30 + row % 7 * 10**29 for row in range(60)]})
    assert series(path).statistics.mean[0] == pytest.approx(1.3e30, rel=0.1)


HEADERS = {  # of a table of two columns, the names that are read, or why they are not
    "a|b": ["a", "b"],
    "a | x,b | y": ["a | x", "b | y"],
    '"a; b","c; d"': ["a; b", "c; d"],
    '"a, b";"c, d, e"': ["a, b", "c, d, e"],
    "a,b,,,": ["a", "b"],
    "a,a": "different names, got 'a'; it is twice",
    "My station": "the lines have more fields than the first, which must name the columns",
    "a b": "columns are separated by comma, semicolon, tab or |, got '0.5 2'",
    "a,b °C": "it is not in UTF-8; convert it first: iconv",
}


@pytest.mark.parametrize("header", HEADERS)
def test_the_first_line_of_a_table(tmp_path: Path, header: str) -> None:
    separator = next(each for each in ('";"', ",", "|", " ") if each in header).strip('"')
    separator = "\t" if header == "My station" else separator
    ends = separator * (header.count(",") - 1) if header.endswith(",") else ""
    path = tmp_path / "data.csv"
    lines = [header, *(f"{row + 0.5}{separator}{(row * 7) % 5 + 2}{ends}" for row in range(40))]
    path.write_bytes("\n".join(lines).encode("latin-1" if "°" in header else "utf-8"))
    expected = HEADERS[header]
    if not isinstance(expected, str):
        assert series(str(path)).encoding["inputs"] == expected
    else:
        with pytest.raises(ValueError, match=re.escape(expected)):
            series(str(path))


def test_a_short_first_row_does_not_choose_the_separator(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    rows = [f"{row},5;{row},6;{row % 7},7;{row % 5},8" for row in range(40)]
    path.write_text("\n".join(["a, m;b;c;d", "1,5", *rows, ""]), encoding="utf-8")
    assert read_table(path, Missing()).columns == ["a, m", "b", "c", "d"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('"Hello, world {}"', "columns are separated by comma, semicolon, tab or |, got 'Hello, world 0'"),
        ("{},5 1,5", "the first, which must name the columns, parted by , ; tab or |"),
    ],
)
def test_fields_with_commas_and_spaces(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a b\n" + "".join(f"{row.format(number)}\n" for number in range(40)), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        series(str(path))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("header", "names"),
    [
        ('time,b,"b\nkW"', ["time", "b", "b kW"]),
        ('"time";a;"b\nof ""kW"""', ["time", "a", 'b of "kW"']),
        ('"the\n\ntime";"a, b";"b"', ["the time", "a, b", "b"]),
        ('time\t"a;\nb"\t"b\nkW"', ["time", "a; b", "b kW"]),
    ],
)
def test_line_breaks_in_names(tmp_path: Path, header: str, names: list[str], end: str) -> None:
    path = tmp_path / "data.csv"
    separator = next(each for each in "\t;," if each in re.sub('"[^"]*"', "", header))
    lines = [header, *(separator.join(map(str, (row, row % 7, row % 5))) for row in range(40))]
    path.write_bytes(end.join(lines).encode())
    frame = read_table(path, Missing())
    assert frame.columns == names
    assert frame.height == 40


ROWS_WITHOUT_NAMES = {  # first line and second line
    "1,0.5": "2,0.25",
    "1,1": "2,0.25",
    "2024-01-01,3": "2,0.25",
    "2024-01-01 00:00,-3e5": "2,0.25",
    "530": "518",
    "501,45": "499,44.5",
    "2024,12": "2021,10",
    "5.1,3.5,setosa": "4.9,3.0,virginica",
    "39, State-gov, 77516, Bachelors": "50, Self-emp, 83311, Bachelors",
    "2.5,,a": "3.5,4.5,b",
    ".511,-.905": "-.5,-.25",
    "0,511;1,5": "0,25;2,5",
    "NA,-0.396": "0.5,0.25",
    "-inf,NaN": "0.5,0.25",
    "0,17,1700000000": "1,18,1700000060",
    "100,110,121": "101,111.5,122",
    "5,7,3": "6,,2",
    "15,17,16": ",,",
    "7,8": "8,9",
    "5,6,7": "6,,8",
    "7,8,9,10": "8,9,,11",
}


@pytest.mark.parametrize("header", ROWS_WITHOUT_NAMES)
def test_a_table_without_names_is_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(f"{header}\n{ROWS_WITHOUT_NAMES[header]}\n", encoding="utf-8")
    message = f"whose first line names the columns, got .* it has {header!r} there; write a line of names above"
    with pytest.raises(ValueError, match=message):
        series(str(path))


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (",a", ["column_1", "a"]),
        ("Na,NA", ["Na", "NA"]),
        ("inf,sup", ["inf", "sup"]),
        ("0,inf", ["0", "inf"]),
        ("0,2t", ["0", "2t"]),
        ("00z,12z", ["00z", "12z"]),
        (",".join(map(str, range(400, 412))) + ",412.5", [*map(str, range(400, 412)), "412.5"]),
        ("kind,0,1", ["kind", "0", "1"]),
        ("0", ["0"]),
        ("1,2", ["1", "2"]),
        ("773869,767541", ["773869", "767541"]),
        ("7,8,9", ["7", "8", "9"]),
        ("10,20,50", ["10", "20", "50"]),
        ("2023,2024", ["2023", "2024"]),
        ("10,11,12,13", ["10", "11", "12", "13"]),
        ("t,0.5,1.5", ["t", "0.5", "1.5"]),
    ],
)
def test_names_that_are_numbers_or_missing(tmp_path: Path, header: str, names: list[str]) -> None:
    path = tmp_path / "data.csv"
    first = ["x" if name == "kind" else "0" for name in names]
    first = ["11", "", "15", "19"] if names[0] == "10" and len(names) == 4 else first
    path.write_text(f"{header}\n" + f"{','.join(first)}\n" * 3, encoding="utf-8")
    assert read_table(path, Missing()).columns == names


@pytest.mark.parametrize("difference", [False, True])
def test_streams_of_validation_and_test_are_warmed_up(tmp_path: Path, numbers: np.ndarray, difference: bool) -> None:
    """The rows before a stream come first, outside the mask and not in the table, which stays as it was."""
    np.save(tmp_path / "data.npy", numbers)
    cold, warm = (series(str(tmp_path / "data.npy"), warm_up=rows, difference=difference) for rows in (0, 4))
    assert torch.equal(cold.batch("train", 0).inputs, warm.batch("train", 0).inputs)
    early, late = warm.batch("test", 0), cold.batch("test", 0)
    assert early.mask is not None
    assert early.mask[:, 1].tolist() == [False] * 4 + [True] * 3
    torch.testing.assert_close(early.inputs[4:, 1], late.inputs[:3, 1])
    torch.testing.assert_close(early.targets[4:, 1], late.targets[:3, 1])
    before = torch.from_numpy(warm.statistics.apply(numbers[74:78])).float()
    torch.testing.assert_close(early.inputs[:4, 0], before)  # the test part begins at row 78
    assert table(warm) == table(cold)
    whole = series(str(tmp_path / "data.npy"), warm_up=500, batch_size=1, encoding=warm.encoding, length=200)
    assert whole.batch("test", 0).num_timesteps == ROWS, "nothing is before the first row"


@pytest.mark.parametrize("kind", [int, bool])
def test_episodes_stay_apart(tmp_path: Path, kind: Any) -> None:
    """No target and no carried value crosses the begin of an episode; the file is divided as a whole."""
    first = {10, 25, 60}
    columns = {
        "x": [row + 1000.0 * (row >= 25) for row in range(80)],
        "start": [kind(row in first) for row in range(80)],
    }
    columns["x"][25] = None
    task = series(written(tmp_path / "data.csv", columns), reset_at="start", fractions=(0.5, 0.25, 0.25), batch_size=1)
    assert task.encoding["inputs"] == ["x"]
    found = table(task)
    ends = {row - 1 for row in (10, 25, 40, 60, 80)}  # of episodes and of parts
    assert set(found) == {row + 1 for row in range(80) if row not in ends}
    for row in sorted(set(range(79)) - ends):
        assert found[row + 1]["x+1"] == pytest.approx(columns["x"][row + 1], abs=1e-3)
    begins = 0
    for index in range(task.num_batches("train")):
        reset = task.batch("train", index).reset
        assert reset is not None
        begins += int(reset.sum())
    assert begins == 3  # rows 0, 10 and 25
    columns["start"] = [kind(row + 1 in first or row == 79) for row in range(80)]
    done = series(
        written(tmp_path / "done.csv", columns), reset_after="start", fractions=(0.5, 0.25, 0.25), batch_size=1
    )
    assert table(done) == found, "marks in the last rows of episodes mean the same"
    (tmp_path / "data.csv").write_text("x,start\n" + "1,2\n2,0\n" * 30, encoding="utf-8")
    for key in ("reset_at", "reset_after"):
        with pytest.raises(ValueError, match=f"task.{key}: column 'start' must hold 0 and 1, or true and false"):
            series(str(tmp_path / "data.csv"), **{key: "start"})
    with pytest.raises(ValueError, match=r"at most one of task.series, task.reset_at and task.reset_after must be"):
        series(str(tmp_path / "data.csv"), reset_at="start", series="x")


@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize(("offset", "scale"), [(1e9, 10.0), (0.0, 1e-7), (36.0, 50.0), (-1e12, 1e9)])
def test_tables_keep_the_digits_that_matter(tmp_path: Path, difference: bool, offset: float, scale: float) -> None:
    """Targets equal those of the file to 1e-6 deviations, whatever they are added to."""
    values = np.round(offset + scale * np.sin(np.arange(80)), 12)
    path = written(tmp_path / "data.csv", {"a": values.tolist()})
    task = series(path, difference=difference, batch_size=1)
    batch = task.batch("test", 0)
    predictions = batch.targets[..., 0] + 0.5
    table = task.tabulate(predictions, "test", 0)
    rows, known = np.array(table["row"]), [value for value in table["a+1"] if value is not None]
    assert np.abs(values[rows[: len(known)]] - known).max() < 1e-6 * scale
    shifted = np.array(table["a+1 predicted"][: len(known)]) - known
    assert shifted == pytest.approx(shifted[0], abs=2e-6 * scale)
    assert shifted[0] > 0.1 * scale


def test_times_that_training_had_not_are_none_in_another_file(tmp_path: Path) -> None:
    """A date that training left out is not the time of the same file to predict, nor of one without the counter."""
    day = dt.date(2024, 1, 1)
    columns: dict[str, Any] = {"issued": [str(day + dt.timedelta(days=n // 2)) for n in range(40)]}
    columns |= {"v": [float(n % 5) for n in range(40)]}
    for name, more in (("counted", {"n": range(40)}), ("plain", {})):
        path = written(tmp_path / f"{name}.csv", columns | more)
        encoding = series(path, batch_size=1, leave_out="issued").encoding
        assert encoding["time"] == ("n" if more else None)
        assert series(path, batch_size=1, encoding=encoding).encoding["time"] == encoding["time"]
    words: dict[str, Any] = {"batch_size": 1, "leave_out": "issued", "encoding": {**encoding, "time": "n"}}
    assert series(path, **words).encoding["time"] is None
    renamed = {"at": [str(day + dt.timedelta(days=n)) for n in range(40)]}
    other = written(tmp_path / "renamed.csv", columns | renamed)
    assert series(other, **words).encoding["time"] == "at"


def test_episodes_are_part_of_the_data(tmp_path: Path) -> None:
    """Also if there is one only, which marks in a changed file make many."""
    columns = {"a": [float(n % 5) for n in range(40)], "s": [int(n == 0) for n in range(40)]}
    path = tmp_path / "data.csv"
    one = series(written(path, columns), batch_size=1, reset_at="s").identity
    many = series(written(path, {**columns, "s": [int(n % 10 == 0) for n in range(40)]}), batch_size=1, reset_at="s")
    assert not same_data(one, many.identity)
    assert not same_data(many.identity, one)


@pytest.mark.parametrize("missing", ["NA", "true"])
def test_booleans_with_spaces(tmp_path: Path, missing: str) -> None:
    """They are booleans whether or not another row has none."""
    rows = [f"{row}.5, {'false' if row % 2 else 'true'}" for row in range(40)]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["a,flag", *rows, f"1.5, {missing}"]) + "\n", encoding="utf-8")
    assert read_table(path, Missing()).schema["flag"] == pl.Boolean
