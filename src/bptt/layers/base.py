"""The layer protocol. A layer that only states its equations gets a generic forward pass and adjoint."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn

from bptt.contracts import at_least
from bptt.layers.full_precision import full_precision_no_grad, in_full_precision, promoted, with_graph
from bptt.layers.record import LayerGradients, Record, StateGradients, num_losses
from bptt.layers.reset import Reset, select_rows
from bptt.layers.weight_dropout import Masks, masked
from bptt.shapes import Features, Input, Outputs, State, leaves, map_state


class Layer(nn.Module, ABC):
    """A recurrent layer: h_t = step(x_t, h_{t-1}).

    A new cell only implements `step` and `initial_state`. The inherited `forward` loops over the timesteps, and the
    inherited `adjoint` differentiates `step` by autograd. The first tensor of the state is the output h_t (B, H).
    `step` must be deterministic. If it draws random numbers or counts in training mode alone, BPTT trains it, but the
    measures of passes of training are left out.

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

    @property
    def directions(self) -> tuple["Layer", ...]:
        """The layers of one direction that this layer consists of: itself, unless it is bidirectional."""
        return (self,)

    @property
    def label(self) -> str:
        """Name and hidden size, for titles."""
        return f"{type(self).__name__}({self.hidden_size})"

    @abstractmethod
    def step(self, input: Input, state: Any) -> State:
        """One timestep of the layer's equations in plain torch."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state before the first timestep, each tensor (B, ·)."""

    def step_within_units(self, input: Input, state: Any) -> State:
        """The values of `step`, with a derivative with respect to the state that has no path through recurrent weights.

        RFLO and e-prop differentiate it. By default the output h_{t−1} is a constant, and the other tensors of the
        state act on their own unit. A cell whose state is h alone must override it: ValueError if it does not.
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
                with with_graph():
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
        with full_precision_no_grad(record.outputs), with_graph():
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

        outputs: the outputs of the forward pass in question, from the layer or from the model's record. The callback
            must copy the tensors it wants to keep.
        Layers whose backward pass does not compute the adjoint (torch's kernels, a loop over `step`) never call it.
        """

    def slope(self, record: Record) -> Outputs:
        """Slope of the activation at every timestep: by default 1 − h_t², the slope of a tanh whose value is h_t.

        That is exact if h_t = tanh(…). In a GRU, an LSTM and most cells with gates, h_t only lies between −1 and 1: the
        number is near 0 if h_t is near ±1, and does not show whether gates or candidates are saturated.
        """
        return slope_of_tanh(promoted(record.outputs))


def node_of(outputs: Outputs) -> Any:
    """The autograd node that computed a layer's outputs, also for the view of them that the model makes."""
    node: Any = outputs.grad_fn
    return node.next_functions[0][0] if node is not None and node.name() == "ViewBackward0" else node


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
    products = iter(torch.autograd.grad(ends, wanted, arriving, create_graph=create_graph, materialize_grads=True))
    return [next(products) if each.requires_grad else torch.zeros_like(each) for each in inputs]


def through_masks(gradients: dict[str, Tensor], masks: Masks | None) -> dict[str, Tensor]:
    """Gradients at the parameters by name, from the gradients at the masked parameters."""
    if not masks:
        return gradients
    return {name: each * masks[name] if name in masks else each for name, each in gradients.items()}


def slope_of_tanh(value: Tensor) -> Tensor:
    """1 − v², in one pass over memory."""
    return torch.addcmul(value.new_ones(()), value, value, value=-1)


def zeros_like(state: State) -> Any:
    """Zeros in the structure of a state."""
    return map_state(torch.zeros_like, state)


def like(structure: State, tensors: Iterable[Tensor]) -> Any:
    """The first of the given tensors, in the structure of a state."""
    remaining = iter(tensors)
    return map_state(lambda _: next(remaining), structure)
