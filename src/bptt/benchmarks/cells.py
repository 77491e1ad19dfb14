"""Layers against each other, and against the same equations as a cell of one's own, which only states its `step`.

Time of one layer between encoder and readout, for gradients only, in one chunk.
"""

from functools import partial

from bptt.benchmarks.exact import Passes
from bptt.benchmarks.measure import Found, interleaved, row
from bptt.estimators import Chunked
from bptt.layers import GRU, LSTM, Elman, Layer
from bptt.shapes import Features, Outputs, State

LENGTH = 100
LAYERS: tuple[type[Layer], ...] = (Elman, GRU, LSTM)
OF_LSTM: dict[type[Layer], float | None] = {Elman: 0.45, GRU: 0.9}  # target for the time, as parts of the LSTM's
OF_LAYER: dict[type[Layer], float | None] = {LSTM: 2.0}  # target for the time of a cell of one's own


def stated(layer: type[Layer]) -> type[Layer]:
    """The layer as a cell of one's own: trained by the inherited loop over its `step`."""

    def forward(self: Layer, inputs: Features, state: State) -> tuple[Outputs, State]:
        return Layer.forward(self, inputs, state)

    return type(layer.__name__, (layer,), {"forward": forward})


def rows(repetitions: int) -> Found:
    estimator = Chunked(LENGTH)
    by_layer = {layer: Passes.of(layer, num_timesteps=LENGTH) for layer in LAYERS}
    variants = {layer.__name__: partial(each.seconds, estimator) for layer, each in by_layer.items()}
    for layer in LAYERS:
        own = Passes.of(stated(layer), num_timesteps=LENGTH)
        variants[f"{layer.__name__} as a step"] = partial(own.seconds, estimator)
    seconds = interleaved(variants, 5 * repetitions)
    for layer, target in OF_LSTM.items():
        name = layer.__name__
        yield row(f"cells, {name} / LSTM", seconds[name], seconds["LSTM"], target=target)
    for layer in LAYERS:
        name = layer.__name__
        title = f"cells, {name}: own cell with these equations / the layer"
        yield row(title, seconds[f"{name} as a step"], seconds[name], target=OF_LAYER.get(layer))
