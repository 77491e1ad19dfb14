"""Panels of a comparison: scores against chunk sizes, gradients by lag, learning curves."""

import math
import re
import statistics
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bptt.run_folder import RunFolder
from bptt.runs.groups import ABSENT, Group, last_value, mean
from bptt.runs.reading import Points, Run
from bptt.tensorboard_tab.history import CurveHistory

if TYPE_CHECKING:
    from bptt.figures import Curve, Panel

CHUNK_SIZE = "estimator.chunk_size"
TRAINED = "timesteps trained, per stream"
SHOWN = 6  # largest number of curves in a panel, and of panels of learning curves; the best are shown


def panels(groups: Sequence[Group], *, metric: str) -> "list[Panel]":
    """Score and truncation bias against the chunk size, gradient by lag, learning curves: those with data."""
    if CHUNK_SIZE not in groups[0].values and not any(run.curves for group in groups for run in group.runs):
        return []  # before matplotlib is imported, which takes time
    lines: dict[tuple[Any, ...], list[Group]] = {}  # groups that differ only in the chunk size, the best first
    for group in groups:
        others = tuple(value for key, value in group.values.items() if key != CHUNK_SIZE)
        lines.setdefault(others, []).append(group)
    shown = sorted(lines.values(), key=lambda line: len(line) == 1)[:SHOWN]  # those of several sizes first
    all_panels = [
        *against_chunk_size(shown, metric, lambda run: run.metrics[metric]),
        *against_chunk_size(
            shown,
            "relative bias of the gradient, at the end",
            lambda run: last_value(run.curves.get("truncation_bias/relative")),
        ),
        *gradients_by_lag([line[0] for line in shown]),
        *learning_curves(list(lines.values()), metric),
    ]
    filled = (
        panel._replace(curves={name: curve for name, curve in panel.curves.items() if curve}) for panel in all_panels
    )
    return [panel for panel in filled if panel.curves]


def against_chunk_size(
    lines: Sequence[Sequence[Group]], ylabel: str, value: Callable[[Run], float | None]
) -> "Iterator[Panel]":
    """One curve for each line, if any has several sizes; an estimator without a chunk size is a horizontal line."""
    from bptt.figures import Panel

    curves: dict[str, Curve] = {}
    levels, single = {}, {}
    for line in lines:
        points = []
        name = line[0].label(without=CHUNK_SIZE)
        for group in line:
            values = [each for run in group.counted if (each := value(run)) is not None]
            size = group.values.get(CHUNK_SIZE)
            if isinstance(size, int):
                points += [{size: each} for each in values]
            elif size == ABSENT and values:
                levels[name] = statistics.fmean(values)
        curves[name] = band(points)
        if points:
            single[name] = [(float(size), each) for point in points for size, each in point.items()]
    if any(len(curve) > 1 for curve in curves.values()):
        yield Panel("chunk size, timesteps", ylabel, curves, log_x=2, levels=levels, points=single)


def gradients_by_lag(groups: Sequence[Group]) -> "Iterator[Panel]":
    """Gradient by lag of each layer, at the last look: whole curves if the runs hold them, else at a few lags."""
    from bptt.figures import Panel

    tags = {tag for group in groups for run in group.drawn for tag in run.curves}
    for layer in sorted({int(match[1]) for tag in tags if (match := re.search(r"/layer(\d+)/", tag))}):
        prefix = f"gradient_flow/layer{layer}/"
        curves, marks = {}, {}
        for group in groups:
            horizons = [run.curves.get(f"{prefix}horizon", {}) for run in group.drawn]
            if (horizon := mean(last_value(points) for points in horizons)) is not None:
                marks[group.label()] = horizon
            by_run = []
            for run, at_updates in zip(group.drawn, horizons):
                if curve := last_curve(run, layer):
                    by_run.append(curve)
                    continue
                by_lag = {int(tag.rpartition("_")[2]): run.curves[tag] for tag in run.curves if f"{prefix}lag_" in tag}
                newest = max(at_updates, default=None)
                by_run.append({lag: points[newest] for lag, points in by_lag.items() if newest in points})
            curves[group.label()] = common_band(at_common_lags(by_run))
        label, ylabel = "lag k, timesteps; dotted: horizon", f"‖∂L$_s$/∂h‖ at lag k, layer {layer}, at the end"
        yield Panel(label, ylabel, curves, log_x=10, log_y=True, rounding=True, marks=marks, share_y="lag")


def last_curve(run: Run, layer: int) -> Points:
    """Median gradient by lag at the last look, from lag 1 on; empty if the run folder holds no curves."""
    path = RunFolder(run.folder).curves("gradient_flow")
    try:
        looks = CurveHistory.load(path, until=sys.maxsize).looks.get(f"layer{layer}/h/by_lag", {})
    except ValueError:  # the file is being written, or its process was killed
        return {}
    if not looks:
        return {}
    curve = looks[max(looks)]
    pairs = zip(curve.places.tolist(), curve.columns["median"].tolist())
    return {lag: value for lag, value in pairs if lag > 0 and math.isfinite(value)}


def at_common_lags(curves: Sequence[Points]) -> list[Points]:
    """Curves, interpolated linearly, at every lag of any of them within the range that all of them cover."""
    curves = [points for points in curves if points]
    if not curves:
        return []
    first, last = max(min(points) for points in curves), min(max(points) for points in curves)
    lags = sorted(lag for lag in set[int]().union(*curves) if first <= lag <= last)
    return [dict(zip(lags, interpolated(points, lags))) for points in curves]


def interpolated(points: Points, lags: Sequence[int]) -> Iterator[float]:
    """Linear interpolation of a curve at every lag."""
    known = sorted(points)
    for lag in lags:
        right = bisect_right(known, lag)
        low, high = known[right - 1], known[min(right, len(known) - 1)]
        share = (lag - low) / (high - low) if high > low else 0.0
        yield points[low] + share * (points[high] - points[low])


def size_order(size: Any) -> tuple[bool, float, str]:
    """Numbers in their order, then the others: no size, and sizes that are texts."""
    return (False, size, "") if isinstance(size, int | float) else (True, 0.0, str(size))


def learning_curves(lines: Sequence[Sequence[Group]], metric: str) -> "Iterator[Panel]":
    """The metric over training: a panel for each line of several chunk sizes, and one for each task's other groups."""
    from bptt.figures import Panel

    several = [line for line in lines if len(line) > 1][:SHOWN]
    for line in several:
        # Sorted by size, so that a size has the same colour in all panels.
        sizes = {group.values[CHUNK_SIZE]: learning_curve(group, metric) for group in line[: 2 * SHOWN]}
        curves = {f"chunk size {size}": sizes[size] for size in sorted(sizes, key=size_order)}
        title, share = line[0].label(without=CHUNK_SIZE), f"{metric} {line[0].task}"
        yield Panel(TRAINED, metric, curves, title=title, ordered=True, share_y=share)
    single = [line[0] for line in lines if len(line) == 1]
    for task in dict.fromkeys(group.task for group in single):
        members = [group for group in single if group.task == task]
        curves = {group.label(): learning_curve(group, metric) for group in members[:SHOWN]}
        parts = [task] if task else []
        parts += [f"the best {SHOWN} of {len(members)}"] if len(members) > SHOWN else []
        yield Panel(TRAINED, metric, curves, title=", ".join(parts))


def learning_curve(group: Group, metric: str) -> "Curve":
    """Mean and deviation at every step from the first common one; a run that stopped early keeps its last value."""
    runs = [run for run in group.drawn if run.curves.get(metric)]
    steps = sorted(set[int]().union(*(run.curves[metric] for run in runs)))
    return common_band([newest_values(run, metric, steps) for run in runs])


def newest_values(run: Run, metric: str, steps: Iterable[int]) -> Points:
    """The newest value at every step; a run that has not finished has none beyond its last step."""
    points = run.curves[metric]
    known = sorted(points)
    last = math.inf if run.status.has_score else known[-1]
    return {step: points[known[bisect_right(known, step) - 1]] for step in steps if known[0] <= step <= last}


def common_band(curves: Sequence[Points]) -> "Curve":
    """Mean and deviation at the steps or lags that all curves share, or at all of them if they share none."""
    curves = [points for points in curves if points]
    common = set[int]().union(*curves).intersection(*curves)
    return band([{x: points[x] for x in common or points} for points in curves])


def band(curves: Sequence[Points]) -> "Curve":
    """Mean and standard deviation over runs at every step or lag."""
    values: dict[int, list[float]] = {}
    for points in curves:
        for x, value in points.items():
            values.setdefault(x, []).append(value)
    return {
        x: (statistics.fmean(by_run), statistics.stdev(by_run) if len(by_run) > 1 else 0.0)
        for x, by_run in sorted(values.items())
    }
