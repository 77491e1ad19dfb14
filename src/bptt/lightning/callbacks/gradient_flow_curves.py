"""Curves of one look at the gradient flow, for the TensorBoard tab "Gradient flow"."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bptt.estimators.decay import decay_rate
from bptt.measures.gradient_flow import LayerFlow
from bptt.measures.horizon import band, horizon
from bptt.tensorboard_tab.curve import Curve, Fact
from bptt.tensorboard_tab.thinning import thinned

MAX_BORDERS = 256


def curves(flows: Mapping[str, LayerFlow], *, update: int, epsilon: float, carried: bool) -> dict[str, Curve]:
    """Curves by tag: LAYER/TENSOR/by_lag and LAYER/TENSOR/by_timestep, with median, 5th and 95th percentile.

    carried: True if the state before the batch comes from another batch. The gradient is then also cut at timestep 0.
    """
    by_tag = {}
    for layer, flow in flows.items():
        for tensor, norms in flow.by_lag.items():
            if norms.isfinite().any():  # not if no sequence has a loss, or if all gradients overflowed
                by_tag[f"{layer}/{tensor}/by_lag"] = by_lag(
                    tensor, flow, update=update, epsilon=epsilon, carried=carried
                )
        for tensor, norms in flow.by_timestep.items():
            by_tag[f"{layer}/{tensor}/by_timestep"] = by_timestep(norms, flow, update=update, carried=carried)
    return by_tag


def by_lag(tensor: str, flow: LayerFlow, *, update: int, epsilon: float, carried: bool) -> Curve:
    """φ_k over losses and sequences, and `reach`: the largest ε for which the horizon is at least k.

    facts: the horizon with its interval; `cut`, the first lag that the gradient cannot reach because it is cut; and
    `reference`, the peak of the median.
    """
    norms = flow.by_lag[tensor]
    norms = norms[: int(norms.isfinite().any(1).nonzero().max()) + 1]
    own_horizon = horizon(norms, num_losses=len(flow.losses), epsilon=epsilon)
    columns = {**band(norms)._asdict(), "reach": reach(norms)}
    facts: dict[str, Fact] = {
        "update": update,
        "epsilon": epsilon,
        "horizon": own_horizon.lag,
        "horizon_low": own_horizon.low,
        "horizon_high": own_horizon.high,
        "capped": int(own_horizon.capped),
        "decay_rate": decay_rate(flow.mean_by_lag(tensor)),
        "cut": len(norms) if carried or flow.start > 0 or flow.borders else None,
        "reference": float(columns["median"].nan_to_num(0).max()),
    }
    whole = curve(torch.arange(len(norms)), columns, facts)
    return whole.at(thinned(whole.columns["median"][None], axis="log", keep=[own_horizon.lag]))


def reach(norms: Tensor) -> Tensor:
    """For each lag, the largest ε such that half of the samples (K, S) that extend to it have ε of their own peak."""
    known = norms.isfinite()
    peak = norms.masked_fill(~known, -math.inf).amax(0)
    known = known & (peak > 0)
    shares = torch.where(known, norms / peak, -1.0).sort(dim=1, descending=True).values
    half = (known.sum(1) + 1) // 2
    return shares.gather(1, (half - 1).clamp(min=0).unsqueeze(1)).squeeze(1).clamp(min=0)


def by_timestep(norms: Tensor, flow: LayerFlow, *, update: int, carried: bool) -> Curve:
    """‖dL/dh_t‖ by timestep of the batch, with the borders at which the gradient is cut (the last `MAX_BORDERS`)."""
    first = [flow.start] if carried or flow.start > 0 else []
    borders = [*first, *flow.borders][-MAX_BORDERS:]
    timesteps = torch.arange(flow.start, flow.start + len(norms))
    whole = curve(timesteps, band(norms)._asdict(), {"update": update, "start": flow.start, "borders": borders})
    beside = [place for border in flow.borders for place in (border - flow.start - 1, border - flow.start)]
    return whole.at(thinned(whole.columns["median"][None], axis="linear", keep=beside))


def curve(places: Tensor, columns: Mapping[str, Tensor], facts: Mapping[str, Fact]) -> Curve:
    return Curve(places.numpy(), {name: column.cpu().numpy() for name, column in columns.items()}, facts)
