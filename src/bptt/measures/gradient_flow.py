"""Norms of the gradient at each timestep, and by its lag from the loss.

Longer than 200 lines: norms by timestep and by lag come from the same adjoints.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bptt.estimators.full import Full
from bptt.layers.base import zeros_like
from bptt.layers.full_precision import with_graph
from bptt.layers.record import StateGradients
from bptt.measures.norms import norm
from bptt.measures.passes import Pass, PassRecorder
from bptt.measures.segments import last_loss_end
from bptt.model import SequenceModel
from bptt.shapes import Outputs, State, concatenated, detach, leaves, map_state
from bptt.tasks.base import Batch, Loss

Norms = Float[Tensor, "T B"]


class LayerFlow(NamedTuple):
    """The gradient in one layer, for n sequences over the T timesteps of one update.

    by_timestep: ‖dL/dh_t‖₂ by the name of each of the state's tensors (`h`; LSTM also `c`), (T, n).
    by_lag: φ_k = ‖∂L_s/∂h_{s−k}‖₂ by name, (K, m·n), from lag 0 on. L_s is the loss of one sequence at timestep s
        alone; the columns are all sequences for the first of m timesteps s, then for the second, and so on. NaN at
        lags beyond the beginning, a reset or a cut of the gradient, and for a sequence without a loss at s.
    transport: ‖λ_t − g_t‖ / ‖λ_t‖, the share of the gradient that came through the recurrence; mean over t and n,
        without timesteps that have no gradient.
    saturation: mean of `Layer.slope`. Elman: the slope φ′ of the activation; 1 is linear, 0 is saturated. GRU, LSTM and
        own cells: 1 − h², which is 0 at h = ±1 and does not show the gates. Linear recurrences: 1.
    start: the first timestep in the batch. borders: timesteps at which the gradient is cut.
    losses: the m timesteps s.
    """

    by_timestep: dict[str, Norms]
    by_lag: dict[str, Norms]
    transport: float
    saturation: float
    start: int
    borders: tuple[int, ...]
    losses: tuple[int, ...] = (0,)

    def mean_by_lag(self, name: str = "h") -> Float[Tensor, " K"]:
        """Mean φ_k over all losses and sequences that reach back to lag k; 0 if there is none."""
        return self.by_lag[name].nanmean(1).nan_to_num(0)


def by_timestep_and_lag(
    model: SequenceModel,
    passes: Sequence[Pass],
    *,
    factor: float = 1.0,
    lag_factor: float = 1.0,
    num_losses: int = 4,
    stop: int | None = None,
) -> list[LayerFlow]:
    """Gradient flow in every layer, from the passes of one update in the order of time.

    factor: multiplies the norms by timestep. The batch size makes them per sequence, because the mean loss of the batch
    has a factor 1/B. lag_factor: multiplies those by lag. The number that the losses were divided by gives the gradient
    of one loss itself, which does not depend on how many other losses are in the update.
    num_losses: number of timesteps s for the gradient by lag, spread evenly over the timesteps with a loss; the last
    one is always among them. With residual blocks it is the only one.
    stop: the timestep at which the update ends. After the last pass, up to there, the gradient is 0: passes end with
    the segment or chunk of the last loss.
    """
    borders = tuple(after.start for before, after in pairwise(passes) if not before.connected)
    losses = _spread_losses(passes, num_losses if model.blocks is None else 1)
    totals, norms_by_loss, active = _adjoints(model, passes, losses)
    flows = []
    for level, layer in enumerate(model.levels):
        direct = _in_place(passes, *(each.direct[level] for each in passes))
        total = map_state(lambda *parts: _in_place(passes, *parts), *(each[level] for each in totals))
        by_timestep = _norms(total)
        came_through = norm(leaves(total)[0] - direct, dim=-1)
        share = torch.where(by_timestep["h"] > 0, came_through / by_timestep["h"], math.nan)
        slope = torch.cat([layer.slope(each.records[level]).mean((1, 2)) for each in passes])
        flow = LayerFlow(
            by_timestep={name: _until(stop, norms * factor, passes) for name, norms in by_timestep.items()},
            by_lag={
                name: _by_lag([norms[level].get(name) for norms in norms_by_loss], active, passes, losses) * lag_factor
                for name in by_timestep
            },
            transport=float(share.nanmean().nan_to_num(0)),
            saturation=float(slope.mean()),
            start=passes[0].start,
            borders=borders,
            losses=tuple(passes[loss.segment].start + loss.timestep for loss in losses),
        )
        flows.append(flow)
    return flows


def exact_flows(
    model: SequenceModel, loss: Loss, batch: Batch, state: State, *, num_sequences: int, num_losses: int = 4
) -> list[LayerFlow]:
    """Gradient flow in every layer over all timesteps of a batch, without dropout.

    By timestep it is per sequence, with zeros after the last loss; by lag it is that of single losses.

    Works on a copy of the model in which all parameters require a gradient, so that it also reaches frozen layers.
    num_losses: as in `by_timestep_and_lag`. ValueError if the batch has no loss.
    """
    stop = last_loss_end(batch)
    if not stop:
        raise ValueError(
            "a batch must have a loss for a gradient to flow, got one without; use a longer part of it, or data with "
            "targets"
        )
    frozen = model.without_dropout().requires_grad_()
    with PassRecorder(frozen, num_sequences=num_sequences, max_timesteps=stop) as recorder, with_graph():
        (update,) = Full().updates(frozen, loss, batch.between(0, stop), detach(state))
        passes = recorder.take(update.passes)
        return by_timestep_and_lag(
            frozen,
            passes,
            factor=batch.batch_size,
            lag_factor=update.denominator,
            num_losses=num_losses,
            stop=batch.num_timesteps,
        )


class _Place(NamedTuple):
    """A timestep with a loss, by the pass it is in and its place there."""

    segment: int
    timestep: int


def _spread_losses(passes: Sequence[Pass], count: int) -> list[_Place]:
    """At most `count` of the timesteps with a loss, spread evenly up to the last; the last timestep if none has one."""
    places = [
        _Place(index, timestep)
        for index, each in enumerate(passes)
        for timestep in each.direct[-1].any(-1).any(-1).nonzero().flatten().tolist()
    ]
    if not places:
        return [_Place(len(passes) - 1, passes[-1].num_timesteps - 1)]
    count = min(count, len(places))
    return [places[(number + 1) * len(places) // count - 1] for number in range(count)]


def _adjoints(
    model: SequenceModel, passes: Sequence[Pass], losses: Sequence[_Place]
) -> tuple[list[list[Any]], list[list[dict[str, Float[Tensor, "_ m B"]]]], list[list[bool]]]:
    """dL/d(state of t) by pass and layer; norms of ∂L_s/∂(state of t) of each loss alone; the losses that reach a pass.

    A pass receives what arrives at its end from the pass after it if these are connected.
    """
    num_sequences = passes[0].direct[-1].shape[1]
    totals: list[list[Any]] = []
    by_loss: list[list[dict[str, Tensor]]] = []
    finals: list[Any] = [None] * len(passes[0].records)
    active, reached = [False] * len(losses), []
    for index, each in reversed(list(enumerate(passes))):
        if not each.connected:
            active, finals = [False] * len(losses), [None] * len(finals)
        seed = each.direct[-1].new_zeros(each.num_timesteps, len(losses), *each.direct[-1].shape[1:])
        for number, loss in enumerate(losses):
            if loss.segment == index:
                active[number] = True
                seed[loss.timestep, number] = each.direct[-1][loss.timestep]
        reached.append([*active])
        if not any(active):
            totals.append([each.adjoint(level, layer).states for level, layer in enumerate(model.levels)])
            by_loss.append([{} for _ in totals[-1]])
            continue
        loss = losses[0]  # with residual blocks the only one
        time = loss.timestep if model.blocks is not None and loss.segment == index else None
        pairs = _side_by_side(model, each, seed.flatten(1, 2), finals, time)
        totals.append([whole.states for whole, _ in pairs])
        finals = [alone.initial for _, alone in pairs]
        shape = (len(losses), num_sequences)
        alone = [{name: each.unflatten(1, shape) for name, each in _norms(own.states).items()} for _, own in pairs]
        by_loss.append(alone)
    return totals[::-1], by_loss[::-1], reached[::-1]


def _side_by_side(
    model: SequenceModel, each: Pass, seed: Outputs, finals: Sequence[Any], time: int | None
) -> list[tuple[StateGradients, StateGradients]]:
    """Two adjoints of every layer: of the gradient as it came, and of `seed` at the topmost outputs with `finals`.

    `seed` holds the gradients of m losses side by side, (T, m·n, H). The recursion is linear, so all of them run
    through it together, almost as fast as one. If the backward pass of training has computed the first adjoint already,
    the others run alone.

    time: with residual blocks, the timestep of the loss if it is in this pass. That loss also reaches lower layers past
        the upper ones, at its own timestep alone, and no later loss adds to the direct gradients there.
    """
    pairs, above = [], each.records[-1].inputs.new_zeros(len(seed), seed.shape[1], each.records[-1].inputs.shape[2])
    first, rest = slice(each.direct[-1].shape[1]), slice(-seed.shape[1], None)
    times = seed.shape[1] // each.direct[-1].shape[1]
    for level, layer in reversed(list(enumerate(model.levels))):
        record, adjoint_from_backward = each.records[level], each.adjoint_from_backward[level]
        nothing = zeros_like(record.initial)
        end = finals[level]
        if end is None:
            end = map_state(lambda leaf: torch.cat([leaf] * times), nothing)
        seeds, ends = [seed], [end]
        if adjoint_from_backward is None:
            own = each.final[level]
            seeds, ends = [each.direct[level], seed], [nothing if own is None else own, end]
        beside, final = concatenated(seeds, dim=1), map_state(lambda *parts: concatenated(parts), *ends)
        if level:
            gradients = layer.gradients(record, beside, final, parameters=False)
            both = gradients.states
            seed, above = model.seed_below(level, each.records, gradients.inputs[:, rest], above)
            if time is not None:
                seed[time] = each.direct[level - 1][time]
        else:
            both = layer.adjoint(record, beside, final)
        pairs.append((adjoint_from_backward or both.columns(first), both.columns(rest)))
    return pairs[::-1]


def _by_lag(
    by_loss: Sequence[Float[Tensor, "_ m B"] | None],
    active: Sequence[Sequence[bool]],
    passes: Sequence[Pass],
    losses: Sequence[_Place],
) -> Float[Tensor, "K S"]:
    """Norms by lag, (K, m·n), from those by pass and timestep; NaN beyond a cut and for sequences without a loss."""
    curves = []
    for number, loss in enumerate(losses):
        rows, resets = [], []
        for index in reversed(range(loss.segment + 1)):
            norms = by_loss[index]
            if norms is None or not active[index][number]:
                break  # the gradient is cut
            until = loss.timestep + 1 if index == loss.segment else None
            rows.append(norms[:until, number].flip(0))
            resets.append(_resets(passes[index])[:until].flip(0))
        curve, begun = torch.cat(rows), torch.cat(resets).cumsum(0) > 0
        curve = curve.where(~torch.cat([torch.zeros_like(begun[:1]), begun[:-1]]), math.nan)
        without = ~passes[loss.segment].direct[-1][loss.timestep].any(-1)
        if not without.all():
            curve = curve.masked_fill(without, math.nan)
        curves.append(curve)
    return torch.cat(list(torch.nn.utils.rnn.pad_sequence(curves, padding_value=math.nan).unbind(1)), dim=1)


def _resets(each: Pass) -> Bool[Tensor, "T B"]:
    """The timesteps of a pass at which sequences begin again."""
    record = each.records[-1]
    if record.reset is None:
        return torch.zeros(record.outputs.shape[:2], dtype=torch.bool, device=record.outputs.device)
    return record.reset.mask


def _in_place(passes: Sequence[Pass], *parts: Tensor) -> Tensor:
    """The parts in the order of time, with zeros where the model ran without a graph."""
    whole = [parts[0]]
    for before, after, part in zip(passes, passes[1:], parts[1:]):
        gap = max(0, after.start - before.start - before.num_timesteps)
        whole += [part.new_zeros(gap, *part.shape[1:]), part]
    return concatenated(whole)


def _until(stop: int | None, norms: Float[Tensor, "_ S"], passes: Sequence[Pass]) -> Float[Tensor, "_ S"]:
    """The norms with zeros up to the timestep `stop`, if that is later."""
    missing = 0 if stop is None else max(0, stop - passes[0].start - len(norms))
    return torch.cat([norms, norms.new_zeros(missing, norms.shape[1])]) if missing else norms


def _norms(states: Any) -> dict[str, Norms]:
    """Norms of the tensors of a state by name: `h` for the first, then the fields of a named tuple, or numbers."""
    tensors = leaves(states)
    fields = getattr(states, "_fields", [f"h{number}" for number in range(len(tensors))])
    names = ["h", *fields[1:]]
    return {name: norm(leaf, dim=-1) for name, leaf in zip(names, tensors)}
