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

Written by `python scripts/reproduce.py` from `docs/published/` and `docs/results/`, which names all versions and the
score of each seed where it was kept. Ours is the mean ± standard deviation over the seeds that have completed, each at
its best checkpoint by validation. What does not agree is shown as such, and what was not run is named.
"""
QUICK = """# A quick pass over the published experiments

Runs of a few updates, which show that everything runs. Nothing here can agree with what was published.
"""


def render(publications: Sequence[Publication], folder: Path, *, page: Path, quick: bool = False) -> str:
    """Text of the page with the path `page`. folder: results and figures."""
    parts = [QUICK if quick else FULL]
    for each in publications:
        found = results.read(folder / f"{each.key}.json")
        lines = [f"## {each.key}", "", f"{each.source}: {each.says}", ""]
        lines += [*table([cells(row, found.rows.get(row.name), quick=quick) for row in each.rows]), ""]
        lines += description(each, found)
        if found.figure:
            place = (folder / found.figure).relative_to(page.parent)
            lines += [f"![{each.key}: learning curves]({place})", ""]
        lines += [each.note, ""] if each.note else []
        parts.append("\n".join(lines))
    return "\n".join(parts)


def description(each: Publication, found: Results) -> list[str]:
    """Measured quantity and commands; for a benchmark also the machine."""
    if each.benchmark:
        machines = dict.fromkeys(listed(row.versions) for row in found.rows.values() if row.versions)
        command = f"`{each.command(each.rows[0])}`"
        return [f"{command}, with {machine}." for machine in machines] + [""] if machines else [f"{command}.", ""]
    return [f"Ours is {each.metric}.", "", "```", *commands(each), "```", ""]


def commands(each: Publication) -> list[str]:
    width = max(len(row.name) for row in each.rows)
    return [f"{row.name:<{width}}  {each.command(row)}" for row in each.rows]


def cells(row: Row, found: RowResult | None, *, quick: bool = False) -> list[str]:
    """Cells of a row, in the columns of `HEAD`."""
    if found is None:
        ended = f"0 of {len(row.seeds)}" if row.seeds else ""
        return [row.name, row.shown, "not run", "", ended, "", "", "", ""]
    ours, agrees = verdict(row, found)
    ended = f"{found.seeds_ended} of {len(row.seeds)}" if row.seeds else ""
    minutes = "" if found.minutes is None else f"{found.minutes:.1f}"
    libraries = listed({name: found.versions[name] for name in SHOWN if name in found.versions})
    return [
        row.name,
        row.shown,
        ours,
        "" if quick else agrees,
        ended,
        minutes,
        found.not_counted,
        libraries,
        found.date,
    ]


def verdict(row: Row, found: RowResult) -> tuple[str, str]:
    """Our number, and `yes`, `no` or a dash for agreement. A diverged run disagrees with any expected number."""
    if found.diverges:
        return "diverges", "–" if row.expect is None else "yes" if row.expect == DIVERGES else "no"
    if found.mean is None:
        return UNKNOWN, ""
    if found.low is not None:
        return f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})", row.fits(found.mean)
    spread = "" if found.deviation is None else f" ± {found.deviation:.2g}"
    return f"{found.mean:.4g}{spread}", row.fits(found.mean)


def table(rows: list[list[str]]) -> list[str]:
    """Markdown table without columns that are empty in every row."""
    filled = [index for index, column in enumerate(zip(*rows)) if any(column)]
    shown = [[row[index] for index in filled] for row in (HEAD, ["---"] * len(HEAD), *rows)]
    return [f"| {line} |" for line in aligned(shown, between=" | ")]


def listed(named: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in named.items())
