"""A user's sequences as one long table, which all readers of files return."""

from typing import TYPE_CHECKING, Any, NamedTuple

from bptt.tasks.missing_values import Missing

if TYPE_CHECKING:
    import polars as pl

SEQUENCE, LABEL, SPLIT = "sequence", "label", "split"  # columns that a reader adds
WANTED = "a file .npz .parquet .csv .tsv .ts, or a folder of files"


class LongTable(NamedTuple):
    """One row per timestep; the timesteps of each sequence are in order.

    sequence: column that identifies the sequence. targets: columns of targets. every_step: true if targets belong to
    timesteps, false if they belong to whole sequences. split: column with the split of each sequence, if there is one.
    rate: of sounds, samples a second.
    """

    frame: "pl.DataFrame"
    sequence: str
    targets: list[str]
    every_step: bool
    split: str | None
    rate: int | None = None

    def with_gaps(self, missing: Missing) -> "LongTable":
        """The table with null in place of numbers that mean no value."""
        return self._replace(frame=missing.absent_in(self.frame, kept=(self.sequence, self.split)))


class Known(NamedTuple):
    """Of the data that a model was trained on: columns of targets, the classes if these are classes, whether they
    belong to timesteps, and whether it was a folder of files."""

    targets: list[str]
    classes: list[Any]
    every_step: bool
    folder: bool
