"""Draw how far back the gradient reaches.

    python scripts/plot_gradient_flow.py run=FOLDER [checkpoint=best]     a finished run, at its trained weights
    python scripts/plot_gradient_flow.py run=A,B,… [out=FILE.png]         several runs in one figure
    python scripts/plot_gradient_flow.py task=… model=… [KEY=VALUE …]     a network that has not been trained

Computes the exact gradient over all timesteps of the first validation batch, for 32 of its sequences.

    out=FILE.png       output file; by default gradient_flow_exact.png, in the run's folder if one run is given
    other_data=false   true: use data that have changed since training
    trust=PACKAGE,…    your own packages that the run's configuration may call
"""

from collections.abc import Mapping, Sequence
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
    from bptt.measures import LayerFlow


PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".eps", ".tif", ".tiff", ".webp")


def flows(module: "BPTTModule", *, num_sequences: int = 32) -> "dict[str, LayerFlow]":
    """Gradient flow of each layer on the first validation batch, or the first training batch if there is none."""
    from bptt.measures import exact_flows

    model, task = module.model, module.task
    batch = task.batch("validation" if task.num_batches("validation") else "train", 0)
    start = model.initial_state(batch.batch_size)
    found = exact_flows(model, task.loss, batch, start, num_sequences=num_sequences)
    return {f"layer{number}": flow for number, flow in enumerate(found, start=1)}


def draw(modules: "Mapping[str, BPTTModule]", *, title: str = "") -> "Figure":
    """Draw the gradient flow of one module, or of several by name in one figure."""
    from bptt import figures

    curves = {f"{name} {layer}".strip(): flow for name, each in modules.items() for layer, flow in flows(each).items()}
    return figures.gradient_flow(curves, title=title)


def names_of(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or whole paths if two folders end the same."""
    names = [folder.name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def main() -> None:
    arguments, overrides = script_arguments({**RUN, "out": "gradient_flow_exact.png"})
    out = Path(arguments["out"])
    if out.suffix.lower() not in PICTURES or not out.parent.is_dir():  # before seconds of measuring
        wanted = f"a picture ending in {', '.join(PICTURES)}, in a folder that exists"
        raise ValueError(refusal("out", wanted, arguments["out"]))
    if arguments["run"] is None:
        modules, title = {"": build_module(compose_config(overrides))}, "before training"
    elif "," in arguments["run"] and not Path(arguments["run"]).exists():
        folders = [run for run in arguments["run"].split(",") if run]
        if not folders:
            raise ValueError(refusal("run", "folders of training runs, separated by commas", arguments["run"]))
        chosen = [chosen_run(arguments | {"run": run}, overrides) for run in folders]
        names = names_of([folder for folder, _ in chosen])
        modules, title = {name: load_run(folder, **options) for name, (folder, options) in zip(names, chosen)}, ""
    else:
        folder, options = chosen_run(arguments, overrides)
        modules, title = {"": load_run(folder, **options)}, str(folder)
        out = out if "/" in arguments["out"] else folder / out
    from bptt import figures

    figures.save(draw(modules, title=title), out)
    print(out)


if __name__ == "__main__":
    run_script(main, __doc__)
