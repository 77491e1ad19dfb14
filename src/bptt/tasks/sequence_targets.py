"""Targets of labelled sequences: one class, several labels, or numbers. Their losses, metrics and table columns.

Longer than 200 lines: three kinds of targets with the same methods, which are read side by side.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from bptt.contracts import refusal
from bptt.shapes import Predictions
from bptt.tasks.base import PREDICTED, binary_cross_entropy, known_cells, known_squared_error
from bptt.tasks.column_names import require_own_names
from bptt.tasks.encoded_columns import encode
from bptt.tasks.identifiers import require_exact
from bptt.tasks.metrics import LabelAccuracy, LabelF1, MeanAbsolute, MeanSquared
from bptt.tasks.standardise import Standardisation, constant_within_rounding, moments, require_finite

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl

IGNORED = -100  # the default `ignore_index` of torch's cross-entropy
UNSCALED = Standardisation(np.zeros(1), np.ones(1))


class TargetRows(NamedTuple):
    """The columns of targets, one row for each of the N timesteps of all sequences.

    training: rows of training sequences. due: rows at which a prediction is due. encoding: of another task, whose
    classes and scale are used instead of those of the training rows.
    """

    frame: Any
    names: list[str]
    training: NDArray[np.bool_]
    due: NDArray[np.bool_]
    encoding: Mapping[str, Any] | None

    def present(self) -> NDArray[np.bool_]:
        """Rows with all targets."""
        present = np.ones(len(self.training), dtype=bool)
        for name in self.names:
            present &= self.column(name).is_not_null().to_numpy()
        return present

    def column(self, name: str) -> Any:
        """A column of the frame, whose missing values are all null."""
        own = self.frame[name]
        return own.fill_nan(None) if own.dtype.is_float() else own

    def numbers(self) -> NDArray[np.float64]:
        """The columns as numbers (N, V); NaN for missing ones."""
        remedies = dict.fromkeys(self.names, "name other targets, or one column of classes with task.kind=classes")
        return encode(self.frame, self.names, self.training, {}, remedies=remedies).values


class Targets(ABC):
    """Targets of one kind.

    values: (N,) class ids, or (N, V) with NaN for missing ones beside others. present: (N,), rows with a target.
    output_size: V. columns: of a table, those of predictions first. classes, weights, scale: kept in the encoding;
    empty, None and 1 unless the kind has them.
    """

    values: Tensor
    present: Tensor
    output_size: int
    columns: list[str]
    classes: Sequence[Any] = ()
    weights: Tensor | None = None
    scale: Standardisation = UNSCALED

    @property
    @abstractmethod
    def prediction_names(self) -> list[str]:
        """Names of the V predictions."""

    @abstractmethod
    def errors(self, predictions: Predictions, targets: Tensor) -> Tensor: ...

    @abstractmethod
    def metrics(self) -> dict[str, Metric]: ...

    @abstractmethod
    def denormalise(self, predictions: Predictions) -> Tensor:
        """Numbers in their own units, probabilities of classes or labels; in float64."""

    @abstractmethod
    def cells(self, prediction: Tensor, target: Tensor, *, known: bool) -> list[Any]:
        """One row of a table, in the order of `columns`, from a denormalised prediction; None for unknown targets."""


def as_labels(column: "pl.Series") -> "pl.Series":
    """Dates and times as texts, and Decimals as numbers: a checkpoint holds plain values alone."""
    import polars as pl

    if column.dtype.is_nested():
        raise ValueError(refusal(f"column {column.name!r}", "numbers or texts for classes", str(column.dtype)))
    if column.dtype == pl.Duration:
        return column.dt.to_string("iso")
    if column.dtype.is_temporal():
        return column.cast(pl.String)
    return column.cast(pl.Float64) if column.dtype.is_decimal() else column


class ClassTargets(Targets):
    """One of several classes, cross-entropy in nats. weights: a factor on the loss of each class, or `balanced`.

    The label −100 beside labels of 0 and above is a missing one, as in torch's cross-entropy.
    """

    def __init__(self, rows: TargetRows, weights: Literal["balanced"] | Sequence[float] | None):
        if len(rows.names) != 1:
            raise ValueError(refusal("task.targets", "one column for kind=classes", rows.names))
        (name,) = rows.names
        column, present = as_labels(rows.column(name)), rows.present()
        require_exact(column)
        if (
            column.dtype.is_float()
            and column.is_finite().fill_null(True).all()
            and (column.drop_nulls() == column.drop_nulls().round()).all()
        ):
            column = column.cast(int)
        known_classes = rows.encoding["classes"] if rows.encoding else [0]
        if all(isinstance(each, str) for each in known_classes):  # of a file that lacks the texts beside them
            column = as_written(column, list(map(str, known_classes)))
        negative = (
            {label for label in column.drop_nulls().unique() if label < 0} if column.dtype.is_integer() else set()
        )
        if negative == {IGNORED}:
            present &= column.ne_missing(IGNORED).to_numpy()
        labels = column.to_list()
        if rows.encoding:
            self.classes = list(rows.encoding["classes"])
        else:
            self.classes = sorted({label for label, known in zip(labels, rows.training & present) if known})
            if len(self.classes) < 2:
                raise ValueError(refusal("task.targets", "a column with 2 classes in the training part", self.classes))
        ids = {label: number for number, label in enumerate(self.classes)}
        for label, known in zip(labels, present):
            if known and label not in ids:
                remedy = "leave out such sequences, or their labels: an empty field, a file in no subfolder"
                if not rows.encoding:
                    remedy = "use a larger part for training, or leave such sequences out"
                if isinstance(label, float):
                    remedy += "; measured numbers are task.kind=numbers"
                raise ValueError(f"labels must be among those of the training part, got {label!r}; {remedy}")
        self.values = torch.tensor([ids.get(label, 0) for label in labels], dtype=torch.int64)
        self.present = torch.from_numpy(present)
        self.output_size = len(self.classes)
        self.columns = [f"{name}{PREDICTED}", f"{name} probability", name]
        known = torch.from_numpy(rows.training & rows.due) & self.present
        self.weights = self._weights(weights, known, rows.encoding or {})

    def _weights(self, given: Any, known: Tensor, encoding: Mapping[str, Any]) -> Tensor | None:
        if given is None:
            return None
        if given == "balanced" and "class_weights" in encoding:  # those of the training part, which another file lacks
            return torch.tensor(encoding["class_weights"], dtype=torch.float32)
        if given == "balanced":
            if not self.present.any():  # nothing to score
                return None
            if not known.any():
                remedy = "the checkpoint is of an earlier version, which did not keep them; use the run's own data"
                raise ValueError(refusal("class_weights", "those of the training part", given, remedy))
            counts = torch.bincount(self.values[known], minlength=self.output_size)
            return counts.sum() / (self.output_size * counts.clamp(min=1)).float()
        fits = isinstance(given, Sequence) and all(isinstance(each, int | float) and each >= 0 for each in given)
        if not fits or isinstance(given, str) or len(given) != self.output_size or not any(given):
            wanted = f"balanced, or a list of {self.output_size} factors, not all 0, for the classes {self.classes}"
            raise ValueError(refusal("class_weights", wanted, given))
        return torch.tensor(given, dtype=torch.float32)

    @property
    def prediction_names(self) -> list[str]:
        return [str(each) for each in self.classes]

    def errors(self, predictions: Predictions, targets: Tensor) -> Tensor:
        flat = nn.functional.cross_entropy(predictions.flatten(0, 1), targets.flatten(), reduction="none")
        errors = flat.view(targets.shape)
        return errors if self.weights is None else errors * self.weights.to(errors)[targets]

    def metrics(self) -> dict[str, Metric]:
        return {
            "accuracy": MulticlassAccuracy(self.output_size, average="micro"),
            "f1": MulticlassF1Score(self.output_size, average="macro"),
        }

    def denormalise(self, predictions: Predictions) -> Tensor:
        return predictions.double().cpu().softmax(-1)

    def cells(self, prediction: Tensor, target: Tensor, *, known: bool) -> list[Any]:
        probability, best = prediction.max(0)
        return [self.classes[int(best)], float(probability), self.classes[int(target)] if known else None]


def as_written(column: "pl.Series", classes: Sequence[str]) -> "pl.Series":
    """Numbers as the classes that are written so: 1 as "1", or as "1.0" or "01" if there is no "1".

    True as "true", or as "True" or "TRUE" if there is no "true". Others as they are.
    """
    import polars as pl

    if column.dtype == pl.Boolean:
        spelling = {text.lower(): text for text in sorted(classes)}
        return column.cast(pl.String).replace(spelling)
    if not column.dtype.is_numeric():
        return column
    numbers = pl.Series(classes, dtype=pl.String).cast(pl.Float64, strict=False)
    written = {number: text for number, text in zip(numbers, classes) if number is not None}
    exact = {text: text for text in classes}
    texts = [None if each is None else exact.get(str(each), written.get(each, str(each))) for each in column]
    return pl.Series(column.name, texts, dtype=pl.String)


class LabelTargets(Targets):
    """Several labels, each 0 or 1; binary cross-entropy in nats, summed over those that are known."""

    def __init__(self, rows: TargetRows):
        values = rows.numbers()
        present: NDArray[np.bool_] = np.any(~np.isnan(values), axis=1)
        strange = ~np.isnan(values) & ~np.isin(values, (0, 1))
        if strange.any():
            wrong = values[strange][0]
            raise ValueError(refusal("task.targets", "columns of 0 and 1 for kind=labels", float(wrong)))
        trained = np.any(~np.isnan(values[rows.training & rows.due]), axis=0)
        if not rows.encoding and not trained.all():
            name = rows.names[int(np.argmin(trained))]
            raise ValueError(f"target {name!r} must have a value in the training part, got none")
        self.names, self.output_size = rows.names, values.shape[1]
        self.values, self.present = filled(values, present), torch.from_numpy(present)
        self.columns = [*(f"{name} probability" for name in rows.names), *rows.names]
        require_own_names(self.columns)

    @property
    def prediction_names(self) -> list[str]:
        return [str(name) for name in self.names]

    def errors(self, predictions: Predictions, targets: Tensor) -> Tensor:
        return binary_cross_entropy(predictions, targets)

    def metrics(self) -> dict[str, Metric]:
        return {"accuracy": LabelAccuracy(), "f1": LabelF1()}

    def denormalise(self, predictions: Predictions) -> Tensor:
        return predictions.double().cpu().sigmoid()

    def cells(self, prediction: Tensor, target: Tensor, *, known: bool) -> list[Any]:
        return [*prediction.tolist(), *known_cells(target.tolist() if known else [math.nan] * len(self.names))]


class NumberTargets(Targets):
    """Standardised numbers, squared error summed over those that are known; metrics in the data's own units."""

    def __init__(self, rows: TargetRows):
        values = rows.numbers()
        present: NDArray[np.bool_] = np.any(~np.isnan(values), axis=1)
        self.names, self.output_size = rows.names, values.shape[1]
        self.scale = self._scale(rows, values[rows.training & present & rows.due])
        self.values, self.present = filled(self.scale.apply(values), present), torch.from_numpy(present)
        self.columns = [*(f"{name}{PREDICTED}" for name in rows.names), *rows.names]
        require_own_names(self.columns)

    def _scale(self, rows: TargetRows, values: NDArray[np.float64]) -> Standardisation:
        """Mean and deviation of the targets that are due: a sequence's target counts once, not once a timestep."""
        if rows.encoding:
            scale = rows.encoding["target_scale"]
            return Standardisation(np.array(scale["mean"]), np.array(scale["deviation"]))
        count, mean, deviation = moments([values])
        require_finite(rows.names, deviation)
        for name, number, middle, spread in zip(rows.names, count, mean, deviation):
            if not number or constant_within_rounding(middle, spread):
                got = f"{number:g} values of {middle:g} ± {spread:g}"
                raise ValueError(f"target {name!r} must vary in the training part by more than rounding, got {got}")
        return Standardisation(mean, deviation)

    @property
    def prediction_names(self) -> list[str]:
        return [str(name) for name in self.names]

    def errors(self, predictions: Predictions, targets: Tensor) -> Tensor:
        return known_squared_error(predictions, targets)

    def metrics(self) -> dict[str, Metric]:
        scale = torch.from_numpy(self.scale.deviation).float()
        return {"mse": MeanSquared(scale), "mae": MeanAbsolute(scale)}

    def denormalise(self, predictions: Predictions) -> Tensor:
        return torch.from_numpy(self.scale.undo(predictions.double().cpu().numpy()))

    def cells(self, prediction: Tensor, target: Tensor, *, known: bool) -> list[Any]:
        truth = self.scale.undo(target.double().numpy())
        predicted, true = self.scale.rounded(np.stack([prediction.numpy(), truth])).tolist()
        return [*predicted, *known_cells(true if known else [math.nan] * len(self.names))]


def filled(values: NDArray[np.float64], present: NDArray[np.bool_]) -> Tensor:
    """The values, 0 in rows without a target."""
    return torch.from_numpy(np.where(present[:, None], values, 0).astype(np.float32))
