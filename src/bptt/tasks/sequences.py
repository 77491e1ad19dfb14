"""Classification, labelling and regression of a user's sequences, which may have different lengths."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from bptt.contracts import at_least, one_of, refusal, true_or_false
from bptt.shapes import Predictions
from bptt.tasks import tables
from bptt.tasks.base import SPLITS, Batch, Split, Task, binary_cross_entropy, checked_fractions, checksum, squared_error
from bptt.tasks.buckets import bucketed
from bptt.tasks.files import named_path
from bptt.tasks.metrics import LabelAccuracy, LabelF1, MeanAbsolute, MeanSquared
from bptt.tasks.rows import carried_forward
from bptt.tasks.sequence_file import WANTED, LongTable, read_sequences
from bptt.tasks.standardise import Standardisation, moments
from bptt.tasks.synthetic import generator

Kind = Literal["classes", "labels", "numbers"]


class Sequences(Task):
    """For each sequence, at its end, or for each of its timesteps: a class, several labels, or numbers.

    path: .npz; Parquet with list columns; a long table with the column `sequence`; a folder with a file for each
    sequence, in folders named by their labels. `bptt.tasks.sequence_file` says how each is read, into memory.
    inputs, targets: names of columns; by default all that are left, and `y` of an .npz file or a folder's names.
    leave_out: columns that are neither.
    kind: `classes`, cross-entropy in nats; `labels`, each 0 or 1, binary cross-entropy in nats, summed over V;
    `numbers`, standardised, squared error summed over V.
    every_step: targets belong to timesteps; otherwise to the sequence, and are due at its last timestep.
    class_weights: a factor on the loss of each class, in the order of `classes`; `balanced` is inverse to their
    number in the training part, so that it is 1 on average.
    standardise: inputs to mean 0, deviation 1 over the training part; columns that are constant there become 0.
    split: a column that says train, validation or test; otherwise the sequences are divided by `fractions`, in an order
    drawn from `split_seed`.
    seed: for the order of the training sequences, drawn again in every epoch.
    encoding: that of another task (`Task.encoding`); then all sequences are the test split, and targets may be absent.

    A batch holds sequences of about the same length, padded with 0 after their ends, outside the mask. Missing inputs
    are carried forward within the sequence, 0 before the first value; missing targets have no loss.

    Metrics: accuracy and f1 (macro over classes; of all labels together); or mse and mae in the data's own units, mean
    over V.

    Raises ValueError for files and columns that do not allow this, and for labels that are not in the training part.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        seed: int = 0,
        path: str | None = None,
        sequence: str | None = None,
        inputs: str | Sequence[str] | None = None,
        targets: str | Sequence[str] | None = None,
        leave_out: str | Sequence[str] | None = None,
        kind: Kind = "classes",
        every_step: bool = False,
        class_weights: Literal["balanced"] | Sequence[float] | None = None,
        standardise: bool = True,
        split: str | None = None,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        encoding: Mapping[str, Any] | None = None,
    ):
        at_least(0, seed=seed, split_seed=split_seed)
        at_least(1, batch_size=batch_size)
        one_of(("classes", "labels", "numbers"), kind=kind)
        true_or_false(every_step=every_step, standardise=standardise)
        self.path, self.kind, self.seed = named_path(path, WANTED), kind, seed
        target_names = tables.as_names("task.targets", targets)
        table = read_sequences(self.path, sequence=sequence, targets=target_names, every_step=every_step, split=split)
        self.every_step = table.every_step
        frame, self.offsets, self.ids = in_order(table)
        self.lengths = np.diff(self.offsets)
        super().__init__(length=int(self.lengths.max()), batch_size=batch_size)
        given = None if encoding else split_column(frame, table, self.offsets)
        share = (0.0, 0.0, 1.0) if encoding else checked_fractions(fractions)
        self._members = divided(len(self.lengths), share, split_seed) if given is None else given
        self._check_parts(share if given is None else (1.0, 0.0, 0.0), encoding is not None)
        training = np.repeat(np.isin(np.arange(len(self.lengths)), self._members["train"]), self.lengths)

        left_out = tables.as_names("task.leave_out", leave_out) or []
        tables.require_columns(frame.columns, left_out, key="task.leave_out")
        names = tables.as_names("task.inputs", inputs)
        if encoding:
            names = list(encoding["inputs"])
        reserved = {table.sequence, table.split, *table.targets, *left_out, *tables.temporal(frame)}
        names = [name for name in frame.columns if name not in reserved] if names is None else names
        tables.require_columns(frame.columns, names, key="task.inputs")
        if not names:
            raise ValueError(refusal("task.inputs", "columns beside targets and sequence", names))
        features = tables.encode(frame, names, training, encoding["categories"] if encoding else None)
        self.statistics = self._statistics(features, training, standardise, encoding)
        filled = [carried_forward(each, np.full(each.shape[1], np.nan)).values for each in self._apart(features.values)]
        inputs32 = np.nan_to_num(self.statistics.apply(np.concatenate(filled))).astype(np.float32)
        self._inputs = torch.from_numpy(inputs32)
        self.input_size = self._inputs.shape[1]
        self.target_names, self.classes = table.targets, list(encoding["classes"]) if encoding else []
        self._set_targets(frame, training, encoding)
        self.class_weights = self._weights(class_weights, training)
        self._order: tuple[int, Tensor] = (-1, torch.zeros(0))
        self._encoding = {
            "inputs": names,
            "categories": features.categories,
            "classes": self.classes,
            "target_scale": self.target_scale.plain(),
            **self.statistics.plain(),
        }

    def _check_parts(self, shares: Sequence[float], predicting: bool) -> None:
        for part, share in zip(SPLITS, shares):
            number, least = len(self._members[part]), self.batch_size if part == "train" else 1
            if share and number < least and not predicting:
                raise ValueError(
                    f"the {part} part of {self.path} must have {least} sequences or more, got {number} of "
                    f"{len(self.lengths)}; use a smaller task.batch_size or other task.fractions"
                )

    def _apart(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """The values of each sequence."""
        return np.split(values, self.offsets[1:-1])

    def _statistics(
        self,
        features: tables.EncodedColumns,
        training: NDArray[np.bool_],
        standardise: bool,
        encoding: Mapping[str, Any] | None,
    ) -> Standardisation:
        if encoding:
            return Standardisation(np.array(encoding["mean"]), np.array(encoding["deviation"]))
        count, mean, deviation = moments([features.values[training]])
        for name, indices in features.groups.items():
            if not count[indices].all():
                remedy = f"leave it out: task.leave_out=[{name}]"
                raise ValueError(f"column {name!r} must have values in the training part, got none; {remedy}")
            if name in features.categories or not standardise:
                mean[indices], deviation[indices] = 0.0, 1.0
        constant = deviation <= 1e-10 * np.abs(mean)
        return Standardisation(mean, np.where(constant, 1.0, deviation))

    def _set_targets(self, frame: Any, training: NDArray[np.bool_], encoding: Mapping[str, Any] | None) -> None:
        """Targets of every timestep, (N,) class ids or (N, V), with those that are present."""
        present = np.ones(len(training), dtype=bool)
        for name in self.target_names:
            present &= frame[name].is_not_null().to_numpy()
        if not self.every_step:
            for name in self.target_names:
                self._constant_within(frame[name])
        self.target_scale = Standardisation(np.zeros(1), np.ones(1))
        if self.kind == "classes":
            self._targets = self._class_ids(frame, training, present, encoding)
            self.output_size = len(self.classes)
        else:
            values = tables.encode(frame, self.target_names, training, {}).values
            self.output_size = values.shape[1]
            present &= ~np.isnan(values).any(1)
            if self.kind == "labels" and not np.isin(values[present], (0, 1)).all():
                wrong = values[present][~np.isin(values[present], (0, 1))][0]
                raise ValueError(refusal("task.targets", "columns of 0 and 1 for kind=labels", float(wrong)))
            if self.kind == "numbers":
                self.target_scale = self._target_scale(values, training & present, encoding)
                values = self.target_scale.apply(values)
            self._targets = torch.from_numpy(np.where(present[:, None], values, 0).astype(np.float32))
        self._present = torch.from_numpy(present)

    def _constant_within(self, column: Any) -> None:
        """Raise ValueError if a sequence has several targets."""
        changes = (column.ne_missing(column.shift(1))).to_numpy()
        changes[self.offsets[:-1]] = False
        if changes.any():
            place = int(np.searchsorted(self.offsets, int(np.argmax(changes)), side="right")) - 1
            raise ValueError(
                f"column {column.name!r} must have one value in each sequence, got several in {self.ids[place]!r}; "
                "for targets of timesteps set task.every_step=true"
            )

    def _class_ids(
        self, frame: Any, training: NDArray[np.bool_], present: NDArray[np.bool_], encoding: Mapping[str, Any] | None
    ) -> Tensor:
        if len(self.target_names) != 1:
            raise ValueError(refusal("task.targets", "one column for kind=classes", self.target_names))
        column = frame[self.target_names[0]]
        if column.dtype.is_float() and (column.drop_nulls() == column.drop_nulls().round()).all():
            column = column.cast(int)
        labels = column.to_list()
        if not encoding:
            self.classes = sorted({label for label, known in zip(labels, training & present) if known})
            if len(self.classes) < 2:
                raise ValueError(refusal("task.targets", "a column with 2 classes in the training part", self.classes))
        ids = {label: number for number, label in enumerate(self.classes)}
        for label, known in zip(labels, present):
            if known and label not in ids:
                raise ValueError(
                    f"labels must be among those of the training part, got {label!r}; use a larger part for training, "
                    "or leave such sequences out"
                )
        return torch.tensor([ids.get(label, 0) for label in labels], dtype=torch.int64)

    def _target_scale(
        self, values: NDArray[np.float64], known: NDArray[np.bool_], encoding: Mapping[str, Any] | None
    ) -> Standardisation:
        if encoding:
            scale = encoding["target_scale"]
            return Standardisation(np.array(scale["mean"]), np.array(scale["deviation"]))
        # A sequence's target counts once, not once a timestep.
        count, mean, deviation = moments([values[known & self._due()]])
        for name, number, middle, spread in zip(self.target_names, count, mean, deviation):
            if not number or spread <= 1e-10 * abs(middle):
                raise ValueError(f"target {name!r} must vary in the training part, got {number:g} equal values")
        return Standardisation(mean, deviation)

    def _due(self) -> NDArray[np.bool_]:
        """Timesteps (N,) at which a prediction is asked for."""
        due = np.full(int(self.offsets[-1]), self.every_step)
        due[self.offsets[1:] - 1] = True
        return due

    def _weights(self, given: Any, training: NDArray[np.bool_]) -> Tensor | None:
        if given is None:
            return None
        if self.kind != "classes":
            raise ValueError(refusal("class_weights", "null unless kind=classes", given))
        if given == "balanced":
            known = torch.from_numpy(training & self._due()) & self._present
            counts = torch.bincount(self._targets[known], minlength=self.output_size)
            return counts.sum() / (self.output_size * counts.clamp(min=1)).float()
        fits = isinstance(given, Sequence) and all(isinstance(each, int | float) and each >= 0 for each in given)
        if not fits or isinstance(given, str) or len(given) != self.output_size:
            wanted = f"balanced, or a list of {self.output_size} factors for the classes {self.classes}"
            raise ValueError(refusal("class_weights", wanted, given))
        return torch.tensor(given, dtype=torch.float32)

    @cached_property
    def identity(self) -> str:
        return f"{len(self.lengths)} sequences with the checksum {checksum(self._inputs, self._targets)}"

    @property
    def encoding(self) -> dict[str, Any]:
        return self._encoding

    def num_batches(self, split: Split) -> int:
        number = len(self._members[split])
        return number // self.batch_size if split == "train" else math.ceil(number / self.batch_size)

    def _chosen(self, split: Split, index: int) -> Tensor:
        """The sequences of a batch, (B,); −1 where there is none."""
        epoch, place = divmod(index, self.num_batches(split))
        members = torch.from_numpy(self._members[split])
        lengths = torch.from_numpy(self.lengths)[members]
        if split != "train":
            rows = bucketed(lengths, self.batch_size, None)[place]
        else:
            if self._order[0] != epoch:
                self._order = epoch, bucketed(lengths, self.batch_size, generator(self.seed, split, epoch))
            rows = self._order[1][place]
        return torch.where(rows < 0, rows, members[rows])

    def batch(self, split: Split, index: int) -> Batch:
        if not self.num_batches(split):
            raise ValueError(f"the {split} part must have sequences to be read, got none; use other task.fractions")
        chosen = self._chosen(split, index).tolist()
        length = int(max(self.lengths[number] for number in chosen if number >= 0))
        inputs = torch.zeros(length, self.batch_size, self.input_size)
        targets = self._targets.new_zeros(length, self.batch_size, *self._targets.shape[1:])
        mask = torch.zeros(length, self.batch_size, dtype=torch.bool)
        for place, number in enumerate(chosen):
            if number < 0:
                continue
            own, size = slice(self.offsets[number], self.offsets[number + 1]), int(self.lengths[number])
            inputs[:size, place], targets[:size, place] = self._inputs[own], self._targets[own]
            mask[0 if self.every_step else size - 1 : size, place] = True
            mask[:size, place] &= self._present[own]
        return Batch(inputs, targets, mask)

    def errors(self, predictions: Predictions, targets: Tensor) -> Tensor:
        if self.kind == "numbers":
            return squared_error(predictions, targets)
        if self.kind == "labels":
            return binary_cross_entropy(predictions, targets)
        flat = nn.functional.cross_entropy(predictions.flatten(0, 1), targets.flatten(), reduction="none")
        errors = flat.view(targets.shape)
        if self.class_weights is None:
            return errors
        return errors * self.class_weights.to(errors)[targets]

    def metrics(self) -> dict[str, Metric]:
        if self.kind == "numbers":
            scale = torch.from_numpy(self.target_scale.deviation).float()
            return {"mse": MeanSquared(scale), "mae": MeanAbsolute(scale)}
        if self.kind == "labels":
            return {"accuracy": LabelAccuracy(), "f1": LabelF1()}
        return {
            "accuracy": MulticlassAccuracy(self.output_size, average="micro"),
            "f1": MulticlassF1Score(self.output_size, average="macro"),
        }

    def denormalise(self, predictions: Predictions) -> Tensor:
        """Numbers in their own units, probabilities of classes or labels."""
        own = predictions.double().cpu()
        if self.kind == "numbers":
            return torch.from_numpy(self.target_scale.undo(own.numpy()))
        return own.softmax(-1) if self.kind == "classes" else own.sigmoid()

    @property
    def prediction_names(self) -> list[str]:
        return [str(name) for name in (self.classes if self.kind == "classes" else self.target_names)]

    def tabulate(self, predictions: Predictions, split: Split, index: int) -> dict[str, list[Any]]:
        """One row for each prediction that is due: its sequence, and timestep from 0; then predictions and targets.

        For classes the most probable one and its probability; for labels the probability of each.
        """
        batch, own = self.batch(split, index), self.denormalise(predictions)
        assert batch.mask is not None
        names = self.target_names
        found: dict[str, list[Any]] = {"sequence": []} | ({"timestep": []} if self.every_step else {})
        word = "probability" if self.kind == "labels" else "predicted"
        found |= {f"{name} {word}": [] for name in names}
        found |= {f"{names[0]} probability": []} if self.kind == "classes" else {}
        found |= {name: [] for name in names}
        truth = self.target_scale.undo(batch.targets.double().numpy()) if self.kind == "numbers" else batch.targets
        for place, number in enumerate(self._chosen(split, index).tolist()):
            last = int(self.lengths[number]) - 1
            for step in range(0 if self.every_step else last, last + 1) if number >= 0 else ():
                known = bool(batch.mask[step, place])
                found["sequence"].append(self.ids[number])
                if self.every_step:
                    found["timestep"].append(step)
                if self.kind == "classes":
                    probability, best = own[step, place].max(0)
                    found[f"{names[0]} predicted"].append(self.classes[int(best)])
                    found[f"{names[0]} probability"].append(float(probability))
                    found[names[0]].append(self.classes[int(truth[step, place])] if known else None)
                    continue
                for at, name in enumerate(names):
                    found[f"{name} {word}"].append(float(own[step, place, at]))
                    found[name].append(float(truth[step, place, at]) if known else None)
        return found

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """A long table of sequences of 3 to 9 timesteps."""
        path = folder / "sequences.csv"
        if not path.exists():
            lines = ["id,a,b,class"]
            for number in range(60):
                size, name = 3 + number * number % 7, "xyz"[number % 3]
                lines += [f"s{number},{math.sin(number * step):.4f},{number % 3 + step},{name}" for step in range(size)]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {"path": str(path), "sequence": "id", "targets": "class"}


def in_order(table: LongTable) -> tuple[Any, NDArray[np.int64], list[Any]]:
    """The rows with each sequence together, in the order in which sequences appear; offsets (S + 1,); names."""
    column = table.frame[table.sequence]
    if column.null_count():
        row = 1 + int(column.is_null().arg_max() or 0)
        raise ValueError(f"column {table.sequence!r} must name a sequence in every row, got none in row {row}")
    appearance: dict[Any, int] = {}
    numbers = np.array([appearance.setdefault(name, len(appearance)) for name in column.to_list()])
    order = np.argsort(numbers, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(numbers))])
    return table.frame[order], offsets, list(appearance)


def split_column(frame: Any, table: LongTable, offsets: NDArray[np.int64]) -> dict[Split, NDArray[np.int64]] | None:
    """Sequences by split, from the column that says so."""
    if table.split is None:
        return None
    words = frame[table.split].to_list()
    first = [str(words[offset]) for offset in offsets[:-1]]
    for word in first:
        if word not in SPLITS:
            raise ValueError(refusal(f"column {table.split!r}", "train, validation or test", word))
    return {split: np.flatnonzero([word == split for word in first]) for split in SPLITS}


def divided(number: int, shares: Sequence[float], seed: int) -> dict[Split, NDArray[np.int64]]:
    """Sequences by split, drawn from the seed in these shares."""
    order = torch.randperm(number, generator=generator(seed, "split")).numpy()
    borders = [round(number * sum(shares[:index])) for index in range(4)]
    return {split: np.sort(order[first:last]) for split, first, last in zip(SPLITS, borders, borders[1:])}
