"""Backpropagation through time: train recurrent networks, cut the sequence, see what the cut does to the gradient."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bptt.model import SequenceModel


def load(folder: str | Path, *, checkpoint: str = "best", trust: Sequence[str] = ()) -> "SequenceModel":
    """The model of a finished run with its trained weights, for a notebook: a `torch.nn.Module` in evaluation mode.

    `model(inputs, model.initial_state(B))` gives predictions (T, B, V), the final state and the layers' records. Each
    Elman, GRU or LSTM layer holds torch's own module as `kernel`, so that
    `torch.nn.LSTM(D, H).load_state_dict(model.layers[0].kernel.state_dict())` works.

    checkpoint: `best` or `last`. trust: packages of your own that the run's configuration names.
    """
    from bptt.runs.loading import load_run

    return load_run(Path(folder), checkpoint=checkpoint, trust=trust, other_data=True).model.eval()
