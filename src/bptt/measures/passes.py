"""Forward passes and gradients of training, recorded for the adjoint without a change to training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, is_grad_enabled, zeros_like

from bptt.layers.base import Layer
from bptt.layers.record import Record, StateGradients
from bptt.layers.reset import Reset
from bptt.model import SequenceModel
from bptt.shapes import State, leaves, map_state


@dataclass
class Pass:
    """A forward pass with a graph, and the gradients that its backward pass computed at each layer.

    start: first timestep in the batch, known once the estimator has yielded the update.
    records: one per layer, for the recorded sequences.
    direct: gradient g_t at each layer's outputs, (T, n, H); None until `PassRecorder.take` if none arrived.
    final: gradient that arrived at each layer's final state; None if it was cut.
    adjoint_from_backward: each layer's adjoint, if its backward pass computed it; else None.
    reached: True once any gradient has arrived.
    """

    start: int
    records: list[Record]
    direct: list[Any]
    final: list[Any]
    adjoint_from_backward: list[StateGradients | None]
    reached: bool = False

    @property
    def connected(self) -> bool:
        """True if a gradient arrived from the timesteps after this pass."""
        return any(final is not None for final in self.final)

    @property
    def num_timesteps(self) -> int:
        return self.records[0].outputs.shape[0]

    def adjoint(self, level: int, layer: Layer) -> StateGradients:
        """dL/d(state of t) of one layer, from the backward pass if it computed it, else by the recursion."""
        return self.adjoint_from_backward[level] or layer.adjoint(
            self.records[level], self.direct[level], self.final[level]
        )


def joined_records(passes: Sequence[Pass]) -> list[Record]:
    """Concatenate the records of the trailing consecutive passes of an update: one record per layer.

    Only the last pass if recurrent weights were dropped, as each pass has weights of its own then.
    """
    first = len(passes) - 1
    own_weights = any(record.weight_masks for record in passes[first].records)
    while (
        first > 0
        and not own_weights
        and passes[first - 1].start + passes[first - 1].num_timesteps == passes[first].start
    ):
        first -= 1
    layers = zip(*(each.records for each in passes[first:]))
    return [
        Record(
            torch.cat([record.inputs for record in records]),
            records[0].initial,
            torch.cat([record.outputs for record in records]),
            records[-1].final,
            reset=_joined_resets(records),
            weight_masks=records[-1].weight_masks,
        )
        for records in layers
    ]


def _joined_resets(records: Sequence[Record]) -> Reset | None:
    resets = [record.reset for record in records if record.reset is not None]
    if not resets:
        return None
    masks = [
        torch.zeros(record.outputs.shape[:2], dtype=torch.bool, device=record.outputs.device)
        if record.reset is None
        else record.reset.mask
        for record in records
    ]
    return Reset.at(torch.cat(masks), resets[-1].state)


class PassRecorder:
    """Records a model's forward passes with a graph while `active()`, for its first `num_sequences` sequences.

    Hooks on the layers' outputs and final states copy the gradients, and layers trained by manual BPTT pass on their
    adjoint. Weights, losses and random numbers of training stay the same to the bit. No gradient arrives at a layer if
    neither it nor anything below it is trained; `exact_flows` measures such layers. `take` the passes after the
    backward pass.

    max_timesteps: the largest number of timesteps to record. The passes that the gradient reaches first have priority.
    """

    def __init__(
        self,
        model: SequenceModel,
        *,
        num_sequences: int,
        max_timesteps: int = 2000,
        active: Callable[[], bool] = lambda: True,
    ):
        model.require_one_direction("measures of the gradient by timestep and lag")
        self.num_sequences = num_sequences
        self.max_timesteps = max_timesteps
        self.active = active
        self.passes: dict[int, Pass] = {}  # by number since the last `take`, in order of computation
        self._seen = 0  # passes since the last `take`, with those beyond `max_timesteps`
        self._hook = model.register_forward_hook(self._on_forward)

    def take(self, spans: Sequence[tuple[int, int]]) -> list[Pass]:
        """The passes of an update in the order of time, given the timesteps they ran over in order of computation."""
        stale = max(0, self._seen - len(spans))  # passes whose chunk had no loss, so the update does not list them
        passes, self.passes, self._seen = self.passes, {}, 0
        for number, each in passes.items():
            each.start = spans[number - stale][0] if number >= stale else -1
        taken = sorted((each for each in passes.values() if each.start >= 0), key=lambda each: each.start)
        for each in taken:
            arrived = zip(each.direct, each.records)
            each.direct = [zeros_like(record.outputs) if direct is None else direct for direct, record in arrived]
        return taken

    def close(self) -> None:
        self._hook.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_forward(self, model: SequenceModel, inputs: Any, output: tuple[Tensor, State, tuple[Record, ...]]) -> None:
        if not is_grad_enabled() or not self.active():
            return
        self._seen += 1
        full = sum(each.num_timesteps for each in self.passes.values()) >= self.max_timesteps
        if full and any(each.reached for each in self.passes.values()):
            return
        whole = output[2]
        records = [record.columns(slice(self.num_sequences)) for record in whole]
        nothing: list[Any] = [None] * len(records)
        seen = Pass(0, records, [*nothing], [*nothing], [*nothing])
        for level, (layer, record) in enumerate(zip(model.levels, whole)):
            self._register_hooks(layer, record, seen, level)
        self.passes[self._seen - 1] = seen
        while full and sum(each.num_timesteps for each in list(self.passes.values())[1:]) >= self.max_timesteps:
            del self.passes[next(iter(self.passes))]  # the gradient reaches it last

    def _register_hooks(self, layer: Layer, record: Record, seen: Pass, level: int) -> None:
        """Register hooks that copy the gradients at a layer's outputs and final state, and its adjoint if there is one.

        The adjoints of several backward passes through one forward pass would have to be added: they are dropped.
        """
        if not record.outputs.requires_grad:
            return

        # Some kernels call a hook with None if no gradient arrives.
        def at_outputs(gradient: Tensor | None) -> None:
            if gradient is None:
                return
            seen.direct[level] = gradient[:, : self.num_sequences].clone()
            seen.adjoint_from_backward[level] = None
            seen.reached = True

        def at_final(gradient: Tensor | None, index: int) -> None:
            if gradient is None:
                return
            if seen.final[level] is None:
                seen.final[level] = map_state(zeros_like, seen.records[level].final)
            leaves(seen.final[level])[index].copy_(gradient[: self.num_sequences])

        times = 0

        def at_adjoint(adjoint: StateGradients) -> None:
            nonlocal times
            times += 1
            seen.adjoint_from_backward[level] = (
                adjoint.columns(slice(self.num_sequences)).copied() if times == 1 else None
            )

        layer.on_adjoint(record.outputs, at_adjoint)
        record.outputs.register_hook(at_outputs)
        for index, leaf in enumerate(leaves(record.final)):
            if leaf.requires_grad:
                leaf.register_hook(lambda gradient, index=index: at_final(gradient, index))
