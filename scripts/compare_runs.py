"""Compare finished and unfinished runs: scores over seeds, learning curves and gradients.

    python scripts/compare_runs.py FOLDER [FOLDER …] [by=KEY,KEY] [metric=validation/loss] [mode=min] [out=FOLDER]

Reads every run found in the folders: one run, one sweep, or all of outputs. Runs that differ in their seed alone make
one line of the table: mean ± standard deviation over seeds, the best line first.

    by=KEY,KEY     what the runs are grouped by, such as by=model,chunk_size; by default all keys that differ
    metric=NAME    a metric of summary.json, as it was last
    mode=min       or max, where more is better
    out=FOLDER     where comparison.md, .csv, .html and .png go; by default the first folder

A score is of completed runs with a finite metric; the others (running, interrupted, failed, diverged) are counted
beside it. The horizon is that of the layer where the gradient reaches furthest, at the end. The HTML file is whole in
itself, to be sent.
"""

import base64
import csv
import html
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from composition import one_line, run_script, script_arguments
from run_folders import Run, find_runs, read_run
from run_groups import Group, chosen_keys, columns, grouped, outcome
from run_panels import panels

from bptt.contracts import one_of, refusal

Rows = Sequence[Sequence[str]]


def read_runs(folders: Iterable[Path], *, metric: str) -> list[Run]:
    """All runs that can be read; the others are named on stderr."""
    runs = []
    for folder in find_runs(folders):
        try:
            runs.append(read_run(folder, metric=metric))
        except (ValueError, OSError) as error:
            print(f"skipped {folder}: {one_line(error)}", file=sys.stderr)
    if not runs:
        names = " ".join(str(folder) for folder in folders)
        raise ValueError(refusal("FOLDER", "a folder with runs in it", names or None, "such as outputs"))
    known = sorted({name for run in runs for name in run.metrics})
    if known:
        one_of(known, metric=metric)
    return runs


def table(groups: Sequence[Group], *, metric: str) -> list[list[str]]:
    """A header, and a line for each group. † marks a score that does not count all runs."""
    keys = list(groups[0].values)
    rows = [[*columns(keys), metric, "runs", "horizon", "seconds", "not counted"]]
    for group in groups:
        score = "–" if group.mean is None else f"{group.mean:.4g}"
        score += f" ± {group.deviation:.2g}" if group.deviation is not None else ""
        counted = len(group.counted)
        rows.append(
            [
                *(str(value) for value in group.values.values()),
                score + ("†" if group.left_out else ""),
                str(counted),
                *("" if value is None else f"{value:.4g}" for value in (group.horizon, group.wall_seconds)),
                group.left_out,
            ]
        )
    filled = [index for index, cells in enumerate(zip(*rows[1:])) if index <= len(keys) + 1 or any(cells)]
    return [[row[index] for index in filled] for row in rows]


def run_table(groups: Sequence[Group], *, metric: str) -> list[list[str]]:
    """A header, and a line for each run: numbers in full."""
    keys = list(groups[0].values)
    rows = [[*columns(keys), "seed", "outcome", metric, "horizon", "seconds", "folder", "error"]]
    for group in groups:
        for run in group.runs:
            numbers = (run.metrics.get(metric), group._replace(runs=[run]).horizon, run.wall_seconds)
            rows.append(
                [
                    *(str(value) for value in group.values.values()),
                    str(run.seed),
                    outcome(run, metric),
                    *("" if value is None else repr(value) for value in numbers),
                    str(run.folder),
                    run.error or "",
                ]
            )
    return rows


def aligned(rows: Rows, *, between: str = "  ") -> list[str]:
    """Rows as lines of text, in columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return [between.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def markdown(title: str, notes: Sequence[str], rows: Rows, details: Rows, *, picture: str) -> str:
    def lines(rows: Rows) -> list[str]:
        rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        return [f"| {line} |" for line in aligned([rows[0], ["---"] * len(rows[0]), *rows[1:]], between=" | ")]

    shown = [f"![{title}]({picture})", ""] if picture else []
    text = [f"# {title}", "", *lines(rows), "", *notes, "", *shown, "## Runs", "", *lines(details)]
    return "\n".join(text) + "\n"


def page(title: str, notes: Sequence[str], rows: Rows, details: Rows, *, picture: bytes) -> str:
    """The comparison as one HTML file that refers to nothing outside."""

    def cells(rows: Rows) -> str:
        head, *body = ([html.escape(cell) for cell in row] for row in rows)
        lines = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>\n" for row in body)
        return f'<div class="wide"><table>\n<tr><th>{"</th><th>".join(head)}</th></tr>\n{lines}</table></div>'

    name = html.escape(title)
    said = "".join(f"<p>{html.escape(note)}</p>\n" for note in notes)
    encoded = base64.b64encode(picture).decode()
    image = f'<img alt="{name}: the curves" src="data:image/png;base64,{encoded}">' if picture else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{name}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #8886; white-space: nowrap }}
img {{ max-width: 100%; background: white; border-radius: 6px; margin: 1rem 0 }}
</style>
</head>
<body>
<h1>{name}</h1>
{cells(rows)}
{said}{image}
<details><summary>All runs</summary>
{cells(details)}
</details>
</body>
</html>
"""


def write(groups: Sequence[Group], rows: Rows, out: Path, *, metric: str, notes: Sequence[str]) -> list[Path]:
    """The four files; without curves no picture."""
    out.mkdir(parents=True, exist_ok=True)
    paths = {end: out / f"comparison.{end}" for end in ("md", "csv", "html", "png")}
    drawn = panels(groups, metric=metric)
    if drawn:
        from bptt import figures

        figures.save(figures.panels(drawn), paths["png"])
    else:
        paths.pop("png").unlink(missing_ok=True)  # of an earlier comparison
    title = f"{metric} of {sum(len(group.runs) for group in groups)} runs"
    details = run_table(groups, metric=metric)
    picture = paths["png"].read_bytes() if drawn else b""
    name = "comparison.png" if drawn else ""
    paths["md"].write_text(markdown(title, notes, rows, details, picture=name))
    paths["html"].write_text(page(title, notes, rows, details, picture=picture))
    with paths["csv"].open("w", newline="") as file:
        csv.writer(file).writerows(details)
    return list(paths.values())


def main() -> None:
    arguments, words = script_arguments({"by": None, "metric": "validation/loss", "mode": "min", "out": None})
    one_of(("min", "max"), mode=arguments["mode"])
    metric = arguments["metric"]
    runs = read_runs([Path(word) for word in words], metric=metric)
    groups = grouped(runs, chosen_keys(arguments["by"], runs), metric=metric, mode=arguments["mode"])
    rows = table(groups, metric=metric)
    notes = [f"{metric} is as it was last: mean ± standard deviation over the runs of a line."]
    if any(group.left_out for group in groups):
        notes.append("† not all runs are in the score: see “not counted”.")
    print("\n".join([*aligned(rows), "", *notes]))
    print(*write(groups, rows, Path(arguments["out"] or words[0]), metric=metric, notes=notes), sep="\n")


if __name__ == "__main__":
    run_script(main, __doc__)
