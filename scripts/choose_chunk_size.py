"""Measure what each chunk size costs, and recommend one.

    python scripts/choose_chunk_size.py run=FOLDER [checkpoint=best]      at the weights a run has reached
    python scripts/choose_chunk_size.py task=… model=… [KEY=VALUE …]      before training

For chunks of 1, 2, 4, … timesteps and other estimators, on a few batches of the training split: bias of the gradient
against the exact one (mean and spread over batches), time per timestep, memory of saved tensors; and how far back the
gradient reaches. Recommends the smallest chunk size with a relative bias below delta.

    delta=0.1      the relative bias ‖ĝ − g‖ / ‖g‖ allowed
    batches=5      how many batches are measured
    timesteps=1000 how much of each batch, at most: the part up to its last loss
    out=FOLDER     where chunk_size.csv and chunk_size.png go; by default the run's folder, or this one
"""

import csv
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bptt.configuration.arguments import positive_argument, refuse_overrides, run_argument, run_script, script_arguments
from bptt.configuration.build import build_module
from bptt.configuration.compose import compose_config
from bptt.runs.loading import load_run

if TYPE_CHECKING:
    from bptt.estimators import Estimator
    from bptt.lightning.module import BPTTModule
    from bptt.shapes import State
    from bptt.tasks.base import Batch


class Cost(NamedTuple):
    """One estimator, measured; `size` is its chunk size, or None where it has none."""

    estimator: str
    size: int | None
    bias: float
    bias_spread: float
    cosine: float
    microseconds: float
    megabytes: float


def candidates(num_timesteps: int, longest: int) -> "dict[tuple[str, int | None], Estimator]":
    """Chunked at every power of 2; beside it sliding windows of twice the stride, randomized and full."""
    from bptt.estimators import Chunked, Full, Randomized, Sliding
    from bptt.measures import chunk_sizes

    sizes = chunk_sizes(num_timesteps, longest=longest)
    found: dict[tuple[str, int | None], Estimator] = {
        ("chunked", size): Chunked(size, update="sequence") for size in sizes
    }
    found |= {("sliding", size): Sliding(size, 2 * size) for size in sizes if 4 <= size < num_timesteps / 2}
    middle = max(2, sizes[len(sizes) // 2])
    found[("randomized", middle)] = Randomized(middle, block=min(8, middle // 2), update="sequence")
    found[("full", None)] = Full()
    return found


def measure(module: "BPTTModule", *, num_batches: int, num_timesteps: int) -> "tuple[list[Cost], int]":
    """The cost of each candidate, and the gradient's horizon in timesteps: the largest of all layers."""
    import torch

    from bptt.measures import exact_flows, horizon, last_timesteps_with_loss, truncation_bias
    from bptt.measures.memory import saved_tensor_bytes
    from bptt.shapes import detach

    model, task = module.model, module.task
    whole = [task.batch("train", index) for index in range(num_batches)]
    starts = [model.initial_state(batch.batch_size) for batch in whole]
    measured = [last_timesteps_with_loss(model, batch, start, num_timesteps) for batch, start in zip(whole, starts)]
    longest = max(batch.num_timesteps for batch in whole)
    estimators = candidates(longest, num_timesteps)
    biases = []
    reaches = []
    for batch, state, start in measured:
        biases.append(truncation_bias(model, task.loss, batch, state, estimators, start=start))
        flows = exact_flows(model, task.loss, batch, state, num_sequences=batch.batch_size)
        reaches.append(max(horizon(flow.by_lag["h"], num_losses=len(flow.losses)).lag for flow in flows))
    costs = []
    for key, estimator in estimators.items():

        def run(batch: "Batch", state: "State", estimator: "Estimator" = estimator) -> float:
            """Seconds a timestep."""
            began = time.perf_counter()
            for _ in estimator.updates(model, task.loss, batch, detach(state)):
                model.zero_grad()
            return (time.perf_counter() - began) / batch.num_timesteps

        seconds = [run(*each[:2]) for each in measured[:3]]
        with saved_tensor_bytes() as saved:
            run(*measured[0][:2])
        relative = torch.tensor([each[key].relative for each in biases])
        cosine = sum(each[key].cosine for each in biases) / len(biases)
        spread = float(relative.std()) if len(biases) > 1 else 0.0
        microseconds = sorted(seconds)[len(seconds) // 2] * 1e6
        costs.append(Cost(*key, float(relative.mean()), spread, cosine, microseconds, saved.peak / 1e6))
    return costs, max(reaches)


def recommend(costs: list[Cost], *, delta: float) -> Cost | None:
    """The smallest chunk whose relative bias, and that of all larger ones, is below delta."""
    best = None
    for cost in sorted((cost for cost in costs if cost.estimator == "chunked"), key=lambda cost: -(cost.size or 0)):
        if not cost.bias < delta:
            break
        best = cost
    return best


def advice(best: Cost | None, horizon: int, *, delta: float) -> str:
    """The recommendation and its reason, in one or two lines."""
    reach = f"The gradient reaches {horizon} timesteps back, to 1 % of its size."
    if best is None:
        return f"No chunk size has a relative bias below {delta:g}: use estimator=full. {reach}"
    return (
        f"Recommended: estimator=chunked estimator.chunk_size={best.size}, the smallest whose relative bias, "
        f"{best.bias:.3g}, is below {delta:g}. {reach}"
    )


def main() -> None:
    arguments, overrides = script_arguments(
        {"run": None, "checkpoint": "best", "delta": "0.1", "batches": "5", "timesteps": "1000", "out": None}
    )
    delta = positive_argument(float, delta=arguments["delta"])
    counts = {name: positive_argument(int, **{name: arguments[name]}) for name in ("batches", "timesteps")}
    if arguments["run"] is None:
        module, out = build_module(compose_config(overrides)), Path(arguments["out"] or ".")
    else:
        refuse_overrides(overrides)
        folder = run_argument(arguments["run"])
        module, out = load_run(folder, checkpoint=arguments["checkpoint"]), Path(arguments["out"] or folder)
    from rich.console import Console
    from rich.table import Table

    from bptt import figures

    costs, horizon = measure(module, num_batches=counts["batches"], num_timesteps=counts["timesteps"])
    best = recommend(costs, delta=delta)
    table = Table(
        "estimator", "size", "relative bias", "± over batches", "cosine", "µs a timestep", "saved MB", box=None
    )
    for cost in costs:
        mark = " ◄" if cost is best else ""
        figures_of = (f"{value:.3g}" for value in cost[2:])
        table.add_row(cost.estimator, f"{cost.size or ''}{mark}", *figures_of)
    Console().print(table)
    print(advice(best, horizon, delta=delta))
    out.mkdir(parents=True, exist_ok=True)
    with (out / "chunk_size.csv").open("w", newline="") as file:
        csv.writer(file).writerows([Cost._fields, *costs])
    lines: dict[str, list[tuple[float, ...]]] = {}
    for cost in costs:
        lines.setdefault(cost.estimator, []).append((cost.size or 0, *cost[2:]))
    figures.save(figures.chunk_size_costs(lines, delta=delta, horizon=horizon), out / "chunk_size.png")
    print(f"{out / 'chunk_size.csv'}\n{out / 'chunk_size.png'}")


if __name__ == "__main__":
    run_script(main, __doc__)
