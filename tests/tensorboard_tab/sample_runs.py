"""Event files of made-up runs: exponentially decaying gradients, with numbers that a test can know."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

from bptt.lightning.events import EventFile
from bptt.tensorboard_tab.curve import Curve
from bptt.tensorboard_tab.summary import summary_value


def decaying(num_lags: int, *, decay: float, scale: float = 1.0, epsilon: float = 0.01, update: int = 1) -> Curve:
    """φ_k = scale · decay^k, with a band of half and twice as much."""
    lags = np.arange(num_lags)
    median = np.asarray(scale * decay**lags, dtype=np.float64)
    reached = int((median >= epsilon * median[0]).nonzero()[0].max())
    facts = {
        "update": update,
        "epsilon": epsilon,
        "horizon": reached,
        "horizon_low": max(0, reached - 2),
        "horizon_high": min(num_lags - 1, reached + 3),
        "decay_rate": decay,
        "cut": num_lags,
    }
    return Curve(lags, {"median": median, "low": median / 2, "high": median * 2, "reach": median / scale}, facts)


def by_timestep(curve: Curve, *, start: int, borders: list[int]) -> Curve:
    columns = {name: values[::-1].copy() for name, values in curve.columns.items()}
    return Curve(curve.places + start, columns, {"update": 1, "start": start, "borders": borders})


def bias(num_powers: int, *, strength: float) -> Curve:
    sizes = 2 ** np.arange(num_powers)
    relative = strength * np.exp(-np.arange(num_powers) / 2)
    columns = {"relative": relative, "cosine": 1 - relative**2 / 2, "norm_ratio": 1 - relative / 2}
    return Curve(sizes, columns, {"update": 1, "chunk_size": 8}, logarithmic=False)


def spectrum(num_lags: int, *, growth: float) -> Curve:
    lags = np.arange(num_lags)
    columns = {f"singular_value_{rank}": np.asarray(growth ** (lags * rank), dtype=np.float64) for rank in (1, 2, 4, 8)}
    return Curve(lags, columns, {"update": 1, "lyapunov": float(np.log(growth))})


def write_run(
    folder: Path,
    looks: Mapping[int, Mapping[str, Curve]],
    hparams: Mapping[str, bool | float | str] | None = None,
    scalars: Mapping[str, float] | None = None,
) -> None:
    """looks: curves by tag, by step."""
    file = EventFile(folder)
    if hparams:
        info = SessionStartInfo(start_time_secs=1.0)
        for name, value in hparams.items():
            kind: Any = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
            setattr(info.hparams[name], f"{kind}_value", value)
        described = metadata.create_summary_metadata(HParamsPluginData(session_start_info=info))
        entry = Summary.Value(tag=metadata.SESSION_START_INFO_TAG, metadata=described, tensor=metadata.NULL_TENSOR)
        file.add_event(Event(step=0, wall_time=1.0, summary=Summary(value=[entry])))
    for step, curves in looks.items():
        values = [summary_value(tag, curve) for tag, curve in curves.items()]
        values += [Summary.Value(tag=tag, simple_value=value) for tag, value in (scalars or {}).items()]
        file.add_event(Event(step=step, wall_time=1.0 + step, summary=Summary(value=values)))
    file.close()


def looks_of(
    model: str, chunk: int, seed: int, steps: Sequence[int], *, layers: int = 1
) -> dict[int, dict[str, Curve]]:
    """Curves of every callback at each step; the gradient decays more slowly as training goes on."""
    base = {"elman": 0.8, "gru": 0.93, "lstm": 0.96}[model]
    looks = {}
    for index, step in enumerate(steps):
        decay = base + 0.03 * index / len(steps) + 0.002 * seed
        curves = {"truncation_bias": bias(8, strength=1.5 * base)}
        for layer in range(1, layers + 1):
            flow = decaying(chunk, decay=decay - 0.05 * (layers - layer), scale=0.1 * layer, update=index + 1)
            for tensor in ("h", "c") if model == "lstm" else ("h",):
                curves[f"layer{layer}/{tensor}/by_lag"] = flow
                curves[f"layer{layer}/{tensor}/by_timestep"] = by_timestep(flow, start=0, borders=[0])
            curves[f"layer{layer}/jacobian"] = spectrum(min(chunk, 30), growth=decay)
        looks[step] = curves
    return looks


def sample_sweep(folder: Path, *, num_looks: int = 12) -> None:
    for model in ("elman", "gru", "lstm"):
        for chunk in (16, 64):
            for seed in (1, 2):
                looks = looks_of(model, chunk, seed, range(100, 100 * num_looks + 1, 100), layers=2)
                hparams = {"model": model, "estimator.chunk_size": float(chunk), "seed": float(seed), "same": 3.0}
                write_run(folder / f"{model}_{chunk}_{seed}", looks, hparams)


if __name__ == "__main__":
    import sys

    sample_sweep(Path(sys.argv[1]))
