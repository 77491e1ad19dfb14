"""Classification, labelling and regression of a user's sequences, which may have different lengths.

Longer than 200 lines: one class, whose many options are documented and checked together.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from bptt.contracts import at_least, one_of, refusal, setting, true_or_false
from bptt.shapes import Mask, Predictions
from bptt.tasks import tables
from bptt.tasks.base import SPLITS, Batch, Split, Task, checked_fractions, checksum, is_whole, several
from bptt.tasks.buckets import bucketed, without_a_batch
from bptt.tasks.column_names import as_names, require_one_name
from bptt.tasks.encoded_columns import EncodedColumns, encode
from bptt.tasks.files import named_path
from bptt.tasks.forward_fill import carried_forward
from bptt.tasks.long_table import WANTED, Known
from bptt.tasks.missing_values import Missing, hint
from bptt.tasks.sequence_file import read_sequences
from bptt.tasks.sequence_splits import divided, followed_by, in_order, require_time_order, split_column
from bptt.tasks.sequence_targets import ClassTargets, LabelTargets, NumberTargets, TargetRows, Targets
from bptt.tasks.standardise import Standardisation, moments, require_finite
from bptt.tasks.synthetic import generator
from bptt.tasks.time_stamps import temporal, unnamed_row_numbers, whole_number_dates

Kind = Literal["classes", "labels", "numbers"]


class Sequences(Task):
    """Prediction of a class, several labels or numbers, for each sequence at its end or for each timestep.

    path: .npz; `.ts`; Parquet with list columns; a long table with the column `sequence`; a folder with a file for each
    sequence, in folders named by their labels. All are read into memory; `bptt.tasks.sequence_file` describes how.
    test_path: another file of the same kind, the test part; then the first is divided into train and validation.
    channels_first: the x of .npz is (S, D, T), as in aeon and sktime, not (S, T, D).
    inputs, targets: names of columns; by default all other columns, and `y` of an .npz file or the names of folders.
    leave_out: columns that are not used. missing: numbers or texts that mean no value, such as −9999.
    max_categories: different texts that a column of inputs may have; each text becomes an input that is 0 or 1.
    kind: `classes`, cross-entropy in nats; `labels`, each 0 or 1, binary cross-entropy in nats, summed over V;
    `numbers`, standardised, squared error summed over V.
    every_step: targets belong to timesteps; otherwise to the sequence, and are due at its last timestep.
    class_weights: a factor on the loss of each class, in the order of `classes`; `balanced` is inverse to their
    number in the training part, so that it is 1 on average.
    standardise: inputs to mean 0, deviation 1 over the training part; columns that are constant there become 0,
        and in another file their difference from it.
    split: a column with the values train, validation and test; otherwise the sequences are divided by `fractions`, in
    an order drawn from `split_seed`.
    seed: for the order of the training sequences, drawn again in every epoch.
    encoding: `Task.encoding` of another task; targets may be missing then. See `is_whole` for the splits.

    A batch holds sequences of about the same length, padded with 0 after their ends, outside the mask. Missing inputs
    are carried forward within the sequence, 0 before the first value; missing targets have no loss, each by itself.

    Metrics: accuracy and f1 (macro over classes; of all labels together); or mse and mae in the data's own units, mean
    over V.

    Raises ValueError for files and columns that do not allow this, and for labels that are not in the training part.
    """

    reads_parts = True

    def __init__(
        self,
        *,
        batch_size: int,
        seed: int = 0,
        path: str | None = None,
        test_path: str | None = None,
        channels_first: bool = False,
        sequence: str | None = None,
        inputs: str | Sequence[str] | None = None,
        targets: str | Sequence[str] | None = None,
        leave_out: str | Sequence[str] | None = None,
        missing: Any = None,
        max_categories: int = 32,
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
        at_least(1, batch_size=batch_size, max_categories=max_categories)
        one_of(("classes", "labels", "numbers"), kind=kind)
        true_or_false(every_step=every_step, standardise=standardise, channels_first=channels_first)
        self.path, self.seed = named_path(path, WANTED), seed
        require_one_name(sequence=sequence, split=split)
        target_names = as_names("task.targets", targets)
        paths = [self.path] if test_path is None else [self.path, named_path(test_path, WANTED, key="task.test_path")]
        known = None
        if encoding and "targets" in encoding:  # early checkpoints lack what is known of the training data
            known = Known(list(encoding["targets"]), encoding["classes"], encoding["every_step"], encoding["folder"])
        gaps = Missing(missing)
        reading: dict[str, Any] = {"sequence": sequence, "targets": target_names, "every_step": every_step}
        whole = is_whole(encoding)
        reading |= {"split": None if whole else split, "channels_first": channels_first, "missing": gaps}
        left_out = as_names("task.leave_out", leave_out) or []
        reading |= {"left_out": left_out, "known": known}
        table, *others = (read_sequences(path, **reading).with_gaps(gaps) for path in paths)
        self.every_step = table.every_step if known is None else known.every_step
        self.per_sequence = not self.every_step
        frame, self.offsets, self.ids = in_order(table)
        share = (0.0, 0.0, 1.0) if whole else checked_fractions(fractions)
        given = None if whole else split_column(frame, table, self.offsets)
        if others:
            if given is not None:
                raise ValueError(
                    refusal("task.split", "null, and no folders train, validation, test, with test_path", split)
                )
            if None not in (table.rate, others[0].rate) and table.rate != others[0].rate:
                wanted = f"sounds of {table.rate} samples a second, as in task.path"
                raise ValueError(refusal("task.test_path", wanted, others[0].rate, "resample them"))
            given = divided(len(self.ids), [each / sum(share[:2]) for each in share[:2]] + [0.0], split_seed)
            frame, self.offsets, self.ids, given["test"] = followed_by(others[0], frame, self.offsets, self.ids)
        self.lengths = np.diff(self.offsets)
        super().__init__(length=int(self.lengths.max()), batch_size=batch_size)
        self._members = divided(len(self.lengths), share, split_seed) if given is None else given
        self.divided_otherwise = bool(encoding) and not whole and (given is None or bool(others))
        self._check_parts(share if given is None else (1.0, 0.0, 0.0), whole)
        training = np.repeat(np.isin(np.arange(len(self.lengths)), self._members["train"]), self.lengths)

        names = as_names("task.inputs", inputs)
        if not encoding:
            tables.require_columns(frame.columns, left_out, key="task.leave_out")
        else:
            names = list(encoding["inputs"])
            tables.require_channels(frame.columns, encoding.get("channels", 0))
            tables.require_rate(table.rate, encoding.get("rate"))
        reserved = {table.sequence, table.split, *table.targets, *left_out}
        free = [name for name in frame.columns if name not in {*reserved, *(names or [])}]
        frame = frame.with_columns(whole_number_dates(frame.select(free)).values())
        reserved |= set(temporal(frame))
        numbers: list[str] = []
        if names is None:  # through the whole table, or within each sequence
            through = unnamed_row_numbers(table.frame.select(free), [(0, table.frame.height)])
            within = unnamed_row_numbers(frame.select(free), list(pairwise(self.offsets)))
            numbers = list(dict.fromkeys(through + within))
        names = [name for name in frame.columns if name not in {*reserved, *numbers}] if names is None else names
        tables.require_columns(frame.columns, names, key="task.inputs")
        if not names:
            raise ValueError(refusal("task.inputs", "columns beside targets and sequence", names))
        shared = [name for name in names if name in table.targets]
        if shared:
            raise ValueError(refusal("task.inputs", "columns that are no targets", shared))
        categories = encoding["categories"] if encoding else None
        features = encode(frame, names, training, categories, max_categories=max_categories)
        self.statistics = self._statistics(features, training, standardise, encoding)
        self._unseen = features.unseen
        times = [name for name in temporal(frame) if name not in {*left_out, *names, *table.targets}]
        require_time_order(frame, self.offsets, self.ids, times)
        self._hint = f"; {', '.join(numbers)} numbers the rows, and is no input" if numbers else ""
        self._hint += hint({name: features.values[:, features.groups[name][0]] for name in names})
        filled = [carried_forward(each, np.full(each.shape[1], np.nan)).values for each in self._apart(features.values)]
        inputs32 = np.nan_to_num(self.statistics.apply(np.concatenate(filled))).astype(np.float32)
        self._inputs = torch.from_numpy(inputs32)
        self.input_size = self._inputs.shape[1]
        for name in [] if self.every_step else table.targets:
            self._constant_within(frame[name], "for targets of timesteps set task.every_step=true")
        if table.split is not None:
            self._constant_within(frame[table.split], "a sequence belongs to one part")
        rows = TargetRows(frame, table.targets, training, self._due(), encoding)
        if kind != "classes" and class_weights is not None:
            raise ValueError(refusal("class_weights", "null unless kind=classes", class_weights))
        self.targets: Targets
        self.missing_targets = kind != "classes"
        if kind == "classes":
            self.targets = ClassTargets(rows, class_weights)
        else:
            self.targets = LabelTargets(rows) if kind == "labels" else NumberTargets(rows)
        self.output_size = self.targets.output_size
        self._order: tuple[int, Tensor] = (-1, torch.zeros(0))
        self._encoding = {
            "inputs": names,
            "targets": table.targets,
            "every_step": self.every_step,
            "folder": self.path.is_dir(),
            "rate": table.rate,
            "channels": tables.num_channels(frame.columns),
            "categories": features.categories,
            "classes": list(self.targets.classes),
            **({} if self.targets.weights is None else {"class_weights": self.targets.weights.tolist()}),
            "target_scale": self.targets.scale.plain(),
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
        features: EncodedColumns,
        training: NDArray[np.bool_],
        standardise: bool,
        encoding: Mapping[str, Any] | None,
    ) -> Standardisation:
        if encoding:
            return Standardisation(np.array(encoding["mean"]), np.array(encoding["deviation"]))
        count, mean, deviation = moments([features.values[training]])
        for name, indices in features.groups.items():
            if not count[indices].all():
                remedy = f"leave it out: {setting('task.leave_out', name)}"
                raise ValueError(f"column {name!r} must have values in the training part, got none; {remedy}")
            if name in features.categories or not standardise:
                mean[indices], deviation[indices] = 0.0, 1.0
        require_finite([name for name, indices in features.groups.items() for _ in indices], deviation)
        constant = deviation <= 1e-10 * np.abs(mean)
        return Standardisation(mean, np.where(constant, 1.0, deviation))

    def _constant_within(self, column: Any, remedy: str) -> None:
        """Raise ValueError if a sequence has several values of a column."""
        changes = (column.ne_missing(column.shift(1))).to_numpy()
        changes[self.offsets[:-1]] = False
        if changes.any():
            place = int(np.searchsorted(self.offsets, int(np.argmax(changes)), side="right")) - 1
            raise ValueError(
                f"column {column.name!r} must have one value in each sequence, got several in {self.ids[place]!r}; "
                f"{remedy}"
            )

    def _due(self) -> NDArray[np.bool_]:
        """Mask (N,) of the timesteps at which a prediction is due."""
        due = np.full(int(self.offsets[-1]), self.every_step)
        due[self.offsets[1:] - 1] = True
        return due

    @cached_property
    def identity(self) -> str:
        values = checksum(self._inputs, self.targets.values)
        borders = [torch.from_numpy(each) for each in (self.offsets, *self._members.values())]
        parts = f"borders, parts and known labels with {checksum(*borders, self.targets.present)}"
        return f"{len(self.lengths)} sequences with the checksum {values}; {parts}"

    @property
    def contents(self) -> str:
        lengths = f"{len(self.lengths):,} sequences of {self.lengths.min():,} to {self.lengths.max():,} timesteps"
        named = f"{several(self._encoding['inputs'])} → {several(self.prediction_names)}"
        return f"{named}; {lengths}{self._hint}{self.unseen and f'; {self.unseen}'}"

    @property
    def unseen(self) -> str:
        return self._unseen

    @property
    def encoding(self) -> dict[str, Any]:
        return self._encoding

    def num_batches(self, split: Split) -> int:
        number = len(self._members[split])
        return number // self.batch_size if split == "train" else math.ceil(number / self.batch_size)

    def left_out(self, split: Split) -> str:
        return without_a_batch(len(self._members[split]), self.batch_size) if split == "train" else ""

    def _chosen(self, split: Split, index: int) -> Tensor:
        """Indices of the sequences of a batch, (B,); −1 for none."""
        epoch, position = divmod(index, self.num_batches(split))
        members = torch.from_numpy(self._members[split])
        lengths = torch.from_numpy(self.lengths)[members]
        if split != "train":
            rows = bucketed(lengths, self.batch_size, None)[position]
        else:
            if self._order[0] != epoch:
                self._order = epoch, bucketed(lengths, self.batch_size, generator(self.seed, split, epoch))
            rows = self._order[1][position]
        return torch.where(rows < 0, rows, members[rows])

    def batch(self, split: Split, index: int) -> Batch:
        if not self.num_batches(split):
            raise ValueError(f"the {split} part must have sequences to be read, got none; use other task.fractions")
        chosen = self._chosen(split, index).tolist()
        length = int(max(self.lengths[number] for number in chosen if number >= 0))
        inputs = torch.zeros(length, self.batch_size, self.input_size)
        values = self.targets.values
        targets = values.new_zeros(length, self.batch_size, *values.shape[1:])
        mask = torch.zeros(length, self.batch_size, dtype=torch.bool)
        for column, number in enumerate(chosen):
            if number < 0:
                continue
            timesteps, size = slice(self.offsets[number], self.offsets[number + 1]), int(self.lengths[number])
            inputs[:size, column], targets[:size, column] = self._inputs[timesteps], values[timesteps]
            mask[0 if self.every_step else size - 1 : size, column] = True
            mask[:size, column] &= self.targets.present[timesteps]
        return Batch(inputs, targets, mask, self._resets(chosen, length) if self.marks_ends else None)

    def _resets(self, chosen: Sequence[int], length: int) -> Mask:
        """Resets at the first timestep, and at the first one of the padding after each sequence."""
        reset = torch.zeros(length, self.batch_size, dtype=torch.bool)
        reset[0] = True
        for column, number in enumerate(chosen):
            if number >= 0 and self.lengths[number] < length:
                reset[self.lengths[number], column] = True
        return reset

    def errors(self, predictions: Predictions, targets: Tensor) -> Tensor:
        return self.targets.errors(predictions, targets)

    def metrics(self) -> dict[str, Metric]:
        return self.targets.metrics()

    def denormalise(self, predictions: Predictions) -> Tensor:
        return self.targets.denormalise(predictions)

    @property
    def prediction_names(self) -> list[str]:
        return self.targets.prediction_names

    @property
    def class_names(self) -> list[str]:
        return [str(name) for name in self.targets.classes]

    def tabulate(self, predictions: Predictions, split: Split, index: int) -> dict[str, list[Any]]:
        """One row for each prediction that is due: its sequence, and timestep from 0; then predictions and targets.

        For classes, the most probable one and its probability; for labels, the probability of each.
        """
        batch, denormalised = self.batch(split, index), self.denormalise(predictions)
        assert batch.mask is not None
        index_names = ["sequence", "timestep"] if self.every_step else ["sequence"]
        table_names = [f"{name} index" if name in self.targets.columns else name for name in index_names]
        table: dict[str, list[Any]] = {name: [] for name in (*table_names, *self.targets.columns)}
        for index_in_batch, number in enumerate(self._chosen(split, index).tolist()):
            last = int(self.lengths[number]) - 1
            for step in range(0 if self.every_step else last, last + 1) if number >= 0 else ():
                identifiers = [self.ids[number], *([step] if self.every_step else [])]
                prediction, target = denormalised[step, index_in_batch], batch.targets[step, index_in_batch]
                known = bool(batch.mask[step, index_in_batch])
                row = [*identifiers, *self.targets.cells(prediction, target, known=known)]
                for cells, value in zip(table.values(), row, strict=True):
                    cells.append(value)
        return table

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
