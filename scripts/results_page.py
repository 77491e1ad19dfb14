"""Published numbers and ours as a page with figures."""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compare_runs import aligned
from published_rows import DIVERGES, Publication, Row, read_runs
from run_folders import Run, read_summary
from run_groups import Group, outcome
from run_panels import TRAINED, learning_curve

if TYPE_CHECKING:
    from bptt.figures import Curve, Panel

HEAD = ["row", "published", "ours", "agrees", "seeds", "minutes a run", "not counted"]
FULL = """# Results beside published ones

Written by `python scripts/reproduce.py`. Ours is the mean ± standard deviation over the seeds that have completed, each
at its best checkpoint by validation. What does not agree stands here as such, and what was not run says so.
"""
QUICK = """# A quick pass over the published experiments

Runs of a few updates, which show that everything runs. Nothing here can agree with what was published.
"""


def write(publications: Sequence[Publication], root: Path, *, page: Path, figures: Path, quick: bool) -> None:
    """The page of all that is found below `root`, and a figure for each key that has curves in the folder `figures`.

    Where nothing of a key is found, what the page says of it stays: it was run elsewhere, or its runs are gone.
    """
    before, parts = sections(page), [QUICK if quick else FULL]
    for each in publications:
        if each.key in before and not (root / each.key).is_dir():
            parts.append(before[each.key])
            continue
        lines = [f"## {each.key}", "", f"{each.source}: {each.says}", ""]
        if each.benchmark:
            body = measured(each, root, quick=quick)
        else:
            body = trained(each, root, quick=quick, page=page, figure=figures / f"{each.key}.png")
        lines += [*body, "", *([each.note, ""] if each.note else [])]
        parts.append("\n".join(lines))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(parts))


def sections(page: Path) -> dict[str, str]:
    """What a page says now, by key."""
    _, *parts = page.read_text().split("\n## ") if page.is_file() else [""]
    return {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in parts}


def trained(each: Publication, root: Path, *, quick: bool, page: Path, figure: Path) -> list[str]:
    groups = [(row, Group({}, list(read_runs(each, row, root).values()), each.metric)) for row in each.rows]
    runs = [run for _, group in groups for run in group.runs]
    lines = table([cells(row, group, quick=quick) for row, group in groups])
    if not runs:
        return lines
    lines += ["", f"Ours is {each.metric}.", "", "```", *commands(each.rows), "```", "", f"With {versions(runs)}"]
    drawn = panels(each, groups)
    if drawn:
        from bptt import figures

        figure.parent.mkdir(parents=True, exist_ok=True)
        figures.panels(drawn).savefig(figure, dpi=90)
        lines += ["", f"![{each.key}: learning curves]({figure.relative_to(page.parent)})"]
    return lines


def cells(row: Row, group: Group, *, quick: bool) -> list[str]:
    """A line of the table. Where a number is expected, a run that diverged speaks against it."""
    outcomes = [outcome(run, group.metric) for run in group.runs]
    ours, agrees = "not run", ""
    if "diverged" in outcomes:
        ours, agrees = "diverges", "yes" if row.expect == DIVERGES else "no"
    elif group.mean is not None:
        spread = f" ± {group.deviation:.2g}" if group.deviation is not None else ""
        ours, agrees = f"{group.mean:.4g}{spread}", row.fits(group.mean)
    elif outcomes:
        ours = "–"
    ended = sum(each in ("completed", "diverged") for each in outcomes)
    seconds = [run.wall_seconds for run in group.runs if run.wall_seconds is not None]
    minutes = f"{statistics.fmean(seconds) / 60:.1f}" if seconds else ""
    agrees = "" if quick else agrees
    return [row.name, row.shown, ours, agrees, f"{ended} of {len(row.seeds)}", minutes, group.left_out]


def measured(each: Publication, root: Path, *, quick: bool) -> list[str]:
    """The same of a benchmark's ratios, with their quartiles."""
    path = root / each.key / "benchmark.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"rows": []}
    found = {line["title"]: line for line in content["rows"]}
    lines = []
    for row in each.rows:
        if line := found.get(row.title):
            ours = f"{line['ratio']:.3f} ({line['low']:.3f} to {line['high']:.3f})"
            lines.append([row.name, row.shown, ours, "" if quick else row.fits(line["ratio"]), "", "", ""])
        else:
            lines.append([row.name, row.shown, "not run", "", "", "", ""])
    told = ["", f"`python scripts/benchmark.py {each.benchmark}`, with {listed(content['machine'])}"] if found else []
    return [*table(lines), *told]


def table(rows: list[list[str]]) -> list[str]:
    filled = [index for index, column in enumerate(zip(*rows)) if any(column)]
    kept = [[row[index] for index in filled] for row in (HEAD, ["---"] * len(HEAD), *rows)]
    return [f"| {line} |" for line in aligned(kept, between=" | ")]


def commands(rows: Sequence[Row]) -> Iterator[str]:
    width = max(len(row.name) for row in rows)
    for row in rows:
        seeds = ",".join(str(seed) for seed in row.seeds)
        multirun = "-m " if len(row.seeds) > 1 else ""
        yield f"{row.name:<{width}}  python scripts/train.py {multirun}{' '.join(row.words)} seed={seeds}"


def versions(runs: Sequence[Run]) -> str:
    return " ".join(sorted({listed(read_summary(run.folder / "summary.json")["versions"]) for run in runs}))


def listed(named: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in named.items()) + "."


def panels(each: Publication, groups: Sequence[tuple[Row, Group]]) -> "list[Panel]":
    """Learning curves, a panel for every line of rows; and where rows have sizes, the numbers against them."""
    from bptt.figures import Panel

    found = []
    for line in dict.fromkeys(row.line for row, _ in groups):
        curves = {row.name: learning_curve(group, each.curve) for row, group in groups if row.line == line}
        shown = {name: curve for name, curve in curves.items() if curve}
        if shown:
            found.append(Panel(TRAINED, each.curve, shown, title=line, log_y=each.log_y, levels=each.levels))
    sizes: dict[str, Curve] = {}
    for line in dict.fromkeys(row.line for row, _ in groups if row.size is not None):
        theirs, ours = {}, {}
        for row, group in groups:
            if row.line == line and row.size is not None:
                theirs[row.size] = (row.published, row.deviation or 0.0)
                if group.mean is not None:
                    ours[row.size] = (group.mean, group.deviation or 0.0)
        if ours:
            sizes |= {f"published, {line}": theirs, f"ours, {line}": ours}
    return [*found, Panel("K, timesteps", each.metric, sizes, log_x=2)] if sizes else found
