"""How much gradient reaches each timestep, and from how far."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bptt.measures.watch import Pass
from bptt.model import SequenceModel
from bptt.shapes import leaves, map_state

Norms = Float[Tensor, "T B"]


class Band(NamedTuple):
    """A curve over timesteps or lags, (T,) each: mean over sequences, 5th and 95th percentile."""

    mean: Float[Tensor, " T"]
    low: Float[Tensor, " T"]
    high: Float[Tensor, " T"]


class LayerFlow(NamedTuple):
    """The gradient in one layer, for n sequences over the T timesteps of one update.

    by_timestep: ‖dL/dh_t‖₂ by the name of each of the state's tensors (`h`; LSTM also `c`), (T, n).
    by_lag: φ_k = ‖∂L_s/∂h_{s−k}‖₂ of the last timestep s with a loss, its loss alone, by name, (K, n), from lag 0
        as far back as the gradient is not cut.
    transport: ‖λ_t − g_t‖ / ‖λ_t‖, the share of the gradient that came through the recurrence, mean over t and n.
    saturation: mean slope of the activation; 1 is linear, 0 is saturated.
    start: the first timestep in the batch. borders: timesteps at which the gradient on its way back is cut.
    """

    by_timestep: dict[str, Norms]
    by_lag: dict[str, Norms]
    transport: float
    saturation: float
    start: int
    borders: tuple[int, ...]


def by_timestep_and_lag(model: SequenceModel, passes: Sequence[Pass], *, factor: float = 1.0) -> list[LayerFlow]:
    """Gradient flow in every layer, from the passes of one update in the order of time.

    factor: what the norms are multiplied by. With the batch size they are per sequence, since the mean loss of the
    batch has put 1/B on them.
    """
    borders = tuple(after.start for before, after in pairwise(passes) if not before.connected)
    from_last_loss = _from_last_loss(model, passes)
    flows = []
    for level, layer in enumerate(model.levels):
        direct = _in_place(passes, *(each.direct[level] for each in passes))
        states = [layer.adjoint(each.records[level], each.direct[level], each.final[level]).states for each in passes]
        total = map_state(lambda *parts: _in_place(passes, *parts), *states)
        through = leaves(total)[0] - direct
        share = torch.linalg.vector_norm(through, dim=-1) / torch.linalg.vector_norm(leaves(total)[0], dim=-1)
        slope = torch.cat([layer.slope(each.records[level]).mean((1, 2)) for each in passes])
        flow = LayerFlow(
            by_timestep={name: norms * factor for name, norms in _norms(total).items()},
            by_lag={name: norms.flip(0) * factor for name, norms in _norms(from_last_loss[level]).items()},
            transport=float(share.nan_to_num(0).mean()),
            saturation=float(slope.mean()),
            start=passes[0].start,
            borders=borders,
        )
        flows.append(flow)
    return flows


def _in_place(passes: Sequence[Pass], *parts: Tensor) -> Tensor:
    """One stretch after the other, with zeros where the sequence was run over without a graph."""
    whole = [parts[0]]
    for before, after, part in zip(passes, passes[1:], parts[1:]):
        gap = max(0, after.start - before.start - before.num_timesteps)
        whole += [part.new_zeros(gap, *part.shape[1:]), part]
    return torch.cat(whole)


def _from_last_loss(model: SequenceModel, passes: Sequence[Pass]) -> list[Any]:
    """∂L_s/∂(state of timestep t) of each layer, for the last timestep s with a loss, from where it is cut up to s.

    A stretch hands what arrives at its start on to the stretch before, if these are connected.
    """
    reached = [index for index, each in enumerate(passes) if each.direct[-1].any()]
    number = reached[-1] if reached else len(passes) - 1
    last = passes[number]
    hit = last.direct[-1].flatten(1).any(1).nonzero()
    count = int(hit.max()) + 1 if len(hit) else last.num_timesteps
    seed = torch.zeros_like(last.direct[-1][:count])
    seed[-1] = last.direct[-1][count - 1]
    found = [model.gradients([record.first(count) for record in last.records], seed)]
    for each in reversed(passes[:number]):
        if not each.connected:
            break
        silence = torch.zeros_like(each.direct[-1])
        found.append(model.gradients(each.records, silence, [layer.states.initial for layer in found[-1]]))
    stretches = zip(*([layer.states.states for layer in stretch] for stretch in reversed(found)))
    return [map_state(lambda *parts: torch.cat(parts), *stretch) for stretch in stretches]


def band(norms: Norms) -> Band:
    """Mean, 5th and 95th percentile over sequences."""
    low, high = torch.quantile(norms, torch.tensor([0.05, 0.95], dtype=norms.dtype, device=norms.device), dim=1)
    return Band(norms.mean(1), low, high)


def decay_rate(by_lag: Float[Tensor, " K"]) -> float:
    """β, the factor by which the gradient changes from lag to lag: log β is the least-squares slope of log φ_k over k.

    NaN with fewer than two lags above zero.
    """
    lags = by_lag.nonzero().flatten()
    if len(lags) < 2:
        return math.nan
    heights, centred = by_lag[lags].double().log(), lags.double() - lags.double().mean()
    return math.exp(float((centred * heights).sum() / centred.square().sum()))


def horizon(by_lag: Float[Tensor, " K"], *, epsilon: float = 0.01) -> int:
    """The largest lag k with φ_k ≥ ε · φ_0: how far back the gradient reaches; 0 where it is no number."""
    reached = (by_lag >= epsilon * by_lag[0]).nonzero()
    return int(reached.max()) if len(reached) else 0


def _norms(states: Any) -> dict[str, Norms]:
    """Norms of the tensors of a state by name: `h` for the first, then the fields of a named tuple, or numbers."""
    tensors = leaves(states)
    fields = getattr(states, "_fields", [f"h{number}" for number in range(len(tensors))])
    names = ["h", *fields[1:]]
    return {name: torch.linalg.vector_norm(leaf, dim=-1) for name, leaf in zip(names, tensors)}
