"""Measured costs as CSV and JSON."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bptt.atomic_files import replace_csv, replace_text
from bptt.chunk_size.advice import recommend
from bptt.chunk_size.measurement import Cost, Moment


def write_csv(moments: Sequence[Moment], path: Path) -> None:
    """One row for each candidate and moment."""
    rows = [(moment.updates, *each) for moment in moments for each in moment.costs]
    replace_csv(path, [("updates", *Cost._fields), *rows])


def write_json(moments: Sequence[Moment], path: Path, *, delta: float) -> None:
    """The recommendation and all moments; null for numbers that are not finite."""
    best = recommend(moments, delta=delta)
    measured = [
        {
            "updates": moment.updates,
            "horizon": moment.horizon._asdict(),
            "batch_noise": or_null(moment.batch_noise),
            "costs": [{name: or_null(value) for name, value in each._asdict().items()} for each in moment.costs],
        }
        for moment in moments
    ]
    overrides = "estimator=full" if best is None else best.overrides
    text = json.dumps({"recommended": overrides, "delta": delta, "moments": measured}, indent=1, ensure_ascii=False)
    replace_text(path, text + "\n")


def or_null(value: Any) -> Any:
    """The value, or None for a number that is not finite: JSON has no such numbers."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
