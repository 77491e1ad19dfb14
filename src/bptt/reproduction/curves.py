"""Figures of the runs of a publication: learning curves, and scores against sizes."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bptt.reproduction.rows import Publication
from bptt.runs.groups import Group
from bptt.runs.panels import TRAINED, learning_curve

if TYPE_CHECKING:
    from bptt.figures import Curve, Panel


def draw(each: Publication, groups: Mapping[str, Group], path: Path) -> bool:
    """Save the figure of groups of runs by row. Returns False if they have no curves."""
    from bptt import figures

    shown_panels = panels(each, groups)
    if shown_panels:
        path.parent.mkdir(parents=True, exist_ok=True)
        figures.panels(shown_panels).savefig(path, dpi=90)
    return bool(shown_panels)


def panels(each: Publication, groups: Mapping[str, Group]) -> "list[Panel]":
    """One panel of learning curves for every line of rows. If rows have sizes, also a panel of scores against sizes."""
    from bptt.figures import Panel

    learning_panels = []
    blank = Panel(
        TRAINED, each.curve, {}, log_x=10 if each.log_x else None, log_y=each.log_y, references=each.references
    )
    for line in dict.fromkeys(row.line for row in each.rows):
        rows = [row.name for row in each.rows if row.line == line and row.name in groups]
        curves = {name: learning_curve(groups[name], each.curve) for name in rows}
        shown = {name: curve for name, curve in curves.items() if curve}
        if shown:
            learning_panels.append(blank._replace(curves=shown, title=line))
    sizes: dict[str, Curve] = {}
    for line in dict.fromkeys(row.line for row in each.rows if row.size is not None):
        published, ours = {}, {}
        for row in each.rows:
            if row.line == line and row.size is not None:
                if isinstance(row.published, int | float):
                    published[row.size] = (row.published, row.deviation or 0.0)
                group = groups.get(row.name)
                if group is not None and group.mean is not None:
                    ours[row.size] = (group.mean, group.deviation or 0.0)
        if ours:
            sizes |= {f"published, {line}": published} if published else {}
            sizes[f"ours, {line}"] = ours
    recommended = {} if each.recommended is None else dict.fromkeys(sizes, float(each.recommended))
    size_panels = [Panel("K, timesteps", each.metric, sizes, log_x=2, marks=recommended)] if sizes else []
    return [*learning_panels, *size_panels]
