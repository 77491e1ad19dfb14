"""Forecasting and regression on the rows of a user's file.

Longer than 200 lines: one class, whose many options are documented and checked together.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from bptt.contracts import at_least, refusal, true_or_false
from bptt.shapes import Predictions
from bptt.tasks import tables
from bptt.tasks.base import (
    PREDICTED,
    SPLITS,
    Batch,
    Split,
    Task,
    checked_fractions,
    checksum,
    is_whole,
    known_squared_error,
    several,
)
from bptt.tasks.column_names import as_names, require_one_name, require_own_names
from bptt.tasks.files import named_path
from bptt.tasks.forward_fill import FilledRows
from bptt.tasks.metrics import MeanAbsolute, MeanSquared, Skill
from bptt.tasks.missing_values import Missing
from bptt.tasks.row_segments import any_shorter
from bptt.tasks.series_columns import roles, statistics, with_gaps
from bptt.tasks.series_file import read_series
from bptt.tasks.standardise import Standardisation, moments
from bptt.tasks.streams import Stretch, Window, batches_of, divide

BLOCK = 1 << 14  # rows at once in passes over the training part
WANTED = "a file of rows: .csv .tsv .parquet .npy .npz .wav .flac"


class Series(Task):
    """Prediction of some columns `horizon` rows later from the rows of a series up to t; one row is one timestep.

    path: CSV or Parquet, read into memory; .npy, WAV or FLAC, read on use, so they may be larger than memory; .npz.
    inputs, targets: names of columns; by default all other columns, and the inputs that are numbers. Columns of arrays
    and channels of sounds are called 0, 1, …. leave_out: columns that are not used.
    max_categories: different texts that a column of inputs may have; each text becomes an input that is 0 or 1.
    horizon: rows ahead, or several; 0 is regression on columns of the same row that are not among the inputs.
    time: column of time stamps, which must ascend; by default the first column of dates, else one that
    numbers the rows. It is no input, but with `calendar` the time of day, week and year are, as sin and cos.
    series: column that identifies several series. No state, target or carried value passes from one to another.
    reset_at, reset_after: column that is 1 or true in the first, or the last, row of each episode; it is no input. As
    with `series`, nothing passes from one episode to the next, but the whole file is divided by time.
    missing: numbers or texts that mean no value, such as −9999, beside empty fields, NaN and the like.
    missing_indicators: one more input for each column with missing values, 1 if the value is missing.
    difference: the model predicts the change from the last value known, standardised by the training part at each
    horizon, in place of the value; for series with a trend, whose later values lie outside those of training.
    standardise: inputs and targets to mean 0, deviation 1 over the training part; not columns of texts.
    warm_up: rows before each stream of validation and test, of the same series, that only advance the state, outside
    the mask; by default `length` − 1. Without them the state would be the initial one in the middle of a series.
    fractions: each series is divided by time into train, validation and test; targets stay in their own part.
    encoding: that of another task (`Task.encoding`) instead of this file's; see `is_whole` for the splits.

    Each part is divided into `batch_size` contiguous streams, the state carried from batch to batch; a stream may hold
    several series one after the other, with a reset between them. Missing inputs are carried forward; before the first
    value they are 0, the mean. Missing targets have no loss: they are NaN if others of the timestep are known, else the
    timestep is outside the mask.

    Targets (T, B, V, 2), V = targets × horizons, targets varying slowest: the value, and the forecast of persistence,
    the last value known; with `difference` the change, and that of persistence, 0 before it is standardised. Squared
    error summed over V. Metrics: `mse` and `mae` in the data's own units, mean over V; `skill` = 1 − SE/SE of
    persistence, of standardised values: 1 is perfect, 0 is no better than persistence.

    Raises ValueError for files, columns and time stamps that do not allow this.
    """

    missing_targets = True
    reads_parts = True

    def __init__(
        self,
        *,
        length: int,
        batch_size: int,
        path: str | None = None,
        inputs: str | Sequence[str] | None = None,
        targets: str | Sequence[str] | None = None,
        horizon: int | Sequence[int] = 1,
        leave_out: str | Sequence[str] | None = None,
        time: str | None = None,
        calendar: bool = False,
        series: str | None = None,
        reset_at: str | None = None,
        reset_after: str | None = None,
        missing: Any = None,
        missing_indicators: bool = False,
        max_categories: int = 32,
        difference: bool = False,
        standardise: bool = True,
        warm_up: int | None = None,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        encoding: Mapping[str, Any] | None = None,
    ):
        super().__init__(length=length, batch_size=batch_size)
        at_least(1, max_categories=max_categories)
        if warm_up is not None:
            at_least(0, warm_up=warm_up)
        require_one_name(time=time, series=series, reset_at=reset_at, reset_after=reset_after)
        self.series = series
        marks = {"series": series, "reset_at": reset_at, "reset_after": reset_after}
        if sum(name is not None for name in marks.values()) > 1:
            raise ValueError(
                f"at most one of task.series, task.reset_at and task.reset_after must be given, got {marks}"
            )
        self._in_episodes = reset_at is not None or reset_after is not None
        true_or_false(calendar=calendar, missing_indicators=missing_indicators, standardise=standardise)
        true_or_false(difference=difference)
        self.horizons = list(horizon) if isinstance(horizon, Sequence) else [horizon]
        horizons: dict[str, Any] = {f"horizon[{index}]": value for index, value in enumerate(self.horizons)}
        at_least(0, **horizons)
        if not self.horizons or len(set(self.horizons)) < len(self.horizons):
            raise ValueError(refusal("horizon", "a number of rows or several different ones", horizon))
        if difference and 0 in self.horizons:
            remedy = "at horizon 0 the last value of a target is not known"
            raise ValueError(refusal("horizon", "above 0 with task.difference=true", 0, remedy))
        self.path = named_path(path, WANTED)
        self._whole = is_whole(encoding)
        self._fractions = (0.0, 0.0, 1.0) if self._whole else tuple(checked_fractions(fractions))
        chosen = [as_names(f"task.{key}", each) for key, each in (("inputs", inputs), ("targets", targets))]
        left_out = as_names("task.leave_out", leave_out) or []
        if encoding:
            chosen = [list(encoding["inputs"]), list(encoding["targets"])]
        file = read_series(
            self.path,
            *chosen,
            left_out=left_out,
            time=time,
            series=series,
            reset_at=reset_at,
            reset_after=reset_after,
            missing=Missing(missing),
            calendar=calendar,
            train_fraction=self._fractions[0],
            encoding=encoding,
            max_categories=max_categories,
        )
        divided = [file.rows.num_rows] if self._in_episodes else [stop - start for start, stop in file.segments]
        self._training_rows = (encoding or {}).get("rows", divided)
        self.divided_otherwise = not self._whole and any_shorter(divided, self._training_rows)
        if encoding:
            tables.require_channels(file.names, tables.num_channels(encoding["names"]))
            tables.require_rate(file.rate, encoding.get("rate"))
        input_names, self.target_names = roles(file, *chosen, horizons=self.horizons, encoding=encoding)
        if 0 in self.horizons and set(input_names) & set(self.target_names):
            shared = sorted(set(input_names) & set(self.target_names))
            raise ValueError(refusal("horizon", "above 0 for targets that are inputs, too", 0, f"inputs has {shared}"))
        self._rows = FilledRows(file.rows, file.segments, file.names)
        self._file = file
        predicted = [f"{name}{PREDICTED}" for name in self.prediction_names]
        self._row_name = "row number" if "row" in (*file.labels, *self.prediction_names) else "row"
        require_own_names([self._row_name, *file.labels, *self.prediction_names, *predicted])
        self._inputs = [index for name in input_names for index in file.groups[name]]
        self._targets = [file.groups[name][0] for name in self.target_names]
        parts = self._parts(file.segments)
        used = sorted({*self._inputs, *self._targets})
        self.statistics = statistics(file, parts["train"], used, standardise=standardise, encoding=encoding)
        self._indicators = with_gaps(file, parts["train"], input_names) if missing_indicators else []
        if encoding:
            self._indicators = [file.groups[name][0] for name in encoding["indicators"]]
        self._level = self.statistics.columns(np.repeat(self._targets, len(self.horizons)).tolist())
        self._change = self._changes(parts["train"], encoding) if difference else None
        self.input_size = len(self._inputs) + len(self._indicators)
        self.output_size = len(self._targets) * len(self.horizons)
        lead = length - 1 if warm_up is None else warm_up  # by default the first batch has a loss
        self._batches = {split: self._layout(parts[split], 0 if split == "train" else lead) for split in SPLITS}
        in_file = {index: name for name, indices in file.groups.items() for index in indices}
        self._encoding = {
            "inputs": input_names,
            "targets": self.target_names,
            "categories": file.categories,
            "indicators": [in_file[index] for index in self._indicators],
            "names": file.names,
            "rows": self._training_rows,
            "time": next((name for name in file.labels if name != series), None),
            "time_form": file.time_form,
            "zoned": file.zoned,
            "rate": file.rate,
            **self.statistics.plain(),
            **({} if self._change is None else {"change": self._change.plain()}),
        }

    def _parts(self, segments: Sequence[tuple[int, int]]) -> dict[Split, list[Stretch]]:
        """Each split's rows of each series; rows without a target in the split only to predict another file."""
        parts: dict[Split, list[Stretch]] = {split: [] for split in SPLITS}
        for start, stop in segments:
            begin, end = (0, segments[-1][1]) if self._in_episodes else (start, stop)  # what is divided
            borders = [begin + round((end - begin) * sum(self._fractions[:index])) for index in range(4)]
            borders = [min(max(border, start), stop) for border in borders]
            for split, first, last in zip(SPLITS, borders, borders[1:]):
                end = last if self._whole else last - min(self.horizons)
                if end > first:
                    parts[split].append(Stretch(first, end, start, last))
        for split, share in zip(SPLITS, self._fractions):
            steps = sum(part.stop - part.start for part in parts[split])
            if share and steps < self.batch_size and not self._whole:
                raise ValueError(
                    f"the {split} part of {self.path} must have a row with a target for each of {self.batch_size} "
                    f"streams, got {steps} such rows; use a longer file, a smaller task.batch_size or other "
                    "task.fractions"
                )
            rows = max((part.limit - part.start for part in parts[split]), default=0)
            if share and rows <= max(self.horizons) and not self._whole:
                wanted = f"below {rows}, the number of rows in the longest series of the {split} part"
                raise ValueError(refusal("horizon", wanted, max(self.horizons)))
        return parts

    def _layout(self, parts: Sequence[Stretch], warm_up: int) -> list[list[list[Window]]]:
        """The windows of each stream in each batch, (number of batches, B); a stream without rows left has none."""
        pieces = [[piece.warmed_up(warm_up) for piece in stream] for stream in divide(parts, self.batch_size)]
        streams = [batches_of(stream, self.length) for stream in pieces]
        size = max(len(stream) for stream in streams)
        return [[stream[index] if index < len(stream) else [] for stream in streams] for index in range(size)]

    @cached_property
    def identity(self) -> str:
        rows, borders = self._file.rows, self._file.segments
        parts = f"; in {len(borders)} parts with the checksum {checksum(torch.tensor(borders))}"
        values = f"{rows.num_rows} rows of {rows.num_columns} columns with the checksum {rows.checksum()}"
        in_parts = len(borders) > 1 or self.series is not None or self._in_episodes
        return values + (parts if in_parts else "")

    @property
    def contents(self) -> str:
        rows = f"{self._file.rows.num_rows:,} rows"
        rows_by_label = " by ".join([rows, *self._file.labels])
        columns = f"{several(self._encoding['inputs'])} → {several(self.prediction_names)}"
        return f"{columns}; {rows_by_label}{self._file.hint}{self.unseen and f'; {self.unseen}'}"

    @property
    def unseen(self) -> str:
        return self._file.unseen

    @property
    def encoding(self) -> dict[str, Any]:
        return self._encoding

    def num_batches(self, split: Split) -> int:
        return len(self._batches[split])

    def batch(self, split: Split, index: int) -> Batch:
        if not self.num_batches(split):
            raise ValueError(f"the {split} part must have rows to be read, got none; use other task.fractions")
        index %= self.num_batches(split)
        streams = self._batches[split][index]
        size = max(windows[-1].timestep + windows[-1].stretch.size for windows in streams if windows)
        inputs = np.zeros((size, self.batch_size, self.input_size), dtype=np.float32)
        targets = np.full((size, self.batch_size, self.output_size, 2), np.nan)
        reset = torch.zeros(size, self.batch_size, dtype=torch.bool)
        for stream, windows in enumerate(streams):
            for stretch, place, begins in windows:
                own = slice(place, place + stretch.size)
                inputs[own, stream], targets[own, stream] = self._window(stretch)
                reset[place, stream] = begins
        mask = torch.from_numpy(~np.isnan(targets[..., 0]).all(-1))
        both = torch.from_numpy(targets).float()
        both = torch.where(mask[..., None, None], both, 0)
        # Kernels are faster without resets inside a batch, which only several series need.
        return Batch(torch.from_numpy(inputs), both, mask, reset if reset[1:].any() else reset[0])

    def _window(self, window: Stretch) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Inputs (T, D) and targets (T, V, 2) of one stream."""
        inputs, values, known = self._levels(window)
        if self._change is not None:
            values, known = self._change.apply(values - known), self._change.apply(np.zeros_like(known))
        targets = np.stack([values, known], axis=-1)
        targets[: max(0, window.due - window.start)] = np.nan
        return inputs, targets

    def _levels(self, window: Stretch) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
        """Inputs (T, D); standardised targets, NaN if missing, and the last values known, each (T, V)."""
        start, stop, origin, limit, _ = window
        first = max(origin, start - (0 in self.horizons))  # the row before is known to persistence at horizon 0
        last = min(limit, stop + max(self.horizons))
        values, observed = self._rows.read(first, max(last, stop))
        filled = self.statistics.apply(values)
        window_rows = slice(start - first, stop - first)
        indicators = ~observed[window_rows][:, self._indicators]
        inputs = np.concatenate([np.nan_to_num(filled[window_rows][:, self._inputs]), indicators], axis=1)
        with np.errstate(over="ignore"):  # infinite inputs are refused when they are trained on
            inputs = inputs.astype(np.float32)
        truth = np.where(observed, filled, np.nan)[:, self._targets]
        known = np.nan_to_num(filled[:, self._targets])
        targets = np.full((2, stop - start, len(self._targets), len(self.horizons)), np.nan)
        for index, horizon in enumerate(self.horizons):
            later = truth[start - first + horizon : min(stop + horizon, limit) - first]
            targets[0, : len(later), :, index] = later
            targets[1, :, :, index] = known[window_rows]
            if horizon == 0:
                earlier = known[: stop - 1 - first]
                targets[1, :, :, index] = 0.0
                targets[1, stop - start - len(earlier) :, :, index] = earlier
        return inputs, *targets.reshape(2, stop - start, -1)

    def _changes(self, parts: Sequence[Stretch], encoding: Mapping[str, Any] | None) -> Standardisation:
        """Mean and deviation, over the training part, of the changes from the last value known."""
        if encoding:
            return Standardisation(*(np.array(encoding["change"][key]) for key in ("mean", "deviation")))
        pieces = (
            Stretch(start, min(start + BLOCK, part.stop), part.origin, part.limit)
            for part in parts
            for start in range(part.start, part.stop, BLOCK)
        )
        levels = (self._levels(piece)[1:] for piece in pieces)
        _, mean, deviation = moments(values - known for values, known in levels)
        return Standardisation(mean, np.where(deviation <= 1e-10 * np.abs(mean), 1.0, deviation))

    def errors(self, predictions: Predictions, targets: Tensor) -> Tensor:
        return known_squared_error(predictions, targets[..., 0])

    def metrics(self) -> dict[str, Metric]:
        standardised = np.ones_like(self._level.deviation) if self._change is None else self._change.deviation
        own = torch.from_numpy(self._level.deviation * standardised).float()
        return {"mse": MeanSquared(own), "mae": MeanAbsolute(own), "skill": Skill(torch.from_numpy(standardised))}

    def denormalise(self, predictions: Predictions) -> Tensor:
        """Values in their own units; with `difference` changes of them."""
        own = predictions.double().cpu().numpy()
        if self._change is not None:
            return torch.from_numpy(self._change.undo(own) * self._level.deviation)
        return torch.from_numpy(self._level.undo(own))

    @property
    def prediction_names(self) -> list[str]:
        return [f"{name}+{horizon}" if horizon else name for name in self.target_names for horizon in self.horizons]

    def tabulate(self, predictions: Predictions, split: Split, index: int) -> dict[str, list[Any]]:
        """One row for each row of the file in the batch: its number, series and time; then predictions and targets.

        "OT+24" is the value of OT 24 rows later; a target that is missing is None.
        """
        batch = self.batch(split, index)
        predicted_values = self.denormalise(predictions)
        truth = self.denormalise(batch.targets[..., 0])
        assert batch.mask is not None
        truth = torch.where(batch.mask[..., None], truth, math.nan)
        labels = list(self._file.labels)
        first = labels[:1] if self.series is not None else []
        table: dict[str, list[Any]] = {name: [] for name in [*first, self._row_name, *labels[len(first) :]]}
        table |= {f"{name}{PREDICTED}": [] for name in self.prediction_names}
        table |= {name: [] for name in self.prediction_names}
        streams = self._batches[split][index % self.num_batches(split)]
        for stream, (stretch, start, _) in (
            (number, window) for number, windows in enumerate(streams) for window in windows
        ):
            rows = range(max(stretch.start, stretch.due), stretch.stop)
            steps = slice(start + stretch.size - len(rows), start + stretch.size)
            numbers = self._file.numbers
            last = torch.zeros(())
            if self._change is not None:
                last = torch.from_numpy(self._level.undo(self._levels(stretch)[2][stretch.size - len(rows) :]))
            both = ((each[steps, stream] + last).numpy() for each in (predicted_values, truth))
            predicted, values = map(self._level.rounded, both)
            table[self._row_name] += [row + 1 if numbers is None else int(numbers[row]) + 1 for row in rows]
            for name, labels in self._file.labels.items():
                table[name] += [labels[row] for row in rows]
            for column, name in enumerate(self.prediction_names):
                table[f"{name}{PREDICTED}"] += predicted[:, column].tolist()
                table[name] += [None if math.isnan(value) else value for value in values[:, column].tolist()]
        return table

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """A table with a category, a boolean, and gaps."""
        path = folder / "series.csv"
        if not path.exists():
            lines = ["time,load,wind,weather,holiday"]
            for row in range(200):
                load = "" if row % 17 == 5 else f"{math.sin(row / 5) + row % 7 / 9:.4f}"
                day, weather = f"2024-01-{1 + row // 24:02}T{row % 24:02}:00:00", ("sun", "rain", "")[row * row % 3]
                lines.append(f"{day},{load},{math.cos(row * row):.4f},{weather},{str(row % 5 == 0).lower()}")
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {"path": str(path), "horizon": [1, 3], "calendar": True, "missing_indicators": True}
