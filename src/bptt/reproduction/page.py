"""The page of published numbers and ours, rendered only from docs/published/KEY.yaml and docs/results/KEY.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bptt.reproduction import results
from bptt.reproduction.results import Results, RowResult
from bptt.reproduction.rows import DIVERGES, Publication, Row
from bptt.runs.comparison import aligned

UNKNOWN = "–"  # shown if no run of the row has ended
HEAD = ["row", "published", "ours", "agrees", "seeds", "minutes a run", "not counted", "with", "date"]
SHOWN = ("torch", "lightning")  # packages whose versions are on the page; the JSON files have all
FULL = """# Results beside published ones

Written by `python scripts/reproduce.py` from `docs/published/` and `docs/results/`, which holds all versions and the
score of each seed if it was recorded. Ours is the mean ± standard deviation over the completed seeds, each at its best
checkpoint by validation, or at its last one if ours is a parameter. Of a benchmark it is the median ratio, with its
quartiles. A row with a diverged seed says `diverges`, one without runs `not run`. `no` marks rows that do not agree, a
dash those with no expected number.
"""
QUICK = """# A quick pass over the published experiments

Runs of a few updates, which show that everything runs. Nothing here can agree with what was published.
"""


def render(publications: Sequence[Publication], folder: Path, *, page: Path, quick: bool = False) -> str:
    """Text of the page with the path `page`. folder: results and figures."""
    parts = [QUICK if quick else FULL]
    for each in publications:
        ours = results.read(folder / f"{each.key}.json")
        lines = [f"## {each.key}", "", f"{each.source}: {each.says}", ""]
        lines += [*table([cells(row, ours.rows.get(row.name), quick=quick) for row in each.rows]), ""]
        lines += description(each, ours)
        if ours.figure:
            address = (folder / ours.figure).relative_to(page.parent)
            lines += [f"![{each.key}: learning curves]({address})", ""]
        lines += [each.note, ""] if each.note else []
        parts.append("\n".join(lines))
    return "\n".join(parts)


def description(each: Publication, ours: Results) -> list[str]:
    """Measured quantity and commands; for a benchmark also the machine."""
    if each.benchmark:
        machines = dict.fromkeys(joined_pairs(row.versions) for row in ours.rows.values() if row.versions)
        command = f"`{each.command(each.rows[0])}`"
        return [f"{command}, with {machine}." for machine in machines] + [""] if machines else [f"{command}.", ""]
    return [f"Ours is {each.metric}.", "", "```", *commands(each), "```", ""]


def commands(each: Publication) -> list[str]:
    width = max(len(row.name) for row in each.rows)
    return [f"{row.name:<{width}}  {each.command(row)}" for row in each.rows]


def cells(row: Row, ours_of_row: RowResult | None, *, quick: bool = False) -> list[str]:
    """Cells of a row, in the columns of `HEAD`."""
    if ours_of_row is None:
        ended = f"0 of {len(row.seeds)}" if row.seeds else ""
        return [row.name, row.shown, "not run", "", ended, "", "", "", ""]
    score, agrees = verdict(row, ours_of_row)
    ended = f"{ours_of_row.seeds_ended} of {len(row.seeds)}" if row.seeds else ""
    minutes = "" if ours_of_row.minutes is None else f"{ours_of_row.minutes:.1f}"
    libraries = joined_pairs({name: ours_of_row.versions[name] for name in SHOWN if name in ours_of_row.versions})
    return [
        row.name,
        row.shown,
        score,
        "" if quick else agrees,
        ended,
        minutes,
        ours_of_row.not_counted,
        libraries,
        ours_of_row.date,
    ]


def verdict(row: Row, ours: RowResult) -> tuple[str, str]:
    """Our number, and `yes`, `no` or a dash for agreement. A diverged run disagrees with any expected number."""
    if ours.diverges:
        return "diverges", "–" if row.expect is None else "yes" if row.expect == DIVERGES else "no"
    if ours.mean is None:
        return UNKNOWN, ""
    if ours.low is not None:
        return f"{ours.mean:.3f} ({ours.low:.3f} to {ours.high:.3f})", row.fits(ours.mean)
    spread = "" if ours.deviation is None else f" ± {ours.deviation:.2g}"
    return f"{ours.mean:.4g}{spread}", row.fits(ours.mean)


def table(rows: list[list[str]]) -> list[str]:
    """Markdown table without columns that are empty in every row."""
    not_empty = [index for index, column in enumerate(zip(*rows)) if any(column)]
    filled_rows = [[row[index] for index in not_empty] for row in (HEAD, ["---"] * len(HEAD), *rows)]
    return [f"| {line} |" for line in aligned(filled_rows, between=" | ")]


def joined_pairs(pairs: Mapping[str, str]) -> str:
    """Names with their values: "torch 2.13.0, lightning 2.6.6"."""
    return ", ".join(f"{name} {value}" for name, value in pairs.items())
