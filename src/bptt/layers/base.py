"""The layer protocol. A layer that only states its equations gets a generic forward pass and adjoint."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from bptt.contracts import at_least
from bptt.layers.reset import Reset, select_rows
from bptt.layers.weight_dropout import Masks, masked
from bptt.shapes import Features, Input, Outputs, State, leaves, map_state

M = TypeVar("M", bound=nn.Module)

MULTITHREADED = 40_000  # elements: torch distributes elementwise operations from 32,768 on over its threads


class Record(NamedTuple):
    """Inputs, states and outputs of one forward pass of one layer: what the adjoint needs, by reference.

    final: the state after the last timestep. None in records made for measurements, which do not need it.
    mask: the dropout mask (T, B, ·) between this level and the level above. None for no dropout.
    reset: the timesteps at which sequences begin again. None if there is none.
    stream: the residual stream (T, B, W) below the level's block. None without a block.
    weight_masks: masks of the recurrent weights in this pass, by the parameter's name. None for no dropout of weights.
    input_mask: at the lowest level, the dropout mask (T, B, ·) that is in `inputs` already. None for no dropout.
    """

    inputs: Features
    initial: Any
    outputs: Outputs
    final: Any
    mask: Tensor | None = None
    reset: Reset | None = None
    stream: Tensor | None = None
    weight_masks: Masks | None = None
    input_mask: Tensor | None = None

    def first(self, num_timesteps: int) -> "Record":
        """The record of the first timesteps. Their final state was not recorded, so it is None."""
        mask, stream, at_input = (
            None if each is None else each[:num_timesteps] for each in (self.mask, self.stream, self.input_mask)
        )
        reset = None if self.reset is None else self.reset.first(num_timesteps)
        inputs, outputs = self.inputs[:num_timesteps], self.outputs[:num_timesteps]
        return Record(inputs, self.initial, outputs, None, mask, reset, stream, self.weight_masks, at_input)

    def repeated(self, times: int) -> "Record":
        """The record with its sequences repeated along the batch dimension; the final state is None."""
        initial = map_state(lambda leaf: torch.cat([leaf] * times), self.initial)
        reset = None if self.reset is None else self.reset.repeated(times)
        inputs, outputs = (torch.cat([part] * times, 1) for part in (self.inputs, self.outputs))
        return Record(inputs, initial, outputs, None, None, reset)

    def columns(self, part: slice) -> "Record":
        """The record of the selected sequences, detached."""
        initial, final = (
            None if state is None else map_state(lambda leaf: leaf[part].detach(), state)
            for state in (self.initial, self.final)
        )
        mask, stream, at_input = (
            None if each is None else each[:, part].detach() for each in (self.mask, self.stream, self.input_mask)
        )
        reset = None if self.reset is None else self.reset.columns(part)
        inputs, outputs = self.inputs[:, part].detach(), self.outputs[:, part].detach()
        return Record(inputs, initial, outputs, final, mask, reset, stream, self.weight_masks, at_input)


class StateGradients(NamedTuple):
    """dL/d(state) of one layer, in the units of the loss.

    states: total derivatives, in the structure of the layer's state, each tensor (T, B, H), through every path from
        timestep t to the loss. For an LSTM, dL/dc_t includes the path through h_t = o_t ∘ tanh(c_t).
    initial: gradient at the initial state (B, H), its tensors taken as independent. It is the `final` of the chunk
        before.
    resets: gradient at the state that sequences begin again with (B, H), summed over resets; None without any.
    """

    states: Any
    initial: Any
    resets: Any = None

    @property
    def hidden(self) -> Tensor:
        """λ_t = dL/dh_t, (T, B, H)."""
        return leaves(self.states)[0]

    def columns(self, part: slice) -> "StateGradients":
        """The gradients of the selected sequences."""
        initial, resets = (
            None if state is None else map_state(lambda leaf: leaf[part], state)
            for state in (self.initial, self.resets)
        )
        return StateGradients(map_state(lambda leaf: leaf[:, part], self.states), initial, resets)

    def copied(self) -> "StateGradients":
        """A copy that does not share memory with the backward pass."""
        return StateGradients(*(None if part is None else map_state(torch.clone, part) for part in self))


class LayerGradients(NamedTuple):
    """Result of manual BPTT through one layer: the adjoint, dL/dx_t (T, B, D), and dL/dθ by parameter name."""

    states: StateGradients
    inputs: Features
    parameters: dict[str, Tensor]


class Layer(nn.Module, ABC):
    """A recurrent layer: h_t = step(x_t, h_{t-1}).

    A new cell only implements `step` and `initial_state`. The inherited `forward` loops over the timesteps, and the
    inherited `adjoint` differentiates `step` by autograd. `step` must be deterministic. The first tensor of the state
    is the output h_t (B, H).

    recurrent: names of the parameters that multiply the state, for regularisers and dropout of the recurrence.
    original: the layer that this one runs for with masked weights; None for a layer of its own.
    """

    recurrent: tuple[str, ...] = ()
    original: "Layer | None" = None

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        at_least(1, input_size=input_size, hidden_size=hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size

    @abstractmethod
    def step(self, input: Input, state: Any) -> State:
        """One timestep of the layer's equations in plain torch."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state before the first timestep, each tensor (B, H)."""

    def step_within_units(self, input: Input, state: Any) -> State:
        """`step`, of which the derivative with respect to the state has no path through recurrent weights.

        RFLO and e-prop differentiate it; its values are those of `step`. By default the output h_{t−1} counts as a
        constant, and the other tensors of the state act on their own unit. A cell whose state is h alone overrides
        it. ValueError if it does not.
        """
        if isinstance(state, Tensor):
            kind = type(self).__name__
            raise ValueError(
                f"rflo and eprop need a layer that defines `step_within_units`, got {kind}; use estimator=snap or rtrl"
            )
        output, *others = leaves(state)
        return self.step(input, like(state, [output.detach(), *others]))

    def with_masked_weights(self, masks: Masks) -> Self:
        """This layer with masked weights, for one pass in training."""
        twin = masked(self, masks)
        twin.__dict__["original"] = self
        return twin

    def as_recorded(self, record: Record) -> Self:
        """This layer with the weights that a recorded pass ran with, detached if they were masked."""
        return masked(self, record.weight_masks, detached=True) if record.weight_masks else self

    def forward(self, inputs: Features, state: State) -> tuple[Outputs, State]:
        """Run all T timesteps. Returns the outputs h_1 … h_T and the final state."""
        outputs = []
        for input in inputs.unbind():
            state = self.step(input, state)
            outputs.append(leaves(state)[0])
        # A separate tensor, as torch's kernels return: gradients at the final state must not appear at the outputs.
        return torch.stack(outputs), map_state(lambda leaf: leaf.view_as(leaf), state)

    def forward_with_resets(self, inputs: Features, state: State, reset: Reset) -> tuple[Outputs, State]:
        """`forward` for sequences that begin again: runs from reset to reset.

        A layer that can reset within its own loop or scan overrides it for speed.
        """
        pieces = []
        for first, last in reset.spans():
            if first in reset.times:
                state = reset.begin(first, state)
            outputs, state = self(inputs[first:last], state)
            pieces.append(outputs)
        return torch.cat(pieces), state

    def adjoint(self, record: Record, seed: Outputs, final: State | None = None) -> StateGradients:
        """λ_t = dL/dh_t for every t of a recorded pass, by the backward recursion λ_t = g_t + (∂h_{t+1}/∂h_t)ᵀ λ_{t+1}.

        No gradient crosses a reset: λ_t = g_t if the sequence begins again at t + 1. The result is linear in
        (seed, final).

        seed: the direct gradients g_t (T, B, H), from the readout or the layer above. Also those of m losses side by
            side, (T, m·B, H), which costs little more than one loss.
        final: gradient at the final state, from later chunks; zero by default.
        """
        layer = in_full_precision(self.as_recorded(record))
        if (times := num_losses(record, seed)) > 1:
            record = record.repeated(times)
        step = layer.step
        with full_precision_no_grad(record.outputs):
            inputs = promoted(record.inputs)
            states, reset = [map_state(promoted, record.initial)], record.reset
            for time, input in enumerate(inputs.unbind()):
                if reset is not None and time in reset.times:
                    states[-1] = reset.begin(time, states[-1])
                states.append(step(input, states[-1]))
            at_resets: Any = None if reset is None else zeros_like(states[0])
            arriving = zeros_like(states[0]) if final is None else map_state(promoted, final)
            totals: list[Any] = []
            for time in reversed(range(len(inputs))):
                input, before, direct = inputs[time], states[time], promoted(seed[time])
                with torch.enable_grad():
                    before = map_state(lambda leaf: leaf.detach().requires_grad_(), before)
                    after = step(input, before)
                cotangents = leaves(arriving)
                cotangents[0] = cotangents[0] + direct
                earlier, current = leaves(before), leaves(after)
                gradients = vjp(current, earlier + current, cotangents)
                through = zip(current, gradients[len(earlier) :], cotangents)
                totals.append(like(before, (own if leaf.requires_grad else end for leaf, own, end in through)))
                arriving = like(before, gradients)
                if reset is not None and time in reset.times:
                    nothing, chosen = zeros_like(arriving), reset.mask[time]
                    at_resets = map_state(torch.add, at_resets, select_rows(chosen, arriving, nothing))
                    arriving = select_rows(chosen, nothing, arriving)
            return StateGradients(map_state(lambda *leaf: torch.stack(leaf[::-1]), *totals), arriving, at_resets)

    def gradients(
        self, record: Record, seed: Outputs, final: State | None = None, *, parameters: bool = True
    ) -> LayerGradients:
        """Manual BPTT of a recorded pass: dL/dh_t, dL/dx_t and dL/dθ, from the same `seed` and `final` as `adjoint`.

        parameters: False skips dL/dθ. It must be False if the seed holds several losses side by side.
        """
        states = self.adjoint(record, seed, final)
        layer, masks = in_full_precision(self.as_recorded(record)), record.weight_masks
        if (times := num_losses(record, seed)) > 1:
            assert not parameters, "the gradients of several losses would be added up"
            record = record.repeated(times)
        with full_precision_no_grad(record.outputs), torch.enable_grad():
            inputs = promoted(record.inputs).requires_grad_()
            initial = map_state(promoted, record.initial)
            if record.reset is None:
                outputs, last = layer(inputs, initial)
            else:
                began = map_state(promoted, record.reset.state)
                outputs, last = layer.forward_with_resets(inputs, initial, record.reset._replace(state=began))
            ends, cotangents = [outputs], [promoted(seed)]
            if final is not None:
                ends, cotangents = ends + leaves(last), cotangents + leaves(final)
            named = dict(layer.named_parameters()) if parameters else {}
            first, *rest = vjp(ends, [inputs, *named.values()], cotangents)
        return LayerGradients(states, first, through_masks(dict(zip(named, rest)), masks))

    def on_adjoint(self, outputs: Outputs, callback: Callable[[StateGradients], None]) -> None:
        """Register a callback that receives the adjoint when autograd computes it.

        outputs: the outputs of the forward pass in question. The callback must copy the tensors it wants to keep.
        Layers whose backward pass does not compute the adjoint (torch's kernels, a loop over `step`) never call it.
        """

    def slope(self, record: Record) -> Outputs:
        """1 − h_t², the derivative of tanh at the preactivation. It is 0 if the unit is saturated."""
        return slope_of_tanh(promoted(record.outputs))


@contextmanager
def full_precision_no_grad(example: Tensor) -> Iterator[None]:
    """Disable autograd and autocast, and flush subnormal numbers to 0."""
    with torch.no_grad(), torch.autocast(example.device.type, enabled=False), without_subnormals():
        yield


@contextmanager
def without_subnormals() -> Iterator[None]:
    """Flush numbers below 1.2e-38 (float64: below 2.3e-308) to 0 on this CPU thread.

    A vanishing gradient becomes subnormal within some hundred timesteps, and CPUs compute with subnormal numbers about
    ten times more slowly.
    """
    # OpenMP's worker threads inherit the mode of the thread that starts them, and keep it: start them before.
    if torch.get_num_threads() > 1:
        torch.ones(MULTITHREADED, dtype=torch.float32, device="cpu").mul_(1)
    # torch has no getter for this mode, so a product shows it.
    before = not torch.full((), 1e-40, dtype=torch.float32, device="cpu").mul_(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def vjp(
    outputs: list[Tensor], inputs: list[Tensor], cotangents: list[Tensor], *, create_graph: bool = False
) -> list[Tensor]:
    """Vector-Jacobian product from `outputs` to `inputs`.

    Inputs that do not require grad, and outputs without a graph, count as zero.
    """
    live = [(output, cotangent) for output, cotangent in zip(outputs, cotangents) if output.requires_grad]
    wanted = [each for each in inputs if each.requires_grad]
    if not live:
        return [torch.zeros_like(each) for each in inputs]
    ends, arriving = (list(side) for side in zip(*live))
    found = iter(torch.autograd.grad(ends, wanted, arriving, create_graph=create_graph, materialize_grads=True))
    return [next(found) if each.requires_grad else torch.zeros_like(each) for each in inputs]


def through_masks(gradients: dict[str, Tensor], masks: Masks | None) -> dict[str, Tensor]:
    """Gradients at the parameters by name, from those at the masked ones."""
    if not masks:
        return gradients
    return {name: found * masks[name] if name in masks else found for name, found in gradients.items()}


def in_full_precision(module: M) -> M:
    """The module itself, or a float32 copy if its weights are in half precision. For measurements only."""
    half = any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in module.parameters())
    return copy.deepcopy(module).float() if half else module


def promoted(values: Tensor) -> Tensor:
    """The values detached and in at least float32: half-precision training is measured in full precision."""
    return values.detach().to(torch.promote_types(values.dtype, torch.float32))


def slope_of_tanh(value: Tensor) -> Tensor:
    """1 − v², in one pass over memory."""
    return torch.addcmul(value.new_ones(()), value, value, value=-1)


def num_losses(record: Record, seed: Tensor) -> int:
    """Number m of losses whose gradients stand side by side in the seed (T, m·B, H)."""
    return seed.shape[1] // record.outputs.shape[1]


def zeros_like(state: State) -> Any:
    """Zeros in the structure of a state."""
    return map_state(torch.zeros_like, state)


def like(structure: State, tensors: Iterable[Tensor]) -> Any:
    """The first of the given tensors, in the structure of a state."""
    remaining = iter(tensors)
    return map_state(lambda _: next(remaining), structure)
