"""One timestep of a whole model as a function of its parameters and joined state, and its derivatives.

In addition to the legend of `bptt.shapes`: S is the size of one sequence's recurrent state, all tensors of all layers
concatenated. P is the number of trained parameters, without the readout's.

Longer than 200 lines: one function of a timestep and its derivatives, which share the order of states.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vjp, vmap

from bptt.layers.base import like
from bptt.layers.diagonal import DiagonalLayer
from bptt.layers.full_precision import promoted
from bptt.layers.reset import Reset
from bptt.model import SequenceModel
from bptt.shapes import Features, Input, Inputs, Outputs, Predictions, State, concatenated, leaves

Theta = Float[Tensor, " P"]
Joined = Float[Tensor, "B S"]


class Transition:
    """s_t = f(θ, x_t, s_{t−1}): one timestep of all layers by their equations, in at least float32.

    `__call__` takes θ (P,), the features (D,) and the state (S,) of one sequence; all methods take all sequences.

    initial: the state before the first timestep (B, S), with its graph if it is learnt.
    begun: the model's initial state, with which sequences begin again, likewise.
    diagonal: true if all layers are diagonal recurrences. Then `run` uses their scans.
    """

    def __init__(self, model: SequenceModel, state: State, equations: Literal["step", "step_within_units"] = "step"):
        self.model = model
        self.equations = equations
        self.given = state
        self.initial = joined(state)
        self.begun = joined(model.initial_state(len(self.initial)))
        self.widths = [leaf[0].numel() for leaf in leaves(state)]
        self.batch_size, self.num_states = self.initial.shape
        named = dict(model.named_parameters())
        self.trained = {
            name: parameter
            for name, parameter in named.items()
            if parameter.requires_grad and not name.startswith("readout.")
        }
        self.fixed = {name: promoted(parameter) for name, parameter in named.items() if name not in self.trained}
        self.num_parameters = sum(parameter.numel() for parameter in self.trained.values())
        self._timestep = Timestep(model, equations)
        self._scans = Scans(model)
        self._coefficients = [Coefficients(model, level) for level in range(len(model.layers))]
        self._above = [StreamAbove(model, level) for level in range(len(model.layers))]
        self.diagonal = all(isinstance(layer, DiagonalLayer) for layer in model.levels)

    def __call__(self, theta: Theta, input: Float[Tensor, " D"], state: Float[Tensor, " S"]) -> Float[Tensor, " S"]:
        return self.after(theta, input.unsqueeze(0), state.unsqueeze(0)).squeeze(0)

    def current_beginning(self) -> Joined:
        """The model's initial state with the current parameters."""
        return joined(self.model.initial_state(self.batch_size))

    def after(self, theta: Theta, input: Input, before: Joined) -> Joined:
        """s_t of all sequences."""
        state = functional_call(self._timestep, self._weights(theta), (input, self._split(before)))
        return joined(state)

    def _weights(self, theta: Theta) -> dict[str, Tensor]:
        parts = theta.split([parameter.numel() for parameter in self.trained.values()])
        current = {name: part.view_as(self.trained[name]) for name, part in zip(self.trained, parts)}
        return {f"model.{name}": weight for name, weight in (self.fixed | current).items()}

    def theta(self) -> Theta:
        """The current parameters, concatenated."""
        none = promoted(self.initial.new_empty(0))
        return torch.cat([none, *(promoted(parameter).flatten() for parameter in self.trained.values())])

    def units(self) -> Float[Tensor, "B S S"]:
        """The unit vectors of the state space, for every sequence."""
        return promoted(torch.eye(self.num_states).to(self.initial)).expand(self.batch_size, -1, -1)

    def features(self, inputs: Inputs) -> Features:
        return promoted(self.model.features(inputs))

    def run(
        self, theta: Theta, features: Features, state: Joined, reset: Reset | None
    ) -> tuple[Float[Tensor, "T B S"], Float[Tensor, "T B S"]]:
        """The states before and after every timestep, from the state before the first."""
        if self.diagonal:
            return self._scan(theta, features, promoted(state), reset)
        before, after = [], [promoted(state)]
        for time, input in enumerate(features):
            begins = reset is not None and time in reset.times
            before.append(reset.begin(time, after[-1]) if begins and reset is not None else after[-1])
            after.append(self.after(theta, input, before[-1]))
        return torch.stack(before), torch.stack(after[1:])

    def _scan(
        self, theta: Theta, features: Features, state: Joined, reset: Reset | None
    ) -> tuple[Float[Tensor, "T B S"], Float[Tensor, "T B S"]]:
        """`run` by the scans of diagonal layers, from reset to reset."""
        before, after = [], []
        for first, last in [(0, len(features))] if reset is None else reset.spans():
            if reset is not None and first in reset.times:
                state = reset.begin(first, state)
            arguments = (features[first:last], self._split(state))
            outputs = functional_call(self._scans, self._weights(theta), arguments)
            before.append(torch.cat([state.unsqueeze(0), outputs[:-1]]))
            after.append(outputs)
            state = outputs[-1]
        return concatenated(before), concatenated(after)

    def coefficients(self, theta: Theta, level: int, below: Tensor) -> tuple[Tensor, Tensor]:
        """a_t and b_t of a diagonal layer for the output (…, D) of the level below; for the lowest layer, the inputs of
        the encoder.
        """
        return functional_call(self._coefficients[level], self._weights(theta), (below,))

    def stream_above(self, theta: Theta, level: int, below: Tensor, outputs: Outputs) -> Float[Tensor, "T B W"]:
        """The output of a level, from `below` as in `coefficients` and the outputs of its layer."""
        return functional_call(self._above[level], self._weights(theta), (below, outputs))

    def top(self, features: Features, states: Float[Tensor, "T B S"]) -> Float[Tensor, "T B W"]:
        """The readout's inputs: the outputs of the last layer, or the residual stream above it."""
        outputs = self.outputs(states)
        if self.model.blocks is None:
            return outputs[-1]
        # With a graph, since blocks and the encoder act on the loss of the same timestep beside the states, too.
        stream, theta = (
            features,
            torch.cat([states.new_empty(0), *(own.flatten().to(states.dtype) for own in self.trained.values())]),
        )
        for level, own in enumerate(outputs):
            stream = self.stream_above(theta, level, stream, own)
        return stream

    def outputs(self, states: Float[Tensor, "T B S"]) -> list[Outputs]:
        """The outputs of each layer, views of the states."""
        counts = [len(leaves(own)) for own in self.given]
        parts = iter(states.split(self.widths, dim=-1))
        by_layer = [[next(parts) for _ in range(count)] for count in counts]
        return [parts[0] for parts in by_layer]

    def predictions(self, top: Float[Tensor, "T B W"]) -> Predictions:
        """The readout's predictions."""
        return self.model.readout(top.to(next(self.model.parameters()).dtype))

    def of_layers(self) -> Bool[Tensor, " P"]:
        """True for the parameters of recurrent layers and of the initial state, false for the encoder and blocks."""
        marks = [
            torch.full((parameter.numel(),), name.startswith(("layers.", "initial.")))
            for name, parameter in self.trained.items()
        ]
        return torch.cat(marks).to(self.initial.device)

    def state(self, joined: Joined) -> State:
        """The concatenated state in the structure of the given one."""
        split = self._split(joined)
        return like(split, [leaf.to(own.dtype) for leaf, own in zip(leaves(split), leaves(self.given))])

    def with_gradient(self, gradient: Theta) -> Tensor:
        """A scalar of value 0 whose gradient with respect to the parameters is `gradient`."""
        parts = gradient.split([parameter.numel() for parameter in self.trained.values()])
        pairs = zip(self.trained.values(), parts)
        terms = [((own - own.detach()) * part.view_as(own).to(own.dtype)).sum() for own, part in pairs]
        return sum(terms, start=gradient.new_zeros(()))

    def initial_vjp(self, initial: Joined, cotangents: Float[Tensor, "B N S"]) -> Float[Tensor, "B N P"]:
        """vᵀ ∂s_0/∂θ of an initial state s_0 for N cotangents v of each sequence; 0 unless s_0 is learnt."""
        if not initial.requires_grad:
            return cotangents.new_zeros(*cotangents.shape[:2], self.num_parameters)
        sources = list(self.trained.values())
        rows = []
        for row in cotangents.to(initial).unbind(1):
            separate = torch.diag_embed(row.T).permute(1, 2, 0)  # one row for each sequence, (B, B, S)
            gradients = torch.autograd.grad(
                initial, sources, separate, retain_graph=True, is_grads_batched=True, allow_unused=True
            )
            parts = [
                row.new_zeros(len(row), own.numel()) if part is None else part.reshape(len(row), -1)
                for own, part in zip(sources, gradients)
            ]
            rows.append(promoted(torch.cat(parts, dim=1)))
        return torch.stack(rows, dim=1)

    def _split(self, joined: Joined) -> State:
        parts = joined.split(self.widths, dim=1)
        return like(self.given, [part.unflatten(1, leaf.shape[1:]) for part, leaf in zip(parts, leaves(self.given))])


class Linearised(NamedTuple):
    """The derivatives of s_t = f(θ, x_t, s_{t−1}) at several timesteps, sequence by sequence."""

    transition: Transition
    theta: Theta
    features: Features
    before: Float[Tensor, "T B S"]

    def groups(self, rows: int) -> Iterator["Linearised"]:
        """Split into groups of timesteps so small that one batched call costs about as much as a single timestep."""
        entries = self.transition.batch_size * rows * self.transition.num_parameters
        size = max(1, 1_000_000 // max(1, entries))
        for features, before in zip(self.features.split(size), self.before.split(size)):
            yield self._replace(features=features, before=before)

    def jacobian(self) -> Float[Tensor, "T B S S"]:
        """∂s_t/∂s_{t−1}."""
        jacobians = vmap(jacrev(self.transition, argnums=2), (None, 0, 0))(self.theta, *self._points())
        return jacobians.unflatten(0, self.before.shape[:2])

    def vjp(self, cotangents: Float[Tensor, "T B N S"]) -> Float[Tensor, "T B N P"]:
        """vᵀ (∂s_t/∂θ)_direct for N cotangents v of each sequence."""
        products = vmap(self._vjp)(*self._points(), cotangents.flatten(0, 1))
        return products.unflatten(0, self.before.shape[:2])

    def jvp(self, t: int, tangents: Joined) -> Joined:
        """(∂s_t/∂s_{t−1}) v for v = tangents, at one timestep."""
        return vmap(self._jvp)(self.features[t], self.before[t], tangents)

    def _points(self) -> tuple[Tensor, Tensor]:
        return self.features.flatten(0, 1), self.before.flatten(0, 1)

    def _vjp(self, input: Tensor, before: Tensor, cotangents: Tensor) -> Tensor:
        back = vjp(lambda theta: self.transition(theta, input, before), self.theta)[1]
        return vmap(back)(cotangents)[0]

    def _jvp(self, input: Tensor, before: Tensor, tangent: Tensor) -> Tensor:
        # Reverse mode twice: uᵀ (∂s_t/∂s_{t−1}) is linear in u, and its transposed derivative is this product. torch's
        # forward mode would warn about its own deprecated parts.
        back = vjp(lambda state: self.transition(self.theta, input, state), before)[1]
        return vjp(lambda cotangent: back(cotangent)[0], torch.zeros_like(before))[1](tangent)[0]


def joined(state: State) -> Joined:
    """All tensors of a state, concatenated."""
    return torch.cat([leaf.flatten(1) for leaf in leaves(state)], dim=1)


class Timestep(nn.Module):
    """`SequenceModel.step` as a module, for `functional_call`: only the state after the timestep."""

    def __init__(self, model: SequenceModel, equations: Literal["step", "step_within_units"]):
        super().__init__()
        self.model = model
        self.equations = equations

    def forward(self, input: Input, state: State) -> State:
        return self.model.step(input, state, self.equations)[1]


class Scans(nn.Module):
    """All timesteps of the encoder and of diagonal layers; the joined states (T, B, S)."""

    def __init__(self, model: SequenceModel):
        super().__init__()
        self.model = model

    def forward(self, features: Features, state: State) -> Float[Tensor, "T B S"]:
        hidden, outputs = self.model.encode(features), []
        for level, (layer, before) in enumerate(zip(self.model.levels, state, strict=True)):
            below = self.model.layer_inputs(level, hidden)
            outputs.append(layer(below, before)[0])
            hidden = self.model.stream_above(level, hidden, below, outputs[-1])
        return concatenated(outputs, -1)


class Coefficients(nn.Module):
    """The coefficients of one diagonal layer, with its block's norm; of the lowest one together with the encoder."""

    def __init__(self, model: SequenceModel, level: int):
        super().__init__()
        self.model = model
        self.level = level

    def forward(self, below: Tensor) -> tuple[Tensor, Tensor]:
        layer = self.model.layers[self.level]
        assert isinstance(layer, DiagonalLayer)
        stream = below if self.level else self.model.encode(below)
        return layer.coefficients(self.model.layer_inputs(self.level, stream))


class StreamAbove(nn.Module):
    """The output of one level from that of the level below and its layer's outputs; of the lowest with the encoder."""

    def __init__(self, model: SequenceModel, level: int):
        super().__init__()
        self.model = model
        self.level = level

    def forward(self, below: Tensor, outputs: Outputs) -> Float[Tensor, "T B W"]:
        stream = below if self.level else self.model.encode(below)
        inputs = self.model.layer_inputs(self.level, stream)
        return self.model.stream_above(self.level, stream, inputs, outputs)
