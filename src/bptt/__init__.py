"""Backpropagation through time: train recurrent networks and measure what truncation does to the gradient."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bptt.model import SequenceModel


def load(folder: str | Path, *, checkpoint: str = "best", trust: Sequence[str] = ()) -> "SequenceModel":
    """Load the model of a run with its trained weights in float32, as a `torch.nn.Module` in evaluation mode.

    `model(inputs, model.initial_state(B))` returns predictions (T, B, V), the final state and the layers' records. The
    `kernel` of an Elman, GRU or LSTM layer is torch's own module, so that
    `torch.nn.LSTM(D, H).load_state_dict(model.layers[0].kernel.state_dict())` works. A bidirectional layer has
    `torch_state_dict()` for it.

    checkpoint: `best` or `last`. trust: your own packages whose classes the run's configuration may instantiate.
    """
    from bptt.runs.loading import load_run

    return load_run(Path(folder), checkpoint=checkpoint, trust=trust, other_data=True).model.eval()


def export(folder: str | Path, out: str | Path, *, checkpoint: str = "best", trust: Sequence[str] = ()) -> None:
    """Write one timestep of a trained model, state in and state out: `.pt2` for `torch.export.load`, or `.onnx`.

    `bptt.runs.export.Timestep` says what goes in and comes out.
    """
    from bptt.runs.export import write_step
    from bptt.runs.loading import load_run

    module = load_run(Path(folder), checkpoint=checkpoint, trust=trust, other_data=True)
    token_ids = not module.task.batch("train", 0).inputs.is_floating_point()
    write_step(module.model, Path(out), token_ids=token_ids)
