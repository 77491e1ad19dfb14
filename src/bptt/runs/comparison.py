"""A comparison of runs as a table, a Markdown file, a CSV file, an HTML file and a figure."""

import base64
import html
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from bptt.atomic_files import replace_csv, replace_text
from bptt.configuration.paths import check_folder
from bptt.run_folder import RunFolder
from bptt.runs.groups import Group, outcome, short_keys
from bptt.runs.panels import panels

Rows = Sequence[Sequence[str]]
MEASURED = ("runs", "horizon", "seconds", "not counted")  # columns after the metric


def table(groups: Sequence[Group], *, metric: str) -> list[list[str]]:
    """A header and a row for each group. † marks a score that leaves out runs."""
    keys = list(groups[0].values)
    rows = [[*short_keys(keys, taken=MEASURED), metric, *MEASURED]]
    for group in groups:
        score = with_spread(group.mean, group.deviation)
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


def with_spread(mean: float | None, deviation: float | None) -> str:
    """Mean ± deviation, with two digits of the deviation and as many decimals of the mean: "0.237 ± 0.012"."""
    if mean is None:
        return "–"
    if deviation is None:
        return f"{mean:.4g}"
    if not deviation > 0:
        return f"{mean:.4g} ± 0"
    decimals = 1 - math.floor(math.log10(deviation))
    if not 0 <= decimals <= 8:  # very large and very small numbers are shorter with an exponent
        return f"{mean:.4g} ± {deviation:.2g}"
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"


def run_table(groups: Sequence[Group], *, metric: str) -> list[list[str]]:
    """A header and a row for each run, with numbers in full."""
    keys = list(groups[0].values)
    measured = ("seed", "outcome", metric, "horizon", "seconds", "folder", "error")
    rows = [[*short_keys(keys, taken=measured), *measured]]
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
    """Rows as lines of text in aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return [between.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def markdown(title: str, notes: Sequence[str], rows: Rows, details: Rows, *, picture: str) -> str:
    """The comparison as Markdown. picture: address of the figure; empty if there is none."""

    def table_lines(rows: Rows) -> list[str]:
        rows = [[" ".join(html.escape(cell, quote=False).replace("|", "\\|").split()) for cell in row] for row in rows]
        return [f"| {line} |" for line in aligned([rows[0], ["---"] * len(rows[0]), *rows[1:]], between=" | ")]

    figure = [f"![{title}]({picture})", ""] if picture else []
    text = [f"# {title}", "", *table_lines(rows), "", *notes, "", *figure, "## Runs", "", *table_lines(details)]
    return "\n".join(text) + "\n"


def page(
    title: str,
    notes: Sequence[str],
    rows: Rows,
    details: Rows,
    *,
    picture: bytes,
    links: Mapping[str, str] | None = None,
) -> str:
    """The comparison as one self-contained HTML file.

    picture: content of a PNG file; empty if there is none. links: relative address for each cell text that is a link.
    """

    def cell(text: str) -> str:
        escaped, link = html.escape(text), (links or {}).get(text)
        return f'<a href="{html.escape(link)}">{escaped}</a>' if link else escaped

    def html_table(rows: Rows) -> str:
        head, *body = ([cell(text) for text in row] for row in rows)
        lines = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>\n" for row in body)
        return f'<div class="wide"><table>\n<tr><th>{"</th><th>".join(head)}</th></tr>\n{lines}</table></div>'

    escaped_title = html.escape(title)
    paragraphs = "".join(f"<p>{html.escape(note)}</p>\n" for note in notes)
    encoded = base64.b64encode(picture).decode()
    image = f'<img alt="{escaped_title}: the curves" src="data:image/png;base64,{encoded}">' if picture else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{escaped_title}</title>
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
<h1>{escaped_title}</h1>
{html_table(rows)}
{paragraphs}{image}
<details><summary>All runs</summary>
{html_table(details)}
</details>
</body>
</html>
"""


def figure_links(groups: Sequence[Group], out: Path) -> dict[str, str]:
    """Address of each run's figure relative to the folder `out`, by the run's folder. Runs without one are left out."""
    figures = {str(run.folder): RunFolder(run.folder).gradient_flow for group in groups for run in group.runs}
    return {name: quote(os.path.relpath(path, out)) for name, path in figures.items() if path.is_file()}


def write_comparison(
    groups: Sequence[Group], rows: Rows, out: Path, *, metric: str, notes: Sequence[str]
) -> list[Path]:
    """Write the files of a comparison and return their paths; no picture if there are no curves."""
    check_folder("out", str(out))
    out.mkdir(parents=True, exist_ok=True)
    paths = {suffix: out / f"comparison.{suffix}" for suffix in ("md", "csv", "html", "png")}
    shown_panels = panels(groups, metric=metric)
    if shown_panels:
        from bptt import figures

        figures.save(figures.panels(shown_panels), paths["png"])
    else:
        paths.pop("png").unlink(missing_ok=True)  # left by an earlier comparison
    title = f"{metric} of {sum(len(group.runs) for group in groups)} runs"
    details = run_table(groups, metric=metric)
    picture = paths["png"].read_bytes() if shown_panels else b""
    picture_name = paths["png"].name if shown_panels else ""
    replace_text(paths["md"], markdown(title, notes, rows, details, picture=picture_name))
    page_text = page(title, notes, rows, details, picture=picture, links=figure_links(groups, out))
    replace_text(paths["html"], page_text)
    replace_csv(paths["csv"], details)
    return list(paths.values())
