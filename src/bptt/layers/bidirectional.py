"""Two layers that read a sequence in both directions."""

import copy
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bptt.layers.base import Layer, through_masks
from bptt.layers.record import LayerGradients, Record, StateGradients, num_losses
from bptt.layers.reset import Reset
from bptt.shapes import Features, Input, Outputs, State, map_state


class Bidirectional(Layer):
    """Outputs (→h_t, ←h_t), (T, B, 2H): the layer `ahead` reads x_1 … x_T, `reverse` reads x_T … x_1.

    Schuster & Paliwal (1997). The outputs are those of torch.nn.LSTM(bidirectional=True). The state is the pair of both
    layers' states; in the final state, that of `reverse` is its state after x_1. Resets divide time into pieces, and
    each direction reads each piece from its own initial state. Sequences must be run as a whole: `reverse` would begin
    at the end of a chunk. So there is no `step`.

    layer: constructor of one direction from (input_size, hidden_size). hidden_size: H of each direction.
    summary: the output is (→h_t, ←h_1) instead, with timestep 1 of the piece that t is in. At the last timestep of a
        sequence, these are the final states of both directions, which a prediction for the whole sequence needs;
        ←h_T has only read x_T.
    """

    def __init__(self, layer: Callable[[int, int], Layer], input_size: int, hidden_size: int, *, summary: bool = False):
        super().__init__(input_size, hidden_size)
        self.ahead, self.reverse = layer(input_size, hidden_size), layer(input_size, hidden_size)
        self.summary = summary
        both = {"ahead": self.ahead, "reverse": self.reverse}
        self.recurrent = tuple(f"{name}.{own}" for name, each in both.items() for own in each.recurrent)

    @property
    def directions(self) -> tuple[Layer, ...]:
        return self.ahead, self.reverse

    @property
    def label(self) -> str:
        return f"bidirectional {self.ahead.label}"

    def torch_state_dict(self) -> dict[str, Tensor]:
        """The weights of stock layers under the names that torch.nn.LSTM(D, H, bidirectional=True) has for them."""
        ahead, reverse = (each.get_submodule("kernel").state_dict() for each in self.directions)
        return {**ahead, **{f"{name}_reverse": weight for name, weight in reverse.items()}}

    def initial_state(self, batch_size: int) -> State:
        return self.ahead.initial_state(batch_size), self.reverse.initial_state(batch_size)

    def step(self, input: Input, state: Any) -> NoReturn:
        raise ValueError(
            "a single timestep must be that of a model with one direction, got a bidirectional one, which reads whole "
            "sequences; use model.bidirectional=false"
        )

    def forward(self, inputs: Features, state: Any) -> tuple[Outputs, State]:
        ahead, after_last = self.ahead(inputs, state[0])
        reverse, after_first = self.reverse(inputs.flip(0), state[1])
        return self._together(ahead, reverse.flip(0), None), (after_last, after_first)

    def forward_with_resets(self, inputs: Features, state: Any, reset: Reset) -> tuple[Outputs, State]:
        of_ahead, of_reverse = _resets(reset)
        ahead, after_last = self.ahead.forward_with_resets(inputs, state[0], of_ahead)
        reverse, after_first = self.reverse.forward_with_resets(inputs.flip(0), state[1], of_reverse)
        return self._together(ahead, reverse.flip(0), reset), (after_last, after_first)

    def _together(self, ahead: Outputs, reverse: Outputs, reset: Reset | None) -> Float[Tensor, "T B W"]:
        if self.summary:
            reverse = reverse.gather(0, _first_timesteps(reverse, reset))
        return torch.cat([ahead, reverse], -1)

    def adjoint(self, record: Record, seed: Outputs, final: Any = None) -> StateGradients:
        """dL/d(state) of both directions, as a pair. `hidden` is that of `ahead`."""
        layer = self.as_recorded(record)
        passes = zip(layer.directions, layer._passes(record, seed, final))
        return _joined(*(each.adjoint(*own) for each, own in passes))

    def gradients(self, record: Record, seed: Outputs, final: Any = None, *, parameters: bool = True) -> LayerGradients:
        layer = self.as_recorded(record)
        passes = zip(layer.directions, layer._passes(record, seed, final))
        ahead, reverse = (each.gradients(*own, parameters=parameters) for each, own in passes)
        named = {f"ahead.{name}": each for name, each in ahead.parameters.items()}
        named |= {f"reverse.{name}": each for name, each in reverse.parameters.items()}
        inputs = ahead.inputs + reverse.inputs.flip(0)
        return LayerGradients(_joined(ahead.states, reverse.states), inputs, through_masks(named, record.weight_masks))

    def _passes(self, record: Record, seed: Float[Tensor, "T B W"], final: Any) -> list[tuple[Record, Outputs, Any]]:
        """Record, seed and gradient at the final state of each direction, in its own order of time."""
        inputs, initial, reset, ends = record.inputs, record.initial, record.reset, final or (None, None)
        ahead, reverse = record.outputs.split(self.hidden_size, -1)
        at_ahead, at_reverse = seed.split(self.hidden_size, -1)
        if self.summary:
            reverse = self._reverse_outputs(record)
            first = _first_timesteps(reverse, reset).repeat(1, num_losses(record, seed), 1)
            at_reverse = torch.zeros_like(at_reverse).scatter_add(0, first, at_reverse)
        of_ahead, of_reverse = (None, None) if reset is None else _resets(reset)
        return [
            (Record(inputs, initial[0], ahead, None, reset=of_ahead), at_ahead, ends[0]),
            (Record(inputs.flip(0), initial[1], reverse.flip(0), None, reset=of_reverse), at_reverse.flip(0), ends[1]),
        ]

    def _reverse_outputs(self, record: Record) -> Outputs:
        """←h_1 … ←h_T of a recorded pass, of which the outputs of a summary hold only the first of each piece."""
        every = copy.copy(self)
        every.summary = False
        with torch.no_grad():
            if record.reset is None:
                outputs, _ = every(record.inputs, record.initial)
            else:
                outputs, _ = every.forward_with_resets(record.inputs, record.initial, record.reset)
        return outputs[..., self.hidden_size :]


def _resets(reset: Reset) -> tuple[Reset, Reset]:
    """The resets of each direction, in its own order of time."""
    ahead, reverse = reset.state
    return reset._replace(state=ahead), reset._replace(state=reverse).reversed()


def _first_timesteps(outputs: Outputs, reset: Reset | None) -> Int[Tensor, "T B H"]:
    """For each timestep, the first one of its piece."""
    length, batch_size, size = outputs.shape
    if reset is None:
        return torch.zeros_like(outputs, dtype=torch.long)
    timesteps = torch.arange(length, device=outputs.device).unsqueeze(1)
    first = torch.where(reset.mask, timesteps, 0).cummax(0).values
    return first.unsqueeze(-1).expand(length, batch_size, size)


def _joined(ahead: StateGradients, reverse: StateGradients) -> StateGradients:
    """The adjoint of the pair, in the order of time of the sequence."""
    resets = None if ahead.resets is None else (ahead.resets, reverse.resets)
    backwards = map_state(lambda leaf: leaf.flip(0), reverse.states)
    return StateGradients((ahead.states, backwards), (ahead.initial, reverse.initial), resets)
