"""Order of a user's sequences, and their division into train, validation and test."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bptt.contracts import refusal, setting
from bptt.tasks.base import SPLITS, Split
from bptt.tasks.identifiers import require_names
from bptt.tasks.long_table import LongTable
from bptt.tasks.synthetic import generator
from bptt.tasks.tables import joined


def in_order(table: LongTable) -> tuple[Any, NDArray[np.int64], list[Any]]:
    """Rows sorted so that each sequence is contiguous, in order of appearance; offsets (S + 1,); names of sequences."""
    column = table.frame[table.sequence]
    if column.null_count():
        row = 1 + int(column.is_null().arg_max() or 0)
        raise ValueError(f"column {table.sequence!r} must name a sequence in every row, got none in row {row}")
    require_names(column)
    appearance: dict[Any, int] = {}
    numbers = np.array([appearance.setdefault(name, len(appearance)) for name in column.to_list()])
    order = np.argsort(numbers, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(numbers))])
    return table.frame[order], offsets, list(appearance)


def require_time_order(frame: Any, offsets: NDArray[np.int64], ids: list[Any], names: Sequence[str]) -> None:
    """Raise ValueError if dates or time stamps vary within sequences, but ascend in none of the columns.

    Times of day are left aside, as they begin again at midnight.
    """
    import polars as pl

    backwards: list[tuple[str, int, int]] = []
    for name in names:
        if isinstance(frame[name].dtype, pl.Date | pl.Datetime):
            present = np.flatnonzero(frame[name].is_not_null().to_numpy())
            sequences = np.searchsorted(offsets, present, side="right")
            steps = np.diff(frame[name].to_physical().to_numpy()[present]) * (np.diff(sequences) == 0)
            if (steps < 0).any():
                place = int(np.argmax(steps < 0))
                backwards.append((name, int(present[place]), int(present[place + 1])))
            elif (steps > 0).any():
                return
    for name, before, row in backwards[:1]:
        sequence = ids[int(np.searchsorted(offsets, row, side="right")) - 1]
        raise ValueError(
            f"time stamps in {name!r} must not descend within a sequence, got {frame[name][row]} after "
            f"{frame[name][before]} in sequence {sequence!r}; sort the file, or leave them out: "
            f"{setting('task.leave_out', name)}"
        )


def followed_by(
    other: LongTable, frame: Any, offsets: NDArray[np.int64], ids: list[Any]
) -> tuple[Any, NDArray[np.int64], list[Any], NDArray[np.int64]]:
    """Append the sequences of another file. Returns rows, offsets and names of all, and the indices appended."""
    rows, other_offsets, other_ids = in_order(other)
    if set(rows.columns) != set(frame.columns):
        raise ValueError(refusal("task.test_path", f"a file with the columns {frame.columns}", rows.columns))
    both = joined([frame, rows.select(frame.columns)], "task.path and task.test_path")
    appended = np.arange(len(ids), len(ids) + len(other_ids))
    return both, np.concatenate([offsets, offsets[-1] + other_offsets[1:]]), [*ids, *other_ids], appended


def split_column(frame: Any, table: LongTable, offsets: NDArray[np.int64]) -> dict[Split, NDArray[np.int64]] | None:
    """Indices of sequences by split, from the column `split` of the table; None without one."""
    if table.split is None:
        return None
    values = frame[table.split].to_list()
    split_names = [str(values[offset]) for offset in offsets[:-1]]
    for name in split_names:
        if name not in SPLITS:
            raise ValueError(refusal(f"column {table.split!r}", "train, validation or test", name))
    return {split: np.flatnonzero([name == split for name in split_names]) for split in SPLITS}


def divided(number: int, shares: Sequence[float], seed: int) -> dict[Split, NDArray[np.int64]]:
    """Indices of sequences by split, divided at random in these shares."""
    order = torch.randperm(number, generator=generator(seed, "split")).numpy()
    borders = [round(number * sum(shares[:index])) for index in range(4)]
    return {split: np.sort(order[first:last]) for split, first, last in zip(SPLITS, borders, borders[1:])}
