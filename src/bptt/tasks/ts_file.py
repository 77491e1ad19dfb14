"""Sequences in `.ts` files, the format of the UEA and UCR archives of time series, which aeon and sktime read."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bptt.contracts import refusal
from bptt.tasks.files import regular_file

WANTED = "a .ts file of sequences"


class TsFile(NamedTuple):
    """Sequences as arrays (T, D), and the label of each, a text; None if the file has no labels."""

    sequences: list[NDArray[np.float64]]
    labels: list[str] | None


def read_ts(path: Path) -> TsFile:
    """Read a `.ts` file: a header of lines @NAME VALUE, then @data, then a line for each sequence.

    A line holds the values of each of the D dimensions, separated by commas, and the label, all separated by colons.
    Missing values are `?` or `NaN`. ValueError for time stamps, and for lines that are not of this form.
    """
    header: dict[str, str] = {}
    sequences: list[NDArray[np.float64]] = []
    labels: list[str] = []
    labelled = False
    with regular_file(path, WANTED).open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(map(str.strip, file), start=1):
            if not line or line[0] in "#%":
                continue
            if "data" not in header:
                name, *value = line.removeprefix("@").split(maxsplit=1) or [""]
                if line[0] != "@":
                    raise ValueError(refusal("task.path", WANTED, str(path), f"line {number} is before @data"))
                header[name.lower()] = "".join(value).lower()
                labelled = any(header.get(key, "").startswith("true") for key in ("classlabel", "targetlabel"))
                if name.lower() == "timestamps" and header["timestamps"] == "true":
                    remedy = "it has time stamps; use a table with task.sequence=COLUMN"
                    raise ValueError(refusal("task.path", "a .ts file without time stamps", str(path), remedy))
                continue
            *dimensions, last = line.split(":")
            if labelled:
                labels.append(last.strip())
            else:
                dimensions.append(last)
            sequences.append(sequence(dimensions, path, number))
    if not sequences:
        raise ValueError(refusal("task.path", WANTED, str(path), "it has no sequences after @data"))
    if (widths := {each.shape[1] for each in sequences}) != {sequences[0].shape[1]}:
        raise ValueError(f"the sequences of {path} must have one number of dimensions, got {sorted(widths)}")
    return TsFile(sequences, labels if labelled else None)


def sequence(dimensions: list[str], path: Path, line: int) -> NDArray[np.float64]:
    """One sequence (T, D) from the texts of its dimensions."""
    try:
        if not dimensions:
            raise ValueError("a label without values")
        return np.array([[float(value.replace("?", "nan")) for value in own.split(",")] for own in dimensions]).T
    except ValueError as error:
        remedy = f"line {line}: {' '.join(str(error).split())[:120]}"
        raise ValueError(
            refusal("task.path", f"{WANTED} of numbers, equally many in each dimension", str(path), remedy)
        ) from None
