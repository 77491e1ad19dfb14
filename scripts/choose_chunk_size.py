"""Measure the cost of each chunk size, and recommend one.

    python scripts/choose_chunk_size.py run=FOLDER [checkpoint=best]               at the weights of a run
    python scripts/choose_chunk_size.py train=500 task=… model=… [KEY=VALUE …]     over training, from the seed
    python scripts/choose_chunk_size.py task=… model=… [KEY=VALUE …]               before training

Measures bias, noise, time and memory of the gradient, and how far back the gradient reaches, on a few batches of the
training split. Candidates are chunks of 1, 2, 4, … timesteps, sliding windows, randomized truncation, full BPTT and the
estimator chosen by `estimator=…` (or the run's own). Recommends the smallest chunk size with a relative bias below
delta at all measured moments. If the task carries the state from batch to batch, it is carried here, too.

    train=0        updates with the exact gradient; measures at log-spaced moments up to the last one
    delta=0.1      largest relative bias ‖ĝ − g‖ / ‖g‖
    batches=5      number of measured batches
    timesteps=1000 largest number of timesteps of each batch, up to its last loss
    out=FOLDER     folder for chunk_size.csv, .json and .png; by default the run's folder, or the current one
    other_data=false   true: use data that have changed since training
    trust=PACKAGE,…    your own packages that the run's configuration may call
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bptt.configuration.arguments import (
    RUN,
    chosen_run,
    positive_argument,
    run_script,
    script_arguments,
)
from bptt.configuration.build import build_module
from bptt.configuration.compose import compose_config
from bptt.configuration.paths import check_folder
from bptt.runs.loading import load_run

if TYPE_CHECKING:
    from bptt.chunk_size import Moment
    from bptt.lightning.module import BPTTModule


def main() -> None:
    arguments, overrides = script_arguments(
        RUN | {"train": "0", "delta": "0.1", "batches": "5", "timesteps": "1000", "out": None}
    )
    delta = positive_argument(float, delta=arguments["delta"])
    counts = {name: positive_argument(int, **{name: arguments[name]}) for name in ("batches", "timesteps")}
    updates = 0 if arguments["train"] == "0" else positive_argument(int, train=arguments["train"])
    if arguments["run"] is None:
        module, out = build_module(compose_config(overrides)), Path(arguments["out"] or ".")
    else:
        folder, options = chosen_run(arguments, overrides)
        if updates:
            raise ValueError("train must be 0 with run=FOLDER, whose weights are trained; leave one of them out")
        module, out = load_run(folder, **options), Path(arguments["out"] or folder)
    from rich.console import Console

    from bptt import chunk_size, figures

    module.model.require_one_direction("a choice of the chunk size")
    check_folder("out", str(out))
    out.mkdir(parents=True, exist_ok=True)  # before minutes of measuring
    measured = measure(module, updates, counts["batches"], counts["timesteps"])
    in_terminal = sys.stdout.isatty()
    console = Console(width=None if in_terminal else 120, markup=False, emoji=False, highlight=False)
    console.print(table(measured, delta=delta))
    advice = chunk_size.advice(measured, delta=delta, untrained=arguments["run"] is None and not updates)
    console.print(advice, soft_wrap=not in_terminal)
    chunk_size.write_csv(measured, out / "chunk_size.csv")
    chunk_size.write_json(measured, out / "chunk_size.json", delta=delta)
    figures.save(figures.chunk_size_costs(measured, delta=delta), out / "chunk_size.png")
    print("\n".join(str(out / f"chunk_size.{ending}") for ending in ("csv", "json", "png")))


def measure(module: "BPTTModule", updates: int, num_batches: int, num_timesteps: int) -> "list[Moment]":
    """Measure at the module's weights, or over training with its optimizer and clipping."""
    from bptt import chunk_size

    def progress(step: str) -> None:
        print(f"measuring: {step}", file=sys.stderr, flush=True)

    model, task = module.model, module.task
    options: dict[str, Any] = {"num_batches": num_batches, "num_timesteps": num_timesteps, "own": module.estimator}
    if not updates:
        return [chunk_size.measure(model, task, progress=progress, **options)]
    options |= {"before_step": module.scale_and_clip, "progress": progress}
    return chunk_size.measure_training(model, task, module.new_optimizer(), num_updates=updates, **options)


def table(measured: "list[Moment]", *, delta: float) -> "object":
    """Table with a row for each candidate; the recommended one is marked.

    Columns: relative bias at the last moment and the worst one, its deviation over batches, noise of a single draw,
    cosine with the exact gradient, time per timestep, and memory for the backward pass.
    """
    from rich.table import Table

    from bptt.chunk_size import duration, memory, recommend, worst_bias

    best, worst = recommend(measured, delta=delta), worst_bias(measured)
    over_training = len(measured) > 1
    rich_table = Table("estimator", "bias", *["at worst"] * over_training, box=None)
    for heading in ("± batches", "noise", "cosine", "time", "memory"):
        rich_table.add_column(heading, no_wrap=True)
    for each in measured[-1].costs:
        setting = each.overrides.replace("estimator=", "", 1).replace("estimator.", "")
        noise = f"{each.noise:.2g}" if each.noise else ""
        rich_table.add_row(
            setting + " ◄" * (each is best),
            f"{each.bias:.2g}",
            *[f"{worst[each.overrides][0]:.2g}"] * over_training,
            *(
                f"{each.spread:.2g}",
                noise,
                f"{each.cosine:.3f}",
                duration(each).removesuffix(" per timestep"),
                memory(each),
            ),
        )
    return rich_table


if __name__ == "__main__":
    run_script(main, __doc__)
