"""Interface of a task: batches by index, a loss per timestep, metrics.

Longer than 200 lines: `Batch`, `Task` and the losses that tasks share are the whole interface, in one place.
"""

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torchmetrics import Metric

from bptt.contracts import at_least, refusal
from bptt.shapes import Inputs, Mask, Predictions, State, Targets, map_state

Split = Literal["train", "validation", "test"]
Reduction = Literal["mean", "sum_over_time"]
SPLITS: tuple[Split, ...] = get_args(Split)
PREDICTED = " predicted"  # suffix of the names of predicted columns


@dataclass(eq=False)  # not frozen: Lightning writes the converted tensors of 64-true and bf16-true into a copy
class Batch:
    """B sequences over T timesteps, time-major.

    inputs: features (T, B, D), or token ids (T, B) of any integer type.
    targets: (T, B) or (T, B, V), as the task's `errors` expects them.
    mask: true at timesteps with a loss, (T, B); None means all.
    reset: true at timesteps before which a sequence begins again, (T, B): its state is the initial one there, and no
        gradient crosses. At the first timestep the other sequences continue the previous batch. (B,) is the first
        timestep alone. None means that all sequences begin at the first timestep and nowhere else.
    initial: the state of the sequences that begin at the first timestep, in the structure of the model's state, each
        tensor (B, ·), such as one that was stored with an episode. It is data: no gradient goes into it. None means
        the model's own initial state, which sequences have at later resets in either case.
    due: true at timesteps (T,) at which any sequence of the batch has a loss, if these are some of its sequences, those
        of one process. None means those of `mask`.
    """

    inputs: Inputs
    targets: Targets
    mask: Mask | None = None
    reset: Mask | Bool[Tensor, " B"] | None = None
    initial: State | None = None
    due: Bool[Tensor, " T"] | None = None

    @property
    def num_timesteps(self) -> int:
        return self.inputs.shape[0]

    @property
    def batch_size(self) -> int:
        return self.inputs.shape[1]

    @property
    def resets(self) -> Mask | None:
        """The resets (T, B) for a model that is given the state before the first timestep; None for none."""
        if self.reset is None or self.reset.dim() == 1:
            return None
        if self.initial is None:
            return self.reset
        later = self.reset.clone()  # the model would replace a state that the batch gives by its own
        later[0] = False
        return later

    @property
    def begins(self) -> Bool[Tensor, " B"] | None:
        """Mask (B,) of the sequences that begin at the first timestep; None means all."""
        return self.reset if self.reset is None or self.reset.dim() == 1 else self.reset[0]

    @property
    def continues(self) -> bool:
        """True if a sequence does not begin at the first timestep, but continues the previous batch."""
        return self.begins is not None and not bool(self.begins.all())

    def between(self, start: int, stop: int) -> "Batch":
        """Timesteps start … stop − 1 with their resets, for a model that is given the state before them."""
        optional = (self.mask, self.resets, self.due)
        mask, reset, due = (None if each is None else each[start:stop] for each in optional)
        return Batch(self.inputs[start:stop], self.targets[start:stop], mask, reset, due=due)

    def split(self, size: int) -> Iterator[tuple[int, "Batch"]]:
        """Contiguous chunks of `size` timesteps with their first timesteps; the last chunk may be shorter."""
        for start in range(0, self.num_timesteps, size):
            yield start, self.between(start, start + size)

    def columns(self, part: slice) -> "Batch":
        """The sequences of a slice of 0 … B − 1, with what they need to know of the others."""
        mask = None if self.mask is None else self.mask[:, part]
        due = self.mask.any(1) if self.due is None and self.mask is not None else self.due
        reset = None if self.reset is None else self.reset[..., part]
        initial = None if self.initial is None else map_state(lambda leaf: leaf[part], self.initial)
        return Batch(self.inputs[:, part], self.targets[:, part], mask, reset, initial, due)

    def weights(self) -> list[int]:
        """Number of losses at each timestep. Synchronizes with the device, so call it once per batch."""
        if self.mask is None:
            return [self.batch_size] * self.num_timesteps
        counts: list[int] = self.mask.sum(1).tolist()
        return counts

    def timesteps_with_loss(self) -> list[bool]:
        """Whether any sequence has a loss, for each timestep; also of sequences that other processes have."""
        if self.mask is None:
            return [True] * self.num_timesteps
        found: list[bool] = (self.mask.any(1) if self.due is None else self.due).tolist()
        return found

    def inside(self, values: Shaped[Tensor, "T B *V"]) -> Shaped[Tensor, "N *V"]:
        """The values at timesteps with a loss."""
        return values.flatten(0, 1) if self.mask is None else values[self.mask]

    def to(self, device: torch.device | str, **options: bool) -> "Batch":
        parts = {name: value for name, value in vars(self).items() if value is not None}
        moved = {name: map_state(lambda leaf: leaf.to(device, **options), value) for name, value in parts.items()}
        return replace(self, **moved)


Loss = Callable[[Predictions, Batch], Tensor]

DIVIDED = "divided"  # entry of an encoding: true for a file that has its usual parts, not the test part alone


def is_whole(encoding: Mapping[str, Any] | None) -> bool:
    """Whether a file that is read by another one's encoding is the test part, as a file to predict is."""
    return bool(encoding) and not (encoding or {}).get(DIVIDED)


class Task(ABC):
    """A data set with its loss and metrics.

    input_size: D, the number of features or of distinct tokens. output_size: V.
    length: largest T of a batch; batches may be shorter, each by its own number of timesteps, but have one or more.
    batch_size: B of every batch, over all processes together.
    per_sequence: a prediction is due once a sequence, at its last timestep.
    marks_ends: the timestep after a sequence's end is a reset, so that a backward direction begins at the end and not
        in the padding. Set for bidirectional models; tasks without padding need not follow it.
    missing_targets: targets may be NaN inside the mask, for values that `errors` and `metrics` leave out.
    reads_parts: the argument `encoding` may say that the data have their usual parts, see `is_whole`.
    divided_otherwise: these parts, of changed data, may hold what other parts held in training.
    reduction: what training minimises in each update: the `mean` of the losses, or `sum_over_time`, their sum over the
        update's timesteps, averaged over the B sequences, as many published settings for learning rate and clipping
        assume. Logged losses are means either way.
    """

    input_size: int
    output_size: int
    per_sequence: bool = False
    marks_ends: bool = False
    missing_targets: bool = False
    reads_parts: bool = False
    divided_otherwise: bool = False
    reduction: Reduction = "mean"

    def __init__(self, *, length: int, batch_size: int):
        at_least(1, length=length, batch_size=batch_size)
        self.length = length
        self.batch_size = batch_size

    @property
    def identity(self) -> str:
        """Fingerprint of external data, e.g. a checksum of a file. Resuming with a different one is refused.

        Empty if the configuration determines the data.
        """
        return ""

    @property
    def encoding(self) -> dict[str, Any]:
        """Encoding of external data as numbers: names, statistics of the training part, vocabulary; plain containers.

        A checkpoint keeps it. As the argument `encoding` it makes a task that encodes another file in the same way,
        with that file as its test split; or, if the task `reads_parts`, in its usual parts. Empty if the task reads no
        data.
        """
        return {}

    @property
    def contents(self) -> str:
        """One line about external data for the head of a run, such as the names of columns; empty by default."""
        return ""

    @property
    def unseen(self) -> str:
        """What the external data have and their training part lacks, in one line; empty if nothing."""
        return ""

    def left_out(self, split: Split) -> str:
        """What the batches of an epoch leave out of a split, in one line; empty if nothing, or hardly anything."""
        return ""

    @abstractmethod
    def num_batches(self, split: Split) -> int:
        """Number of batches in one epoch; 0 if the task has no such split."""

    @abstractmethod
    def batch(self, split: Split, index: int) -> Batch:
        """Batch `index` of a split, the same at every call. In training the index continues from epoch to epoch."""

    @abstractmethod
    def errors(self, predictions: Predictions, targets: Targets) -> Float[Tensor, "T B"]:
        """Loss of every timestep, unreduced. Values outside the mask are ignored."""

    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """Metrics in addition to the loss, updated with the predictions (N, V) and targets (N, …) inside the mask."""

    def denormalise(self, predictions: Predictions) -> Tensor:
        """Predictions (T, B, V) in the data's own units, on the CPU; by default as they are."""
        return predictions.cpu()

    @property
    def prediction_names(self) -> list[str]:
        """A name for each of the V outputs."""
        return [f"output {number}" for number in range(self.output_size)]

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the V classes, in the order of their ids, if a confusion matrix of them is to be drawn."""
        return ()

    def tabulate(self, predictions: Predictions, split: Split, index: int) -> dict[str, list[Any]]:
        """Predictions for batch `index` of a split beside their targets, as columns of equal length, by name.

        The first columns identify the row. Predictions and targets are in the data's own units, None if missing. By
        default a row for each timestep with a loss: batch, timestep, sequence, V predictions, and the class id or the V
        numbers that are its target; no numbers if `denormalise` is the task's own, as it may be for predictions alone.
        """
        batch = self.batch(split, index)
        mask = torch.ones(batch.inputs.shape[:2], dtype=torch.bool) if batch.mask is None else batch.mask
        timesteps, sequences = mask.nonzero().T.tolist()
        table: dict[str, list[Any]] = {"batch": [index] * len(timesteps), "timestep": timesteps, "sequence": sequences}
        inside = self.denormalise(predictions)[mask]
        for name, column in zip(self.prediction_names, inside.unbind(-1)):
            table[name] = column.tolist()
        targets = batch.targets[mask]
        if targets.dim() == 1:
            table["target"] = targets.tolist()
        elif targets.shape[1:] == (self.output_size,) and type(self).denormalise is Task.denormalise:
            for number, column in enumerate(targets.unbind(-1)):
                table["target" if self.output_size == 1 else f"target {number}"] = known_cells(column.tolist())
        return table

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """Arguments of a small example for tests, by name; data that it needs are written into `folder`.

        The usual sizes (length, batch_size, numbers of batches) are made small by the tests themselves.
        """
        return {}

    def loss(self, predictions: Predictions, batch: Batch) -> Tensor:
        """Mean error inside the mask. Weighted by their masks, the losses of chunks add up to that of the sequence."""
        predictions32 = predictions.to(torch.promote_types(predictions.dtype, torch.float32))
        if batch.mask is None:
            return self.errors(predictions32, batch.targets).mean()
        # Set both sides to 0 outside the mask first: the gradient of an error that is not finite would be NaN.
        errors = self.errors(within(batch.mask, predictions32), within(batch.mask, batch.targets))
        return torch.where(batch.mask, errors, 0).sum() / batch.mask.sum()


def checked_fractions(fractions: Any) -> list[float]:
    """Three shares that add up to 1, the first above 0."""
    given = list(fractions) if isinstance(fractions, Sequence) else []
    shares = [share for share in given if isinstance(share, int | float) and share >= 0]
    if len(given) != 3 or len(shares) != 3 or shares[0] == 0 or not math.isclose(sum(shares), 1):
        wanted = "three shares (train, validation, test) that add up to 1, the first above 0"
        raise ValueError(refusal("fractions", wanted, fractions))
    return shares


def several(names: Sequence[Any]) -> str:
    """The first names of a list, and the number of all if there are more."""
    shown = ", ".join(map(str, names[:5]))
    return shown if len(names) <= 5 else f"{shown}, … ({len(names)})"


def checksum(*values: Tensor) -> str:
    """CRC-32 of all values, computed in blocks of a few million."""
    crc = 0
    for each in values:
        for block in torch.split(each, max(1, (1 << 22) // max(1, each[:1].numel()))):
            crc = zlib.crc32(block.numpy().tobytes(), crc)
    return f"{crc:08x}"


def known_cells(values: Sequence[float]) -> list[float | None]:
    """The values of a table, with None for NaN."""
    return [None if math.isnan(value) else value for value in values]


def within(mask: Mask, values: Shaped[Tensor, "T B *V"]) -> Shaped[Tensor, "T B *V"]:
    """The values inside the mask, and 0 outside."""
    return torch.where(mask.view(*mask.shape, *[1] * (values.dim() - 2)), values, torch.zeros_like(values))


def cross_entropy(predictions: Predictions, targets: Targets) -> Float[Tensor, "T B"]:
    """−log softmax(y_t)[target_t] in nats, for class ids of any integer type."""
    flat = nn.functional.cross_entropy(predictions.flatten(0, 1), targets.flatten().long(), reduction="none")
    return flat.view(targets.shape)


def squared_error(predictions: Predictions, targets: Targets) -> Float[Tensor, "T B"]:
    """Σ_v (y_tv − target_tv)², summed over V."""
    return (predictions - targets).square().sum(-1)


def known_squared_error(predictions: Predictions, targets: Targets) -> Float[Tensor, "T B"]:
    """Σ_v (y_tv − target_tv)², summed over the targets that are not NaN."""
    missing = targets.isnan()
    return torch.where(missing, 0, predictions - torch.where(missing, 0, targets)).square().sum(-1)


def binary_cross_entropy(predictions: Predictions, targets: Targets) -> Float[Tensor, "T B"]:
    """−Σ_v log σ(±y_tv) in nats, summed over V: + if target_tv is 1, − if it is 0; targets (T, B, V) of any type.

    The predictions are log-odds. The sum is the negative log-likelihood of the labels that are not NaN.
    """
    missing = targets.isnan()
    labels = torch.where(missing, 0, targets).to(predictions.dtype)
    errors = nn.functional.binary_cross_entropy_with_logits(predictions, labels, reduction="none")
    return torch.where(missing, 0, errors).sum(-1)


def last_timestep(length: int, batch_size: int) -> Mask:
    """Mask (T, B) with a loss at the last timestep only."""
    mask = torch.zeros(length, batch_size, dtype=torch.bool)
    mask[-1] = True
    return mask
