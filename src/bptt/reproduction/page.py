"""Published numbers and ours as a page with figures."""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bptt.reproduction.rows import DIVERGES, OTHER, Publication, Row, read_runs
from bptt.run_folder import RunFolder
from bptt.runs.comparison import aligned
from bptt.runs.groups import Group, outcome
from bptt.runs.panels import TRAINED, learning_curve
from bptt.runs.reading import Run

if TYPE_CHECKING:
    from bptt.figures import Curve, Panel

UNKNOWN = "–"  # of a row whose runs have not ended
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

    A row of which nothing is found stays as it is on the page, as long as its command does: it was run elsewhere, or
    its runs are gone. So does a figure, where more rows stay than are found. Of runs of another configuration than the
    row's it tells that they are there, and no more.
    """
    before, parts = sections(page), [QUICK if quick else FULL]
    for each in publications:
        lines = [f"## {each.key}", "", f"{each.source}: {each.says}", ""]
        earlier = before.get(each.key, [])
        if each.benchmark:
            body = measured(each, root, earlier, quick=quick)
        else:
            body = trained(each, root, earlier, quick=quick, page=page, figure=figures / f"{each.key}.png")
        lines += [*body, "", *([each.note, ""] if each.note else [])]
        parts.append("\n".join(lines))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(parts), encoding="utf-8")


def sections(page: Path) -> dict[str, list[str]]:
    """The lines of a page as it is now, by key."""
    _, *parts = page.read_text(encoding="utf-8").split("\n## ") if page.is_file() else [""]
    return {part.partition("\n")[0]: part.splitlines() for part in parts}


def standing(earlier: Sequence[str]) -> dict[str, list[str]]:
    """The rows of a section that have a number of ours, by name, in the columns of `HEAD`."""
    head, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in earlier if line[:1] == "|"] or [
        []
    ]
    rows = ({**dict.fromkeys(HEAD, ""), **dict(zip(head, line))} for line in lines[1:])
    return {row["row"]: list(row.values()) for row in rows if row["ours"] not in ("not run", UNKNOWN)}


def trained(
    each: Publication, root: Path, earlier: Sequence[str], *, quick: bool, page: Path, figure: Path
) -> list[str]:
    groups = [(row, Group({}, list(read_runs(each, row, root).values()), each.metric)) for row in each.rows]
    runs = [run for _, group in groups for run in group.runs]
    same = {plain(line) for line in earlier}
    kept = {
        row.name: standing(earlier).get(row.name)
        for (row, group), command in zip(groups, commands(each))
        if not group.runs and plain(command) in same
    }
    kept = {name: row for name, row in kept.items() if row}
    lines = table([kept.get(row.name) or cells(row, group, quick=quick) for row, group in groups])
    told = {f"With {versions(runs)}"} if runs else set()
    told |= {line for line in earlier if line.startswith("With ")} if kept else set()
    lines += ["", f"Ours is {each.metric}.", "", "```", *commands(each), "```", *(["", *sorted(told)] if told else [])]
    own = [(row, group._replace(runs=[run for run in group.runs if run.error != OTHER])) for row, group in groups]
    drawn = panels(each, own)
    if drawn and sum(bool(group.runs) for _, group in own) >= len(kept):
        from bptt import figures

        figure.parent.mkdir(parents=True, exist_ok=True)
        figures.panels(drawn).savefig(figure, dpi=90)
    if drawn or figure.is_file():
        lines += ["", f"![{each.key}: learning curves]({figure.relative_to(page.parent)})"]
    return lines


def cells(row: Row, group: Group, *, quick: bool) -> list[str]:
    """A line of the table. Where a number is expected, a run that diverged speaks against it."""
    outcomes = [outcome(run, group.metric) for run in group.runs]
    ours, agrees = "not run", ""
    if "diverged" in outcomes:
        ours, agrees = "diverges", "–" if row.expect is None else "yes" if row.expect == DIVERGES else "no"
    elif group.mean is not None:
        spread = f" ± {group.deviation:.2g}" if group.deviation is not None else ""
        ours, agrees = f"{group.mean:.4g}{spread}", row.fits(group.mean)
    elif outcomes:
        ours = UNKNOWN
    ended = sum(each in ("completed", "diverged") for each in outcomes)
    seconds = [run.wall_seconds for run in group.runs if run.wall_seconds is not None and run.error != OTHER]
    minutes = f"{statistics.fmean(seconds) / 60:.1f}" if seconds else ""
    agrees = "" if quick else agrees
    return [row.name, row.shown, ours, agrees, f"{ended} of {len(row.seeds)}", minutes, group.left_out]


def measured(each: Publication, root: Path, earlier: Sequence[str], *, quick: bool) -> list[str]:
    """The same of a benchmark's ratios, with their quartiles."""
    path = root / each.key / "benchmark.json"
    if not path.is_file():
        kept = standing(earlier)
        lines = [kept.get(row.name) or [row.name, row.shown, "not run", "", "", "", ""] for row in each.rows]
        return [*table(lines), *(["", *(line for line in earlier if line.startswith("`python"))] if kept else [])]
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found = {line["title"]: line for line in content["sections"][each.benchmark]["rows"]}
    lines = []
    for row in each.rows:
        line = found[row.title]
        ours = f"{line['ratio']:.3f} ({line['low']:.3f} to {line['high']:.3f})"
        lines.append([row.name, row.shown, ours, "" if quick else row.fits(line["ratio"]), "", "", ""])
    told = f"`python scripts/benchmark.py {each.benchmark}`, with {listed(content['machine'])}"
    return [*table(lines), "", told]


def table(rows: list[list[str]]) -> list[str]:
    filled = [index for index, column in enumerate(zip(*rows)) if any(column)]
    kept = [[row[index] for index in filled] for row in (HEAD, ["---"] * len(HEAD), *rows)]
    return [f"| {line} |" for line in aligned(kept, between=" | ")]


def commands(each: Publication) -> Iterator[str]:
    """Of each row; a text is FILE there, wherever it lies here."""
    width = max(len(row.name) for row in each.rows)
    for row in each.rows:
        words = [word for word in row.words if not (each.text and word.startswith(f"{each.text}="))]
        words += [f"{each.text}=FILE"] if each.text else []
        seeds = ",".join(str(seed) for seed in row.seeds)
        multirun = "-m " if len(row.seeds) > 1 else ""
        yield f"{row.name:<{width}}  python scripts/train.py {multirun}{' '.join(words)} seed={seeds}"


def plain(line: str) -> str:
    """A line with single spaces: how wide a column is depends on the other rows."""
    return " ".join(line.split())


def versions(runs: Sequence[Run]) -> str:
    return " ".join(sorted({listed(RunFolder(run.folder).read_summary()["versions"]) for run in runs}))


def listed(named: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in named.items()) + "."


def panels(each: Publication, groups: Sequence[tuple[Row, Group]]) -> "list[Panel]":
    """Learning curves, a panel for every line of rows; and where rows have sizes, the numbers against them."""
    from bptt.figures import Panel

    found = []
    log_x = 10 if each.log_x else None
    blank = Panel(TRAINED, each.curve, {}, log_x=log_x, log_y=each.log_y, references=each.references)
    for line in dict.fromkeys(row.line for row, _ in groups):
        curves = {row.name: learning_curve(group, each.curve) for row, group in groups if row.line == line}
        shown = {name: curve for name, curve in curves.items() if curve}
        if shown:
            found.append(blank._replace(curves=shown, title=line))
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
