"""Backpropagation through time: train recurrent networks and measure what truncation does to the gradient."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bptt.model import SequenceModel


def load(folder: str | Path, *, checkpoint: str = "best", trust: Sequence[str] = ()) -> "SequenceModel":
    """Load the model of a run with its trained weights, as a `torch.nn.Module` in evaluation mode.

    `model(inputs, model.initial_state(B))` returns predictions (T, B, V), the final state and the layers' records. The
    `kernel` of an Elman, GRU or LSTM layer is torch's own module, so that
    `torch.nn.LSTM(D, H).load_state_dict(model.layers[0].kernel.state_dict())` works.

    checkpoint: `best` or `last`. trust: your own packages whose classes the run's configuration may instantiate.
    """
    from bptt.runs.loading import load_run

    return load_run(Path(folder), checkpoint=checkpoint, trust=trust, other_data=True).model.eval()
