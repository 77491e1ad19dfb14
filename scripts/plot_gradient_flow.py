"""Draw how far back the gradient reaches.

    python scripts/plot_gradient_flow.py run=FOLDER [checkpoint=best]     a finished run, at its trained weights
    python scripts/plot_gradient_flow.py task=… model=… [KEY=VALUE …]     a network that has not been trained

Computes the exact gradient over all timesteps of the first validation batch, for 32 of its sequences.

    out=FILE.png       output file; by default gradient_flow_exact.png, in the run's folder if a run is given
    other_data=false   true: use data that have changed since training
    trust=PACKAGE,…    your own packages that the run's configuration may call
"""

from pathlib import Path
from typing import TYPE_CHECKING

from bptt.configuration.arguments import RUN, chosen_run, run_script, script_arguments
from bptt.configuration.build import build_module
from bptt.configuration.compose import compose_config
from bptt.contracts import refusal
from bptt.runs.loading import load_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bptt.lightning.module import BPTTModule


def draw(module: "BPTTModule", *, num_sequences: int = 32, title: str = "") -> "Figure":
    """Draw the gradient flow on the first validation batch, or the first training batch if there is no validation."""
    from bptt import figures
    from bptt.measures import exact_flows

    model, task = module.model, module.task
    batch = task.batch("validation" if task.num_batches("validation") else "train", 0)
    start = model.initial_state(batch.batch_size)
    flows = exact_flows(model, task.loss, batch, start, num_sequences=num_sequences)
    return figures.gradient_flow({f"layer{number}": flow for number, flow in enumerate(flows, start=1)}, title=title)


def main() -> None:
    arguments, overrides = script_arguments({**RUN, "out": "gradient_flow_exact.png"})
    out = Path(arguments["out"])
    if not out.suffix:
        raise ValueError(refusal("out", "the name of a picture, such as gradient.png", arguments["out"]))
    if arguments["run"] is None:
        module, title = build_module(compose_config(overrides)), "before training"
    else:
        folder, options = chosen_run(arguments, overrides)
        module, title = load_run(folder, **options), str(folder)
        out = out if "/" in arguments["out"] else folder / out
    from bptt import figures

    figures.save(draw(module, title=title), out)
    print(out)


if __name__ == "__main__":
    run_script(main, __doc__)
