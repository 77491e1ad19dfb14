"""The layer protocol, with a generic forward pass and adjoint for every layer that only states its equations."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bptt.contracts import at_least
from bptt.shapes import Features, Hidden, Input, Outputs, State, leaves, map_state


class Record(NamedTuple):
    """One forward pass of one layer, as its adjoint needs it: references to what the pass made, no copies.

    final: the state after the last timestep, or None where the record is only looked at.
    mask: the dropout mask (T, B, H) through which the outputs went on to the layer above; None for all ones.
    """

    inputs: Features
    initial: Any
    outputs: Outputs
    final: Any
    mask: Outputs | None = None

    def first(self, num_timesteps: int) -> "Record":
        """The first timesteps; their final state is not in the record."""
        mask = None if self.mask is None else self.mask[:num_timesteps]
        return Record(self.inputs[:num_timesteps], self.initial, self.outputs[:num_timesteps], None, mask)

    def repeated(self, times: int) -> "Record":
        """The same sequences several times side by side, to be looked at; their final state is not in the record."""
        initial = map_state(lambda leaf: torch.cat([leaf] * times), self.initial)
        return Record(torch.cat([self.inputs] * times, 1), initial, torch.cat([self.outputs] * times, 1), None)


class StateGradients(NamedTuple):
    """dL/d(state) of one layer, in the units of the loss.

    `states` is built like the layer's state, each tensor (T, B, H): the total derivative at timestep t through
    everything downstream, so for an LSTM dL/dc_t includes the path through h_t = o_t ∘ tanh(c_t).
    `initial` is the gradient that arrives at the initial state, with its components taken as independent: it is the
    `final` of the chunk before.
    """

    states: Any
    initial: Any

    @property
    def hidden(self) -> Tensor:
        """λ_t = dL/dh_t, (T, B, H)."""
        return leaves(self.states)[0]

    def columns(self, part: slice) -> "StateGradients":
        """Those of some of the sequences."""
        return StateGradients(
            map_state(lambda leaf: leaf[:, part], self.states), map_state(lambda leaf: leaf[part], self.initial)
        )


class Deltas(NamedTuple):
    """dL/d(preactivations) of one layer, on the input's and on the hidden state's side, each (T, B, G·H)."""

    from_input: Tensor
    from_hidden: Tensor


class LayerGradients(NamedTuple):
    """All gradients of one layer from one chunk, as manual BPTT gives them: the adjoint, dL/dx_t and dL/dθ by name."""

    states: StateGradients
    inputs: Features
    parameters: dict[str, Tensor]


class Layer(nn.Module, ABC):
    """A recurrent layer: h_t = step(x_t, h_{t-1}).

    A cell of your own needs `step` and `initial_state` alone; then `forward` loops over timesteps and `adjoint`
    differentiates `step` by autograd. `step` must be deterministic. The first tensor of the state is the output h_t.

    recurrent: names of the parameters that multiply the state, for a regulariser of the recurrence.
    """

    recurrent: tuple[str, ...] = ()

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

    def forward(self, inputs: Features, state: State) -> tuple[Outputs, State]:
        """Run over all T timesteps; returns the outputs h_1 … h_T and the final state."""
        outputs = []
        for input in inputs.unbind():
            state = self.step(input, state)
            outputs.append(leaves(state)[0])
        # As in the kernels, the final state is a tensor apart: what arrives there is not in the outputs' gradient.
        return torch.stack(outputs), map_state(lambda leaf: leaf.view_as(leaf), state)

    def adjoint(self, record: Record, seed: Outputs, final: State | None = None) -> StateGradients:
        """λ_t = dL/dh_t for every t of a recorded pass, by the backward recursion λ_t = g_t + (∂h_{t+1}/∂h_t)ᵀ λ_{t+1}.

        seed: the direct gradients g_t (T, B, H), from the readout or the layer above; the result is linear in them. Or
        those of m losses side by side, (T, m·B, H), which take little more time than one.
        final: the gradient that arrives at the final state from later chunks; none by default.
        """
        if (times := num_losses(record, seed)) > 1:
            record = record.repeated(times)
        with exact(record.outputs):
            inputs = promoted(record.inputs)
            states = [map_state(promoted, record.initial)]
            for input in inputs.unbind():
                states.append(self.step(input, states[-1]))
            arriving = zeros_like(states[0]) if final is None else map_state(promoted, final)
            totals: list[Any] = []
            for input, before, direct in zip(reversed(inputs), reversed(states[:-1]), reversed(promoted(seed))):
                with torch.enable_grad():
                    before = map_state(lambda leaf: leaf.detach().requires_grad_(), before)
                    after = self.step(input, before)
                cotangents = leaves(arriving)
                cotangents[0] = cotangents[0] + direct
                earlier, current = leaves(before), leaves(after)
                gradients = pull_back(current, earlier + current, cotangents)
                through = zip(current, gradients[len(earlier) :], cotangents)
                totals.append(like(before, (own if leaf.requires_grad else end for leaf, own, end in through)))
                arriving = like(before, gradients)
            return StateGradients(map_state(lambda *leaf: torch.stack(leaf[::-1]), *totals), arriving)

    def gradients(
        self, record: Record, seed: Outputs, final: State | None = None, *, parameters: bool = True
    ) -> LayerGradients:
        """Manual BPTT: dL/dh_t, dL/dx_t and, unless left out, dL/dθ of a recorded pass, from the seeds of `adjoint`.

        Those of several losses side by side have no dL/dθ.
        """
        states = self.adjoint(record, seed, final)
        if (times := num_losses(record, seed)) > 1:
            assert not parameters, "the gradients of several losses would be added up"
            record = record.repeated(times)
        with exact(record.outputs), torch.enable_grad():
            inputs = promoted(record.inputs).requires_grad_()
            outputs, last = self(inputs, map_state(promoted, record.initial))
            ends, cotangents = [outputs], [promoted(seed)]
            if final is not None:
                ends, cotangents = ends + leaves(last), cotangents + leaves(final)
            named = dict(self.named_parameters()) if parameters else {}
            first, *rest = pull_back(ends, [inputs, *named.values()], cotangents)
        return LayerGradients(states, first, dict(zip(named, rest)))

    def slope(self, record: Record) -> Outputs:
        """1 − h_t², the derivative of tanh where its value is h_t: 0 where the layer is saturated."""
        return 1 - promoted(record.outputs).square()


class StockLayer(Layer):
    """A layer run by one of torch's recurrent kernels (oneDNN, cuDNN), of one level and one direction.

    The kernel owns the weights: `weight_ih` (G·H, D), `weight_hh` (G·H, H) and two biases (G·H), where the G blocks of
    H rows belong to `gates` in torch's order.

    A layer with a `loop` of its own trains through that on a CPU, and through manual BPTT as its backward pass, where
    torch's kernel is no fused one and slower.
    """

    gates: tuple[str, ...]
    recurrent = ("kernel.weight_hh_l0",)

    def __init__(self, kernel: Callable[..., nn.RNNBase], input_size: int, hidden_size: int, **options: Any):
        super().__init__(input_size, hidden_size)
        self.kernel = kernel(input_size, hidden_size, **options)

    def forward(self, inputs: Features, state: State) -> tuple[Outputs, State]:
        if self.loop is not None and torch.is_grad_enabled() and inputs.is_cpu and self._in_full_precision(inputs):
            return ByHand.apply(self, inputs, state, *self.kernel.parameters())
        outputs, final = self.kernel(inputs, map_state(lambda leaf: leaf.unsqueeze(0), state))
        return outputs, self._state(map_state(lambda leaf: leaf.squeeze(0), final))

    def initial_state(self, batch_size: int) -> State:
        return self.weight_hh.new_zeros(batch_size, self.hidden_size)

    loop: Callable[[Features, Hidden], tuple[Outputs, tuple[Tensor, ...]]] | None = None
    """The forward pass of a layer with the state h: h_1 … h_T, and what it found that `recursion` needs, `known`."""

    @abstractmethod
    def recursion(
        self, record: Record, seed: Tensor, final: Any, known: tuple[Tensor, ...], *, kept: bool
    ) -> tuple[StateGradients, Deltas | None]:
        """The adjoint by hand, and where they are to be `kept`, dL/d(preactivations).

        Of m losses at once, in a dimension of their own: from a seed (T, m, B, H) and a final state's (m, B, H) to
        states (T, m, B, H), at the initial state (m, B, H), and preactivations (T, m, B, G·H).
        """

    def by_hand(
        self, record: Record, seed: Outputs, final: Any, known: tuple[Tensor, ...] = (), *, kept: bool = True
    ) -> tuple[StateGradients, Deltas | None]:
        """`recursion` with the losses side by side, (T, m·B, ·)."""
        losses = num_losses(record, seed)

        def apart(leaf: Tensor) -> Tensor:
            return leaf.unflatten(-2, (losses, -1))

        def beside(leaf: Tensor) -> Tensor:
            return leaf.flatten(-3, -2)

        seed = apart(seed)
        nothing = map_state(lambda _: torch.zeros_like(seed[0]), record.initial)
        final = nothing if final is None else map_state(apart, final)
        states, deltas = self.recursion(record, seed, final, known, kept=kept)
        joined = StateGradients(*(map_state(beside, part) for part in states))
        return joined, None if deltas is None else Deltas(*map(beside, deltas))

    def adjoint(self, record: Record, seed: Outputs, final: State | None = None) -> StateGradients:
        with exact(record.outputs):
            return self.by_hand(*promoted_pass(record, seed, final), kept=False)[0]

    def gradients(
        self, record: Record, seed: Outputs, final: State | None = None, *, parameters: bool = True
    ) -> LayerGradients:
        with exact(record.outputs):
            record, seed, final = promoted_pass(record, seed, final)
            states, deltas = self.by_hand(record, seed, final)
            assert deltas is not None
            found = {}
            if parameters:
                assert num_losses(record, seed) == 1, "the gradients of several losses would be added up"
                names = [f"kernel.{name}" for name, _ in self.kernel.named_parameters()]
                found = dict(zip(names, parameter_gradients(record, deltas)))
            return LayerGradients(states, deltas.from_input @ promoted(self.weight_ih), found)

    def preactivations(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """W_ih x_t + b_ih and W_hh h_{t-1} + b_hh, each (…, G·H), for one timestep or many at once."""
        kind = torch.promote_types(inputs.dtype, self.weight_ih.dtype)
        return (
            nn.functional.linear(inputs, self.weight_ih.to(kind), self.bias_ih.to(kind)),
            nn.functional.linear(hidden, self.weight_hh.to(kind), self.bias_hh.to(kind)),
        )

    def preactivation(self, inputs: Tensor, hidden: Tensor) -> Tensor:
        """The sum of both."""
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


class ByHand(torch.autograd.Function):
    """A stock layer's own loop, and manual BPTT as its backward pass."""

    @staticmethod
    def forward(ctx: Any, layer: StockLayer, inputs: Features, initial: Hidden, *weights: Tensor) -> tuple[Tensor, ...]:
        assert layer.loop is not None
        outputs, known = layer.loop(inputs, initial)
        ctx.layer = layer
        ctx.save_for_backward(inputs, initial, outputs, *known, *weights)  # weights: to be told if they have changed
        ctx.num_known = len(known)
        return outputs, outputs[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, seed: Outputs, final: Hidden) -> tuple[Tensor | None, ...]:
        inputs, initial, outputs, *rest = ctx.saved_tensors
        record = Record(inputs, initial, outputs, None)
        with without_subnormals():
            states, deltas = ctx.layer.by_hand(record, seed, final, tuple(rest[: ctx.num_known]))
        from_below = deltas.from_input @ ctx.layer.weight_ih if ctx.needs_input_grad[1] else None
        return None, from_below, states.initial, *parameter_gradients(record, deltas)


def parameter_gradients(record: Record, deltas: Deltas) -> tuple[Tensor, ...]:
    """dL/dθ of a stock layer in the kernel's order: single products over all T·B."""
    return (
        deltas.from_input.flatten(0, 1).T @ record.inputs.flatten(0, 1),
        deltas.from_hidden.flatten(0, 1).T @ previous_hidden(record).flatten(0, 1),
        deltas.from_input.sum((0, 1)),
        deltas.from_hidden.sum((0, 1)),
    )


@contextmanager
def exact(example: Tensor) -> Iterator[None]:
    """Without a graph, without autocast's reduced precision, and with subnormal numbers as 0."""
    with torch.no_grad(), torch.autocast(example.device.type, enabled=False), without_subnormals():
        yield


@contextmanager
def without_subnormals() -> Iterator[None]:
    """Numbers below 1.2e-38, in float64 below 2.3e-308, count as 0 for this thread of the CPU.

    A vanishing gradient gets there within some hundred timesteps, and CPUs take ten times longer over such numbers.
    """
    before = not torch.full((), 1e-40, dtype=torch.float32, device="cpu").mul_(1)  # torch does not tell how it is set
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def pull_back(
    outputs: list[Tensor], inputs: list[Tensor], cotangents: list[Tensor], *, create_graph: bool = False
) -> list[Tensor]:
    """Gradients at `inputs` from those at `outputs`; 0 at inputs, and from outputs, that no gradient passes through."""
    live = [(output, cotangent) for output, cotangent in zip(outputs, cotangents) if output.requires_grad]
    wanted = [each for each in inputs if each.requires_grad]
    if not live:
        return [torch.zeros_like(each) for each in inputs]
    ends, arriving = (list(side) for side in zip(*live))
    found = iter(torch.autograd.grad(ends, wanted, arriving, create_graph=create_graph, materialize_grads=True))
    return [next(found) if each.requires_grad else torch.zeros_like(each) for each in inputs]


def promoted(values: Tensor) -> Tensor:
    """The values without history, in float32 at least: half-precision training is observed in full precision."""
    return values.detach().to(torch.promote_types(values.dtype, torch.float32))


def promoted_pass(record: Record, seed: Outputs, final: State | None) -> tuple[Record, Outputs, State | None]:
    inputs, initial, outputs = promoted(record.inputs), map_state(promoted, record.initial), promoted(record.outputs)
    return Record(inputs, initial, outputs, None), promoted(seed), None if final is None else map_state(promoted, final)


def num_losses(record: Record, seed: Tensor) -> int:
    """m, where the seed holds the gradients of m losses side by side."""
    return seed.shape[1] // record.outputs.shape[1]


def totals_and_directs(seed: Tensor, final: Tensor) -> tuple[Tensor, Tensor]:
    """Room for λ_0 … λ_T, (T + 1, m, B, H), of which λ_T is known, and the direct gradients 0, g_1 … g_{T−1}."""
    totals = seed.new_empty(len(seed) + 1, *seed.shape[1:])
    torch.add(seed[-1], final, out=totals[-1])
    return totals, torch.cat([torch.zeros_like(seed[:1]), seed[:-1]])


def room_beside(factors: Tensor, seed: Tensor, *, kept: bool) -> Tensor:
    """Where products of factors (T, 1, B, …) with gradients of m losses go, (T, m, B, …).

    For one loss that is upon the factors, each of which is used once; or one place for all timesteps, unless all are to
    be `kept`.
    """
    length, losses = seed.shape[:2]
    if losses == 1:
        return factors
    return factors.new_empty(length if kept else 1, losses, *factors.shape[2:]).expand(length, -1, *factors.shape[2:])


def backwards(*sequences: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Timestep by timestep, from the last to the first; what is one place for all timesteps is that each time."""
    return zip(*([each[0]] * len(each) if each.stride(0) == 0 else reversed(each.unbind()) for each in sequences))


def previous_hidden(record: Record) -> Outputs:
    """h_0 … h_{T−1}."""
    return torch.cat([leaves(record.initial)[0].unsqueeze(0), record.outputs[:-1]])


def zeros_like(state: State) -> Any:
    return map_state(torch.zeros_like, state)


def like(structure: State, tensors: Iterable[Tensor]) -> Any:
    """The first of `tensors`, in the structure of a state."""
    remaining = iter(tensors)
    return map_state(lambda _: next(remaining), structure)
