"""Draws docs/reading_gradient_flow.png, the README's annotated picture: python docs/reading_gradient_flow.py"""

from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure

from bptt.layers import LSTM, Elman, Layer
from bptt.layers.initialise import forget_bias, identity
from bptt.measures import exact_flows, horizon
from bptt.model import SequenceModel
from bptt.tasks.copy_memory import CopyMemory

CHUNK = 64


def curve(layer: partial[Layer] | type[Layer], initialise: partial[None]) -> torch.Tensor:
    """‖∂L_s/∂h_{s−k}‖ of an untrained network over one batch of copy memory."""
    torch.manual_seed(1)
    task = CopyMemory(delay=100, batch_size=32, seed=1, train_batches=1, validation_batches=1, test_batches=1)
    model = SequenceModel(layer, input_size=10, output_size=9, hidden_size=64, initialise=initialise)
    batch = task.batch("train", 0)
    (flow,) = exact_flows(model, task.loss, batch, model.initial_state(32), num_sequences=32, num_losses=1)
    return flow.mean_by_lag()


relu = partial(Elman, nonlinearity="relu")
curves = {
    "explodes: Elman, W = 1.05 I": curve(relu, partial(identity, scale=1.05)),
    "reaches far: LSTM, forget bias 4": curve(LSTM, partial(forget_bias, value=4.0)),
    "vanishes: Elman, W = 0.9 I": curve(relu, partial(identity, scale=0.9)),
}
figure = Figure(figsize=(8, 3.8), dpi=110, layout="constrained")
axis = figure.subplots()
for colour, (name, by_lag) in zip(("#d55e00", "#0072b2", "#009e73"), curves.items()):
    axis.semilogy(by_lag / by_lag[0], color=colour, label=name, linewidth=2)
    reach = horizon(by_lag)
    height = float(by_lag[reach.lag] / by_lag[0])
    axis.plot(reach.lag, height, "o", color=colour)
    axis.annotate(
        f"horizon {reach}",
        (reach.lag, height),
        (-75, 8) if reach.capped else (-62, -16),
        textcoords="offset points",
        color=colour,
    )
axis.axhline(0.01, color="grey", linestyle=":")
axis.text(96, 0.0115, "ε = 1 % of lag 0", color="grey", fontsize=8)
axis.axvline(CHUNK - 0.5, color="black", linestyle="--")
axis.text(
    CHUNK + 1,
    1.1e-3,
    f"chunk border at {CHUNK}:\nwhat lies to the right is cut off;\nit is the bias of the gradient",
    fontsize=8,
)
axis.set(xlabel="lag k from the last loss, timesteps", ylabel="‖∂L/∂h‖ at lag k, relative", ylim=(2e-5, 1e3))
axis.legend(frameon=False, fontsize=8, loc="upper left")
figure.savefig(Path(__file__).with_suffix(".png"))
