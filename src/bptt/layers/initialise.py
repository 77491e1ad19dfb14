"""Initialisations of recurrent layers. Each acts in place on one layer; what it does not name keeps torch's default,
which draws every weight and bias from U(−1/√H, 1/√H).
"""

from torch import Tensor, nn

from bptt.contracts import at_least
from bptt.layers.base import Layer, StockLayer
from bptt.layers.elman import Elman
from bptt.layers.gru import GRU
from bptt.layers.lstm import LSTM


def default(layer: Layer) -> None:
    """Torch's default."""


def orthogonal(layer: Layer) -> None:
    """W_hh orthogonal, gate by gate (Saxe, McClelland & Ganguli 2014): the linear recurrence keeps gradient norms."""
    stock = _stock(layer, "orthogonal")
    for block in stock.weight_hh.data.split(stock.hidden_size):
        nn.init.orthogonal_(block)


def identity(layer: Layer, *, scale: float = 1.0, input_std: float = 0.001) -> None:
    """W_hh = scale · I, biases 0, W_ih ~ N(0, input_std²): the IRNN of Le, Jaitly & Hinton (2015), with relu."""
    if not isinstance(layer, Elman):
        raise ValueError(_refusal("identity", "an Elman layer", layer))
    nn.init.normal_(layer.weight_ih, std=input_std)
    nn.init.eye_(layer.weight_hh)
    layer.weight_hh.data.mul_(scale)
    nn.init.zeros_(layer.bias_ih)
    nn.init.zeros_(layer.bias_hh)


def forget_bias(layer: Layer, *, value: float = 1.0) -> None:
    """The bias of the gate that keeps the past (LSTM: f, GRU: z) starts at `value` (Gers et al. 2000)."""
    _keep_bias(layer, "forget_bias").fill_(value)


def chrono(layer: Layer, *, max_lag: int) -> None:
    """Biases for dependencies of up to `max_lag` timesteps (Tallec & Ollivier 2018).

    LSTM: b_f ~ log U(1, max_lag − 1), b_i = −b_f. GRU: b_z ~ log U(1, max_lag − 1).
    """
    at_least(3, max_lag=max_lag, remedy="it is the longest dependency expected, in timesteps")
    keep = _keep_bias(layer, "chrono")
    keep.uniform_(1, max_lag - 1).log_()
    if isinstance(layer, LSTM):
        _bias(layer, "i").copy_(-keep)


def _keep_bias(layer: Layer, name: str) -> Tensor:
    if not isinstance(layer, LSTM | GRU):
        raise ValueError(_refusal(name, "an LSTM or GRU layer", layer))
    return _bias(layer, "f" if isinstance(layer, LSTM) else "z")


def _bias(layer: StockLayer, gate: str) -> Tensor:
    """The input-side bias of one gate, a view (H,), after zeroing its recurrent twin, since the two add up."""
    rows = slice(layer.gates.index(gate) * layer.hidden_size, (layer.gates.index(gate) + 1) * layer.hidden_size)
    layer.bias_hh.data[rows].zero_()
    return layer.bias_ih.data[rows]


def _stock(layer: Layer, name: str) -> StockLayer:
    if not isinstance(layer, StockLayer):
        raise ValueError(_refusal(name, "an Elman, GRU or LSTM layer", layer))
    return layer


def _refusal(name: str, wanted: str, layer: Layer) -> str:
    return f"initialisation {name} needs {wanted}, got {type(layer).__name__}; use initialisation=default"
