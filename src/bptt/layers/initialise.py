"""Initialisations. Each acts in place on one part of a model: a recurrent layer, or a linear map.

The linear maps of a model are the encoder, those of its blocks (`model.block`) and the readout. The other parameters of
a block are no part: D ~ N(0, 1) and those of LayerNorm stay as they are. So does a learnt initial state.

Parameters that an initialisation does not mention keep torch's default: U(−1/√H, 1/√H) for the weights and biases of a
layer, U(−1/√n, 1/√n) for a linear map of n inputs.
"""

import math

import torch
from torch import Tensor, nn

from bptt.contracts import at_least, between
from bptt.layers.base import Layer
from bptt.layers.elman import Elman
from bptt.layers.gru import GRU
from bptt.layers.lstm import LSTM
from bptt.layers.stock import StockLayer

Part = Layer | nn.Linear


def default(part: Part) -> None:
    """Keep torch's default."""


def orthogonal(part: Part) -> None:
    """W_hh orthogonal, gate by gate (Saxe, McClelland & Ganguli 2014). A linear recurrence then keeps norms."""
    if isinstance(part, nn.Linear):
        return
    stock = _stock(part, "orthogonal")
    for block in stock.weight_hh.data.split(stock.hidden_size):
        nn.init.orthogonal_(block)


def identity(part: Part, *, scale: float = 1.0, input_std: float = 0.001, linear_std: float | None = None) -> None:
    """W_hh = scale · I, biases 0, W_ih ~ N(0, input_std²): the IRNN of Le, Jaitly & Hinton (2015), with relu.

    linear_std: also sets the model's linear maps ~ N(0, linear_std²) with bias 0. None keeps torch's default.
    """
    between(-math.inf, math.inf, open_low=True, scale=scale)
    between(0, math.inf, input_std=input_std, linear_std=linear_std or 0)
    if isinstance(part, nn.Linear):
        if linear_std is not None:
            _normal(part, linear_std)
        return
    elman = _elman(part, "identity")
    nn.init.normal_(elman.weight_ih, std=input_std)
    nn.init.eye_(elman.weight_hh)
    elman.weight_hh.data.mul_(scale)
    nn.init.zeros_(elman.bias_ih)
    nn.init.zeros_(elman.bias_hh)


def gaussian(part: Part, *, std: float = 0.1, input_std: float | None = None, linear_std: float | None = None) -> None:
    """All weights of layers and linear maps ~ N(0, std²), biases 0: "basic tanh" of Pascanu, Mikolov & Bengio (2013).

    input_std: of W_ih. linear_std: of the model's linear maps. None for `std`.
    """
    between(0, math.inf, std=std, input_std=input_std or 0, linear_std=linear_std or 0)
    if isinstance(part, nn.Linear):
        _normal(part, std if linear_std is None else linear_std)
        return
    layer = _stock(part, "gaussian")
    _normal(layer, std)
    if input_std is not None:
        nn.init.normal_(layer.weight_ih, std=input_std)


def sparse(part: Part, *, num_nonzeros: int = 15, spectral_radius: float = 0.95, std: float = 0.01) -> None:
    """The "smart tanh" of Pascanu, Mikolov & Bengio (2013): all weights ~ N(0, std²), biases 0, W_hh sparse.

    Each unit keeps `num_nonzeros` recurrent weights chosen at random (all, if it has fewer). W_hh is then scaled to the
    `spectral_radius`.
    """
    at_least(1, num_nonzeros=num_nonzeros)
    between(0, math.inf, open_low=True, spectral_radius=spectral_radius)
    between(1e-30, math.inf, std=std)  # W_hh is divided by its spectral radius, which must not round to 0
    _normal(part if isinstance(part, nn.Linear) else _elman(part, "sparse"), std)
    if isinstance(part, Elman):
        weight = part.weight_hh.data
        for unit in weight:
            unit[torch.randperm(len(unit))[num_nonzeros:]] = 0
        weight.mul_(spectral_radius / torch.linalg.eigvals(weight).abs().max())


def uniform(part: Part, *, bound: float | None = None) -> None:
    """Each weight matrix from U(−r, r), r = √(3 / its larger dimension), biases 0 (Aicher, Foti & Fox 2019).

    As in the authors' code, all gates of a layer form one matrix of G·H rows.

    bound: all weights and biases of layers and linear maps from U(−bound, bound) instead, as Zaremba, Sutskever &
        Vinyals (2014) have them.
    """
    if bound is not None:
        between(0, math.inf, open_low=True, bound=bound)
        for parameter in (part if isinstance(part, nn.Linear) else _stock(part, "uniform")).parameters():
            nn.init.uniform_(parameter, -bound, bound)
        return
    for weight in _weights_with_biases_zeroed(part if isinstance(part, nn.Linear) else _stock(part, "uniform")):
        bound = math.sqrt(3 / max(weight.shape))
        nn.init.uniform_(weight, -bound, bound)


def forget_bias(part: Part, *, value: float = 1.0) -> None:
    """Set the bias of the gate that keeps the past (LSTM: f, GRU: z) to `value` (Gers et al. 2000)."""
    between(-math.inf, math.inf, open_low=True, value=value)
    if not isinstance(part, nn.Linear):
        _keep_bias(part, "forget_bias").fill_(value)


def chrono(part: Part, *, max_lag: int) -> None:
    """Biases for dependencies of up to `max_lag` timesteps (Tallec & Ollivier 2018).

    LSTM: b_f ~ log U(1, max_lag − 1), b_i = −b_f. GRU: b_z ~ log U(1, max_lag − 1).
    """
    at_least(3, max_lag=max_lag, remedy="it is the longest dependency expected, in timesteps")
    if isinstance(part, nn.Linear):
        return
    keep = _keep_bias(part, "chrono")
    keep.uniform_(1, max_lag - 1).log_()
    if isinstance(part, LSTM):
        _bias(part, "i").copy_(-keep)


def _normal(part: StockLayer | nn.Linear, std: float) -> None:
    for weight in _weights_with_biases_zeroed(part):
        nn.init.normal_(weight, std=std)


def _weights_with_biases_zeroed(part: StockLayer | nn.Linear) -> list[Tensor]:
    """Set the biases of a part to 0, and return its weight matrices in the order of its parameters."""
    for vector in part.parameters():
        if vector.dim() == 1:
            nn.init.zeros_(vector)
    return [matrix for matrix in part.parameters() if matrix.dim() == 2]


def _keep_bias(layer: Layer, name: str) -> Tensor:
    """The bias of the gate that keeps the past: f of an LSTM, z of a GRU."""
    if not isinstance(layer, LSTM | GRU):
        raise ValueError(_refusal(name, "an LSTM or GRU layer", layer))
    return _bias(layer, "f" if isinstance(layer, LSTM) else "z")


def _bias(layer: StockLayer, gate: str) -> Tensor:
    """The input bias of one gate, a view (H,). The recurrent bias is set to 0, since the two are added."""
    rows = slice(layer.gates.index(gate) * layer.hidden_size, (layer.gates.index(gate) + 1) * layer.hidden_size)
    layer.bias_hh.data[rows].zero_()
    return layer.bias_ih.data[rows]


def _stock(layer: Layer, name: str) -> StockLayer:
    if not isinstance(layer, StockLayer):
        raise ValueError(_refusal(name, "an Elman, GRU or LSTM layer", layer))
    return layer


def _elman(layer: Layer, name: str) -> Elman:
    if not isinstance(layer, Elman):
        raise ValueError(_refusal(name, "an Elman layer", layer))
    return layer


def _refusal(name: str, wanted: str, layer: Layer) -> str:
    return f"initialisation {name} needs {wanted}, got {type(layer).__name__}; use initialisation=default"
