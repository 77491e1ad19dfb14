"""How much gradient reaches each timestep, and from how far."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bptt.estimators.full import Full
from bptt.layers.base import StateGradients, zeros_like
from bptt.measures.norms import norm
from bptt.measures.passes import Pass, PassRecorder
from bptt.measures.segments import last_loss_end
from bptt.model import SequenceModel
from bptt.shapes import Outputs, State, detach, leaves, map_state
from bptt.tasks.base import Batch, Loss

Norms = Float[Tensor, "T B"]


class Band(NamedTuple):
    """A curve over timesteps or lags, (T,) each: mean over sequences, 5th and 95th percentile."""

    mean: Float[Tensor, " T"]
    low: Float[Tensor, " T"]
    high: Float[Tensor, " T"]


class LayerFlow(NamedTuple):
    """The gradient in one layer, for n sequences over the T timesteps of one update.

    by_timestep: ‖dL/dh_t‖₂ by the name of each of the state's tensors (`h`; LSTM also `c`), (T, n).
    by_lag: φ_k = ‖∂L_s/∂h_{s−k}‖₂ of the last timestep s with a loss, its loss alone, by name, (K, m), from lag 0
        as far back as the gradient is not cut. The m ≤ n sequences that have a loss at s.
    transport: ‖λ_t − g_t‖ / ‖λ_t‖, the share of the gradient that came through the recurrence, mean over t and n where
        there is one.
    saturation: mean slope of the activation; 1 is linear, 0 is saturated.
    start: the first timestep in the batch. borders: timesteps at which the gradient on its way back is cut.
    """

    by_timestep: dict[str, Norms]
    by_lag: dict[str, Norms]
    transport: float
    saturation: float
    start: int
    borders: tuple[int, ...]


def by_timestep_and_lag(
    model: SequenceModel, passes: Sequence[Pass], *, factor: float = 1.0, lag_factor: float = 1.0
) -> list[LayerFlow]:
    """Gradient flow in every layer, from the passes of one update in the order of time.

    factor: what the norms by timestep are multiplied by. With the batch size they are per sequence, since the mean loss
    of the batch has put 1/B on them. lag_factor: what those by lag are. With what the losses were divided by, each is
    that of one loss itself, which does not depend on how many others are in the update.
    """
    borders = tuple(after.start for before, after in pairwise(passes) if not before.connected)
    totals, from_last_loss = _adjoints(model, passes)
    samples = _sequences_with_last_loss(passes)
    flows = []
    for level, layer in enumerate(model.levels):
        direct = _in_place(passes, *(each.direct[level] for each in passes))
        total = map_state(lambda *parts: _in_place(passes, *parts), *(stretch[level] for stretch in totals))
        by_lag = map_state(lambda *parts: _joined(parts), *(stretch[level] for stretch in from_last_loss))
        by_timestep = _norms(total)
        came_through = norm(leaves(total)[0] - direct, dim=-1)
        share = torch.where(by_timestep["h"] > 0, came_through / by_timestep["h"], math.nan)
        slope = torch.cat([layer.slope(each.records[level]).mean((1, 2)) for each in passes])
        flow = LayerFlow(
            by_timestep={name: norms * factor for name, norms in by_timestep.items()},
            by_lag={name: norms.flip(0)[:, samples] * lag_factor for name, norms in _norms(by_lag).items()},
            transport=float(share.nanmean().nan_to_num(0)),
            saturation=float(slope.mean()),
            start=passes[0].start,
            borders=borders,
        )
        flows.append(flow)
    return flows


def exact_flows(model: SequenceModel, loss: Loss, batch: Batch, state: State, *, num_sequences: int) -> list[LayerFlow]:
    """Gradient flow in every layer over all timesteps of a batch, without dropout.

    By timestep it is per sequence, with zeros after the last loss; by lag it is that of the last loss itself.

    Works on a copy of the model, where gradients reach layers that are not trained, too. ValueError where the batch has
    no loss.
    """
    stop = last_loss_end(batch)
    if not stop:
        raise ValueError("a batch must have a loss for a gradient to flow, got one without; use a longer part of it")
    frozen = model.without_dropout().requires_grad_()
    with PassRecorder(frozen, num_sequences=num_sequences, max_timesteps=stop) as recorder:
        (update,) = Full().updates(frozen, loss, batch.between(0, stop), detach(state))
        passes = recorder.take(update.passes)
        flows = by_timestep_and_lag(frozen, passes, factor=batch.batch_size, lag_factor=update.denominator)
    return [_lengthened(flow, batch.num_timesteps) for flow in flows]


def _adjoints(model: SequenceModel, passes: Sequence[Pass]) -> tuple[list[list[Any]], list[list[Any]]]:
    """dL/d(state of t) by pass and layer; and likewise ∂L_s/∂(state of t) of the last loss alone, from the cut up to s.

    A pass hands what arrives at its start on to the pass before, if these are connected.
    """
    last, count = _last_loss(passes)
    totals: list[list[Any]] = []
    from_last_loss: list[list[Any]] = []
    finals: list[Any] = [None] * len(passes[0].records)
    reached = False
    for index, each in reversed(list(enumerate(passes))):
        reached = index == last or (reached and each.connected)
        if not reached:
            totals.append([each.adjoint(level, layer).states for level, layer in enumerate(model.levels)])
            continue
        seed = torch.zeros_like(each.direct[-1])
        if index == last:
            seed[count - 1] = each.direct[-1][count - 1]
        pairs = _side_by_side(model, each, seed, finals)
        totals.append([whole.states for whole, _ in pairs])
        finals = [alone.initial for _, alone in pairs]
        until = count if index == last else each.num_timesteps
        from_last_loss.append([map_state(lambda leaf, n=until: leaf[:n], alone.states) for _, alone in pairs])
    return totals[::-1], from_last_loss[::-1]


def _side_by_side(
    model: SequenceModel, each: Pass, seed: Outputs, finals: Sequence[Any]
) -> list[tuple[StateGradients, StateGradients]]:
    """Two adjoints of every layer: of the gradient as it came, and of `seed` at the topmost outputs with `finals`.

    The recursion is linear, so both run through it side by side, almost as fast as one of them; where the first was
    adjoint_from_backward, the second runs alone.
    """
    found = []
    first, second = slice(seed.shape[1]), slice(-seed.shape[1], None)
    for level, layer in reversed(list(enumerate(model.levels))):
        record, adjoint_from_backward = each.records[level], each.adjoint_from_backward[level]
        seeds, ends = [seed], [finals[level]]
        if adjoint_from_backward is None:
            seeds, ends = [each.direct[level], seed], [each.final[level], finals[level]]
        ends = [zeros_like(record.initial) if end is None else end for end in ends]
        beside, final = _joined(seeds, dim=1), map_state(lambda *parts: _joined(parts), *ends)
        if level:
            gradients = layer.gradients(record, beside, final, parameters=False)
            both, mask = gradients.states, each.records[level - 1].mask
            seed = gradients.inputs[:, second] * (1 if mask is None else mask)
        else:
            both = layer.adjoint(record, beside, final)
        found.append((adjoint_from_backward or both.columns(first), both.columns(second)))
    return found[::-1]


def _in_place(passes: Sequence[Pass], *parts: Tensor) -> Tensor:
    """One stretch after the other, with zeros where the sequence was run over without a graph."""
    whole = [parts[0]]
    for before, after, part in zip(passes, passes[1:], parts[1:]):
        gap = max(0, after.start - before.start - before.num_timesteps)
        whole += [part.new_zeros(gap, *part.shape[1:]), part]
    return _joined(whole)


def _joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """One after the other; a single one, which is most often so, is not copied."""
    return torch.cat(list(parts), dim) if len(parts) > 1 else parts[0]


def _last_loss(passes: Sequence[Pass]) -> tuple[int, int]:
    """Which pass has the last loss, and at which of its timesteps, counted from 1; the very end where there is none."""
    for number, each in reversed(list(enumerate(passes))):
        for time in reversed(range(each.num_timesteps)):  # most often the very last has one
            if each.direct[-1][time].any():
                return number, time + 1
    return len(passes) - 1, passes[-1].num_timesteps


def _sequences_with_last_loss(passes: Sequence[Pass]) -> slice | Tensor:
    """The sequences that have a loss at the last timestep with one; all of them if there is no loss."""
    last, count = _last_loss(passes)
    (found,) = passes[last].direct[-1][count - 1].any(-1).nonzero(as_tuple=True)
    return found if len(found) else slice(None)


def _lengthened(flow: LayerFlow, num_timesteps: int) -> LayerFlow:
    """The flow with zeros for the timesteps after the last loss, which no gradient reaches."""
    by_timestep = {
        name: torch.cat([norms, norms.new_zeros(num_timesteps - len(norms), norms.shape[1])])
        for name, norms in flow.by_timestep.items()
    }
    return flow._replace(by_timestep=by_timestep)


def band(norms: Norms) -> Band:
    """Mean, 5th and 95th percentile over sequences."""
    low, high = torch.quantile(norms, torch.tensor([0.05, 0.95], dtype=norms.dtype, device=norms.device), dim=1)
    return Band(norms.mean(1), low, high)


def horizon(by_lag: Float[Tensor, " K"], *, epsilon: float = 0.01) -> int:
    """The largest lag k with φ_k ≥ ε · φ_0: how far back the gradient reaches; 0 where there is none, or no number."""
    reached = ((by_lag >= epsilon * by_lag[0]) & (by_lag > 0)).nonzero()
    return int(reached.max()) if len(reached) else 0


def _norms(states: Any) -> dict[str, Norms]:
    """Norms of the tensors of a state by name: `h` for the first, then the fields of a named tuple, or numbers."""
    tensors = leaves(states)
    fields = getattr(states, "_fields", [f"h{number}" for number in range(len(tensors))])
    names = ["h", *fields[1:]]
    return {name: norm(leaf, dim=-1) for name, leaf in zip(names, tensors)}
