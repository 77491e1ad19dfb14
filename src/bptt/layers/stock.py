"""Layers that run on torch's recurrent kernels, with hand-derived adjoint and manual BPTT."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bptt.layers.base import Layer, node_of, through_masks
from bptt.layers.full_precision import full_precision_no_grad, promoted, without_subnormals
from bptt.layers.record import LayerGradients, Record, StateGradients, num_losses, previous_hidden
from bptt.layers.reset import Reset
from bptt.shapes import Features, Hidden, Mask, Outputs, State, map_state

BLOCK = 1024  # timesteps


class Deltas(NamedTuple):
    """dL/d(preactivations) of one layer, each (T, B, G·H): of W_ih x_t + b_ih, and of W_hh h_{t−1} + b_hh."""

    from_input: Tensor
    from_hidden: Tensor


class StockLayer(Layer):
    """A layer that runs on one of torch's recurrent kernels (oneDNN, cuDNN), with one level and one direction.

    The kernel owns the weights: `weight_ih` (G·H, D), `weight_hh` (G·H, H) and two biases (G·H). They consist of G
    blocks of H rows, one block a gate, in the order of `gates`, which is torch's.

    A layer with its own `loop` trains on the CPU through that loop, with manual BPTT as its backward pass, because
    torch's CPU kernel for this layer is not fused and is slower.
    """

    gates: tuple[str, ...]
    recurrent = ("kernel.weight_hh_l0",)

    def __init__(self, kernel: Callable[..., nn.RNNBase], input_size: int, hidden_size: int, **options: Any):
        super().__init__(input_size, hidden_size)
        self.kernel = kernel(input_size, hidden_size, **options)

    def forward(self, inputs: Features, state: State) -> tuple[Outputs, State]:
        if self._trains_by_loop(inputs):
            return ManualBPTT.apply(self, inputs, state, None, None, *self.kernel.parameters())
        return self._run_kernel(inputs, state)

    def forward_with_resets(self, inputs: Features, state: State, reset: Reset) -> tuple[Outputs, State]:
        if self._trains_by_loop(inputs):
            return ManualBPTT.apply(self, inputs, state, reset.mask, reset.state, *self.kernel.parameters())
        return super().forward_with_resets(inputs, state, reset)

    def _trains_by_loop(self, inputs: Features) -> bool:
        return self.loop is not None and torch.is_grad_enabled() and inputs.is_cpu and self._in_full_precision(inputs)

    def _run_kernel(self, inputs: Features, state: State) -> tuple[Outputs, State]:
        # cuDNN refuses a state that is expanded from one row.
        outputs, final = self.kernel(inputs, map_state(lambda leaf: leaf.contiguous().unsqueeze(0), state))
        return outputs, self._state(map_state(lambda leaf: leaf.squeeze(0), final))

    def initial_state(self, batch_size: int) -> State:
        return self.weight_hh.new_zeros(batch_size, self.hidden_size)

    loop: Callable[[Features, Hidden, Reset | None], tuple[Outputs, tuple[Tensor, ...]]] | None = None
    """Forward pass of a layer with state h. Returns h_1 … h_T, and the tensors `saved` for `recursion`."""

    @abstractmethod
    def recursion(
        self, record: Record, seed: Tensor, final: Any, saved: tuple[Tensor, ...], *, keep_deltas: bool
    ) -> tuple[StateGradients, Deltas | None]:
        """The hand-derived adjoint; with `keep_deltas` also dL/d(preactivations), else None.

        The same recursions one timestep and one loss at a time, without buffers: tests/layers/textbook.py.

        The m losses have a dimension of their own: seed (T, m, B, H), final (m, B, H), states (T, m, B, H), initial
        (m, B, H), deltas (T, m, B, G·H).
        """

    def manual_bptt(
        self, record: Record, seed: Outputs, final: Any, saved: tuple[Tensor, ...] = (), *, keep_deltas: bool = True
    ) -> tuple[StateGradients, Deltas | None]:
        """`recursion` for losses side by side, (T, m·B, ·)."""
        losses = num_losses(record, seed)

        def split_losses(leaf: Tensor) -> Tensor:
            return leaf.unflatten(-2, (losses, -1))

        def merge_losses(leaf: Tensor) -> Tensor:
            return leaf.flatten(-3, -2)

        seed = split_losses(seed)
        nothing = map_state(lambda _: torch.zeros_like(seed[0]), record.initial)
        final = nothing if final is None else map_state(split_losses, final)
        states, deltas = self.recursion(record, seed, final, saved, keep_deltas=keep_deltas)
        joined = StateGradients(*(None if part is None else map_state(merge_losses, part) for part in states))
        return joined, None if deltas is None else Deltas(*map(merge_losses, deltas))

    def adjoint(self, record: Record, seed: Outputs, final: State | None = None) -> StateGradients:
        with full_precision_no_grad(record.outputs):
            layer = self.as_recorded(record)
            return layer.manual_bptt(*promoted_pass(record, seed, final), keep_deltas=False)[0]

    def gradients(
        self, record: Record, seed: Outputs, final: State | None = None, *, parameters: bool = True
    ) -> LayerGradients:
        with full_precision_no_grad(record.outputs):
            layer, masks = self.as_recorded(record), record.weight_masks
            record, seed, final = promoted_pass(record, seed, final)
            states, deltas = layer.manual_bptt(record, seed, final)
            assert deltas is not None
            by_name: dict[str, Tensor] = {}
            if parameters:
                assert num_losses(record, seed) == 1, "the gradients of several losses would be added up"
                names = [f"kernel.{name}" for name, _ in self.kernel.named_parameters()]
                by_name = through_masks(dict(zip(names, parameter_gradients(record, deltas))), masks)
            return LayerGradients(states, deltas.from_input @ promoted(self.weight_ih), by_name)

    def on_adjoint(self, outputs: Outputs, callback: Callable[[StateGradients], None]) -> None:
        node = node_of(outputs)
        ran: StockLayer | None = getattr(node, "layer", None)  # of `ManualBPTT`
        if ran is not None and (ran is self or ran.original is self):
            node.adjoint_callbacks.append(callback)

    def preactivations(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """W_ih x_t + b_ih and W_hh h_{t-1} + b_hh, each (…, G·H), for one timestep or several at once."""
        kind = torch.promote_types(inputs.dtype, self.weight_ih.dtype)
        return (
            nn.functional.linear(inputs, self.weight_ih.to(kind), self.bias_ih.to(kind)),
            nn.functional.linear(hidden, self.weight_hh.to(kind), self.bias_hh.to(kind)),
        )

    def preactivation(self, inputs: Tensor, hidden: Tensor) -> Tensor:
        """W_ih x_t + b_ih + W_hh h_{t-1} + b_hh, (…, G·H)."""
        kind = torch.promote_types(inputs.dtype, self.weight_ih.dtype)
        from_input = nn.functional.linear(inputs, self.weight_ih.to(kind), (self.bias_ih + self.bias_hh).to(kind))
        both = torch.addmm(from_input.flatten(0, -2), hidden.flatten(0, -2), self.weight_hh.T.to(kind))
        return both.view_as(from_input)

    @property
    def weight_ih(self) -> Tensor:
        return cast(Tensor, self.kernel.weight_ih_l0)

    @property
    def weight_hh(self) -> Tensor:
        return cast(Tensor, self.kernel.weight_hh_l0)

    @property
    def bias_ih(self) -> Tensor:
        return cast(Tensor, self.kernel.bias_ih_l0)

    @property
    def bias_hh(self) -> Tensor:
        return cast(Tensor, self.kernel.bias_hh_l0)

    def _in_full_precision(self, inputs: Tensor) -> bool:
        whole = inputs.dtype == self.weight_ih.dtype and inputs.dtype in (torch.float32, torch.float64)
        return whole and not torch.is_autocast_enabled(inputs.device.type)

    def _state(self, final: State) -> State:
        return final


class ManualBPTT(torch.autograd.Function):
    """A stock layer's own loop, with manual BPTT as its backward pass, which calls `adjoint_callbacks`."""

    @staticmethod
    def forward(
        ctx: Any,
        layer: StockLayer,
        inputs: Features,
        initial: Hidden,
        resets: Mask | None,
        began: Hidden | None,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        assert layer.loop is not None
        ctx.reset = None if resets is None else Reset.at(resets, None)
        outputs, saved = layer.loop(inputs, initial, _with_state(ctx.reset, began))
        ctx.layer = layer
        ctx.adjoint_callbacks = []
        # The weights are saved so that autograd detects their in-place modification.
        ctx.save_for_backward(inputs, initial, began, outputs, *saved, *weights)
        ctx.num_saved = len(saved)
        return outputs, outputs[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, seed: Outputs, final: Hidden) -> tuple[Tensor | None, ...]:
        inputs, initial, began, outputs, *rest = ctx.saved_tensors
        record = Record(inputs, initial, outputs, None, None, _with_state(ctx.reset, began))
        with without_subnormals():
            states, deltas = ctx.layer.manual_bptt(record, seed, final, tuple(rest[: ctx.num_saved]))
        for callback in ctx.adjoint_callbacks:
            callback(states)
        at_inputs = deltas.from_input @ ctx.layer.weight_ih if ctx.needs_input_grad[1] else None
        return None, at_inputs, states.initial, None, states.resets, *parameter_gradients(record, deltas)


def _with_state(reset: Reset | None, state: Hidden | None) -> Reset | None:
    return None if reset is None else reset._replace(state=state)


def parameter_gradients(record: Record, deltas: Deltas) -> tuple[Tensor, ...]:
    """dL/dθ of a stock layer in the order of the kernel's parameters, each one product over all T·B rows."""
    return (
        deltas.from_input.flatten(0, 1).T @ record.inputs.flatten(0, 1),
        deltas.from_hidden.flatten(0, 1).T @ previous_hidden(record).flatten(0, 1),
        deltas.from_input.sum((0, 1)),
        deltas.from_hidden.sum((0, 1)),
    )


def promoted_pass(record: Record, seed: Outputs, final: State | None) -> tuple[Record, Outputs, State | None]:
    """A recorded pass with its incoming gradients, all in at least float32."""
    inputs, initial, outputs = promoted(record.inputs), map_state(promoted, record.initial), promoted(record.outputs)
    reset = record.reset
    if reset is not None:
        reset = reset._replace(state=map_state(promoted, reset.state))
    final = None if final is None else map_state(promoted, final)
    return Record(inputs, initial, outputs, None, None, reset), promoted(seed), final


def adjoint_buffer(seed: Tensor, final: Tensor) -> Tensor:
    """0, g_1, …, g_{T−1}, λ_T, (T + 1, m, B, H). Adding the recurrent terms in place turns it into λ_0 … λ_T."""
    return torch.cat([torch.zeros_like(seed[:1]), seed[:-1], (seed[-1] + final).unsqueeze(0)])


def delta_buffer(factors: Tensor, seed: Tensor, *, keep_deltas: bool) -> Tensor:
    """Output buffer for factors (T, 1, B, …) × gradients, (T, m, B, …).

    With one loss, `factors` is overwritten in place. Otherwise allocate one timestep and reuse it, or all T if
    `keep_deltas`.
    """
    length, losses = seed.shape[:2]
    if losses == 1:
        return factors
    return factors.new_empty(length if keep_deltas else 1, losses, *factors.shape[2:]).expand(
        length, -1, *factors.shape[2:]
    )


def timesteps(*sequences: Tensor, reverse: bool = False) -> Iterator[tuple[Tensor, ...]]:
    """The timesteps of several sequences, as views that are made in blocks: a million at once would take gigabytes.

    A sequence expanded along time (stride 0) yields the same tensor at every timestep.
    """
    starts = range(0, len(sequences[0]), BLOCK)
    for start in reversed(starts) if reverse else starts:
        blocks = (each[start : start + BLOCK] for each in sequences)
        views = [[block[0]] * len(block) if block.stride(0) == 0 else block.unbind() for block in blocks]
        together = zip(*views)
        yield from reversed(list(together)) if reverse else together


class Cuts:
    """Cuts the gradient of a recursion at resets, where it goes to the state that sequences begin again with.

    The recursion adds what timestep t sends back to `earlier`[t], which holds g_{t−1} (0 for t = 0).
    """

    def __init__(self, reset: Reset | None, earlier: Tensor):
        self.times = frozenset(() if reset is None else reset.times)
        self.reset = reset
        self.earlier = earlier
        self.total: Tensor | None = None
        if reset is not None:
            self.direct = earlier.clone()
            self.total = torch.zeros_like(earlier[0])
            earlier.masked_fill_(reset.mask[:, None, :, None], 0)

    def after(self, time: int) -> None:
        """Collect what a timestep has sent across its resets, and put g_{t−1} back in its place."""
        assert self.reset is not None
        assert self.total is not None
        chosen = self.reset.mask[time, None, :, None]
        self.total += torch.where(chosen, self.earlier[time], 0)
        torch.where(chosen, self.direct[time], self.earlier[time], out=self.earlier[time])
