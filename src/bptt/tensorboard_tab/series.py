"""Curves and settings of runs as plain numbers, read through TensorBoard's data provider."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboard.data.provider import DataProvider, RunTagFilter, TensorDatum
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from bptt.tensorboard_tab.curve import Curve, from_bytes
from bptt.tensorboard_tab.summary import PLUGIN
from bptt.tensorboard_tab.thinning import MAX_POINTS, thinned

MAX_LOOKS = 1000  # of one run and tag, per response
MAX_RUNS = 64  # per response


class CurveReader:
    """Runs and curves of one experiment. Nothing is cached between requests, so responses are always up to date.

    Works with and without TensorBoard's fast data server: both are data providers.
    """

    def __init__(self, provider: DataProvider, context: Any, experiment: str):
        self.provider = provider
        self.experiment = {"ctx": context, "experiment_id": experiment}

    def runs(self) -> dict[str, Any]:
        """Runs with curves, each with the newest step of its tags and its hyperparameters; names of runs without."""
        series = self.provider.list_tensors(**self.experiment, plugin_name=PLUGIN) or {}
        started = {run.run_name: run.start_time for run in self.provider.list_runs(**self.experiment)}
        values = self.hyperparameters()
        names = sorted(series, key=lambda name: (started.get(name) or 0, name))
        runs = [
            {
                "name": name,
                "tags": {tag: each.max_step for tag, each in sorted(series[name].items())},
                "hparams": values.get(name, {}),
            }
            for name in names
        ]
        return {"runs": runs, "without": sorted(set(started) - set(series))}

    def hyperparameters(self) -> dict[str, dict[str, bool | float | str]]:
        """Hyperparameters of each run, from its row in the HParams table."""
        by_run = self.provider.list_tensors(
            **self.experiment,
            plugin_name=hparams.PLUGIN_NAME,
            run_tag_filter=RunTagFilter(tags=[hparams.SESSION_START_INFO_TAG]),
        )
        return {run: session_values(series.plugin_content) for run, tags in by_run.items() for series in tags.values()}

    def newest(self, tag: str, runs: Sequence[str], *, points: int) -> dict[str, Any]:
        """The newest look of each run."""
        looks = self.read(tag, runs[:MAX_RUNS], samples=1)
        return {"tag": tag, "curves": {run: plain(each[-1], points) for run, each in looks.items()}}

    def over_steps(self, tag: str, run: str, *, points: int) -> dict[str, Any]:
        """All looks of one run."""
        looks = self.read(tag, [run], MAX_LOOKS).get(run, [])
        return {"tag": tag, "run": run, "looks": [plain(datum, points) for datum in looks]}

    def read(self, tag: str, runs: Sequence[str], samples: int) -> dict[str, list[TensorDatum]]:
        by_run = self.provider.read_tensors(
            **self.experiment,
            plugin_name=PLUGIN,
            downsample=samples,
            run_tag_filter=RunTagFilter(runs=list(runs), tags=[tag]),
        )
        return {run: tags[tag] for run, tags in by_run.items() if tags.get(tag)}


def session_values(content: bytes) -> dict[str, bool | float | str]:
    info = HParamsPluginData.FromString(content).session_start_info
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in sorted(info.hparams.items())}
    return {
        name: value if isinstance(value, str) or math.isfinite(value) else str(value) for name, value in values.items()
    }


def plain(datum: TensorDatum, points: int) -> dict[str, Any]:
    """One look for JSON: numbers with five digits, and None for those that are not finite."""
    curve = from_bytes(datum.numpy.item())
    curve = reduced(curve, points)
    columns = {name: digits(column) for name, column in curve.columns.items()}
    return {"step": datum.step, "places": curve.places.tolist(), "columns": columns, "facts": facts(curve.facts)}


def reduced(curve: Curve, points: int) -> Curve:
    """The curve thinned to at most `points` points. That of the logged horizon stays: the page marks it."""
    rows = np.array(list(curve.columns.values()))
    horizon = np.flatnonzero(curve.places == curve.facts.get("horizon")).tolist()
    chosen: NDArray[np.int64] = thinned(rows, max_points=min(points, MAX_POINTS), axis="linear", keep=horizon)
    return curve if len(chosen) == len(curve.places) else curve.at(chosen)


def digits(values: NDArray[np.float64]) -> list[float | None]:
    """Values with five significant digits; None for those that are not finite."""
    finite = np.isfinite(values)
    sized = finite & (values != 0)
    scale = 10.0 ** (4 - np.floor(np.log10(np.abs(values, where=sized, out=np.ones(len(values))))))
    rounded = np.round(np.where(finite, values, 0) * scale) / scale
    return [value if is_finite else None for value, is_finite in zip(rounded.tolist(), finite.tolist())]


def facts(values: Mapping[str, Any]) -> dict[str, Any]:
    """Finite numbers, None and lists of integers only; other values in the event file are dropped."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, list):
            kept[name] = [each for each in value if isinstance(each, int)]
        elif value is None or (isinstance(value, int | float) and math.isfinite(value)):
            kept[name] = value
    return kept
