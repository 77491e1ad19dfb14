"""Scalars, histograms and chart layout of the gradient flow for TensorBoard."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from bptt.estimators.decay import decay_rate
from bptt.measures.gradient_flow import LayerFlow
from bptt.measures.horizon import horizon

Flows = Mapping[str, LayerFlow]  # by layer


def scalars(flows: Flows, *, lags: Sequence[int], epsilon: float) -> dict[str, float]:
    """Finite values by tag: gradient at the given lags, horizon, decay rate, transport and saturation."""
    values: dict[str, float] = {}
    for name, flow in flows.items():
        by_lag = flow.mean_by_lag()
        reach = horizon(flow.by_lag["h"], num_losses=len(flow.losses), epsilon=epsilon)
        values |= {f"{name}/lag_{lag}": float(by_lag[lag]) for lag in lags if lag < len(by_lag)}
        values |= {f"{name}/horizon": float(reach.lag)}
        values |= {f"{name}/decay_rate": decay_rate(by_lag)}
        values |= {f"{name}/transport": flow.transport, f"{name}/saturation": flow.saturation}
    return {f"gradient_flow/{name}": value for name, value in values.items() if math.isfinite(value)}


def histograms(flows: Flows) -> dict[str, Tensor]:
    """log₁₀ of the finite norms by tag, over timesteps and sequences. Layers without finite norms are omitted."""
    heights = {f"gradient_flow/{name}": flow.by_timestep["h"].log10() for name, flow in flows.items()}
    finite = {name: values[values.isfinite()] for name, values in heights.items()}
    return {name: values for name, values in finite.items() if len(values)}


def curves(flows: Flows) -> dict[str, Tensor]:
    """log₁₀ of the mean norm at each timestep, by layer: columns of the heat map."""
    return {name: flow.by_timestep["h"].mean(1).log10().float().cpu() for name, flow in flows.items()}


def layout(num_layers: int) -> dict[str, dict[str, list[str | list[str]]]]:
    """Layout of the Custom Scalars tab: charts of related curves."""
    layers = [f"layer{number}" for number in range(1, num_layers + 1)]
    charts: dict[str, list[str | list[str]]] = {
        f"{layer} at lag": ["Multiline", [f"gradient_flow/{layer}/lag_.*"]] for layer in layers
    }
    for quantity in ("horizon", "decay_rate", "transport", "saturation"):
        charts[quantity] = ["Multiline", [f"gradient_flow/layer.*/{quantity}"]]
    charts["loss"] = ["Multiline", ["train/loss", "validation/loss"]]
    return {"gradient flow": charts}
