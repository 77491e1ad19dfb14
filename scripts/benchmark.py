"""Measure what this project adds to the time of training: python scripts/benchmark.py [step] [watch] [exact]

    step     a training step through Lightning, against a bare loop on the same kernel with the same data
    watch    a training step with GradientFlow at its default schedule and at every update, against one without
    exact    full BPTT in segments, against plain autograd over the whole sequence: time and memory of saved tensors

Variants take turns, so that what else the machine does meets all alike. Each line gives the median of the ratios of
neighbouring repetitions, with the quartiles. By default all sections.

    repetitions=5    how often each variant runs
    out=FOLDER       where benchmark.json goes; by default outputs/benchmarks
"""

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from composition import build_module, build_trainer, compose_config, number, run_script, script_arguments

MODELS = ("elman", "gru", "lstm")
SIZES = ("model.hidden_size=128", "task.length=500", "task.batch_size=32", "estimator.chunk_size=100")
QUIET = ("trainer.limit_val_batches=0", "trainer.enable_progress_bar=false")
UNWATCHED = ("~callbacks.jacobian_spectrum", "~callbacks.parameter_norms", "~callbacks.checkpoint")
WARM_UP = 4  # batches


def step(repetitions: int) -> list[dict[str, Any]]:
    rows = []
    for model in MODELS:
        words = (f"model={model}", *SIZES, *QUIET, *UNWATCHED, "~callbacks.gradient_flow", "~callbacks.divergence")
        variants = {"bare loop": partial(bare, words), "Lightning": partial(through, words, 30)}
        rows += compared(f"step, {model}", variants, repetitions)
    return rows


def watch(repetitions: int) -> list[dict[str, Any]]:
    rows = []
    for model in MODELS:
        words = (f"model={model}", *SIZES, *QUIET, *UNWATCHED)
        without, every = (*words, "~callbacks.gradient_flow"), (*words, "callbacks.gradient_flow.every_n_updates=1")
        variants = {
            "without": partial(through, without, 40),
            "at every update": partial(through, every, 40, figures=False),
            "default schedule": partial(through, words, 200),
            "without, longer": partial(through, without, 200),
        }
        found = interleaved(variants, repetitions)
        rows.append(row(f"watch, {model}: every update", found["at every update"], found["without"]))
        rows.append(row(f"watch, {model}: default schedule", found["default schedule"], found["without, longer"]))
    return rows


def exact(repetitions: int, num_timesteps: int = 1000) -> list[dict[str, Any]]:
    """Of one layer of 128 units on 32 sequences of tokens."""
    import torch

    from bptt.estimators import Chunked, Estimator, Full
    from bptt.layers import GRU, LSTM, Elman
    from bptt.measures.memory import saved_tensor_bytes
    from bptt.model import SequenceModel
    from bptt.tasks.base import Batch, cross_entropy

    tokens = torch.randint(32, (num_timesteps + 1, 32))
    batch = Batch(tokens[:-1], tokens[1:])

    def loss(predictions: torch.Tensor, batch: Batch) -> torch.Tensor:
        return cross_entropy(predictions, batch.targets).mean()

    def run(estimator: Estimator, model: SequenceModel) -> float:
        began = time.perf_counter()
        for _ in estimator.updates(model, loss, batch, model.initial_state(32)):
            model.zero_grad()
        return time.perf_counter() - began

    rows = []
    for layer in (Elman, GRU, LSTM):
        model = SequenceModel(layer, input_size=32, output_size=32, hidden_size=128)
        variants = {"plain": partial(run, Chunked(num_timesteps), model), "segments": partial(run, Full(), model)}
        rows += compared(f"exact, {layer.__name__}: time", variants, repetitions)
        peaks = {}
        for name, variant in variants.items():
            with saved_tensor_bytes() as saved:
                variant()
            peaks[name] = saved.peak
        rows.append(row(f"exact, {layer.__name__}: saved tensors", [peaks["segments"]], [peaks["plain"]]))
    return rows


def through(words: Sequence[str], num_batches: int, *, figures: bool = True) -> float:
    """Seconds a batch of a run through Lightning, after a few batches to warm up."""
    from lightning import Callback, LightningModule, Trainer

    from bptt.lightning.callbacks import gradient_flow
    from bptt.lightning.data import TaskData

    class Clock(Callback):
        def __init__(self) -> None:
            self.ticks: list[float] = []

        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            self.ticks.append(time.perf_counter())

    config = compose_config([*words, f"trainer.limit_train_batches={num_batches}"])
    module, clock = build_module(config), Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, Path(folder))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, gradient_flow.GradientFlow) and not figures:
                callback.looks = 10 * gradient_flow.FIRST_FIGURE**4  # where figures have become rare
        trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        trainer.fit(module, datamodule=TaskData(module))
    return (clock.ticks[-1] - clock.ticks[WARM_UP]) / (len(clock.ticks) - 1 - WARM_UP)


def bare(words: Sequence[str], num_batches: int = 30) -> float:
    """The same steps as a user would write them without Lightning: kernel, readout, clipping, optimizer."""
    from torch import nn

    config = compose_config(words)
    module = build_module(config)
    task, chunk = module.task, config.estimator.chunk_size
    kernel, readout = module.model.get_submodule("layers.0.kernel"), module.model.readout
    optimizer = module.make_optimizer(module.parameters())
    state: Any = None
    ticks = []
    for index in range(num_batches):
        batch = task.batch("train", index)
        inputs = nn.functional.one_hot(batch.inputs.long(), task.input_size).float()
        for part, targets in zip(inputs.split(chunk), batch.targets.split(chunk)):
            outputs, state = kernel(part, state)
            predictions = readout(outputs)
            loss = nn.functional.cross_entropy(predictions.flatten(0, 1), targets.flatten().long())
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            state = tuple(each.detach() for each in state) if isinstance(state, tuple) else state.detach()
        ticks.append(time.perf_counter())
    return (ticks[-1] - ticks[WARM_UP]) / (num_batches - 1 - WARM_UP)


def interleaved(variants: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """What each variant measured, in turns, after one turn to warm up."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repetitions + 1):
        for name, variant in variants.items():
            measured = variant()
            if turn:
                found[name].append(measured)
    return found


def compared(title: str, variants: Mapping[str, Callable[[], float]], repetitions: int) -> list[dict[str, Any]]:
    """The second of two variants against the first."""
    first, second = interleaved(variants, repetitions).values()
    return [row(title, second, first)]


def row(title: str, measured: Sequence[float], baseline: Sequence[float]) -> dict[str, Any]:
    ratios = [each / base for each, base in zip(measured, baseline)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    values = {"measured": statistics.median(measured), "baseline": statistics.median(baseline)}
    found = {"title": title, "ratio": middle, "low": low, "high": high, **values}
    print(f"{title:<36} {middle:6.3f}  ({low:.3f} to {high:.3f})   {values['measured']:.4g} / {values['baseline']:.4g}")
    return found


SECTIONS = {"step": step, "watch": watch, "exact": exact}


def main() -> None:
    arguments, words = script_arguments({"repetitions": "5", "out": "outputs/benchmarks"})
    repetitions = number(int, repetitions=arguments["repetitions"])
    unknown = [word for word in words if word not in SECTIONS]
    if unknown:
        raise ValueError(f"sections must be of {', '.join(SECTIONS)}, got {' '.join(unknown)}")
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    print("  ".join(f"{name} {value}" for name, value in versions.items()))
    print(f"{'':<36}  ratio  (quartiles)   seconds, or bytes")
    rows = [found for name in words or SECTIONS for found in SECTIONS[name](repetitions)]
    out = Path(arguments["out"])
    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmark.json").write_text(json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    run_script(main, __doc__)
