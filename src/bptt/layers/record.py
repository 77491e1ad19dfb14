"""Record of a layer's forward pass, and the gradients that its backward pass computes from it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bptt.layers.reset import Reset
from bptt.layers.weight_dropout import Masks
from bptt.shapes import Features, Outputs, leaves, map_state


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


def num_losses(record: Record, seed: Tensor) -> int:
    """Number m of losses whose gradients stand side by side in the seed (T, m·B, H)."""
    return seed.shape[1] // record.outputs.shape[1]


def previous_hidden(record: Record) -> Outputs:
    """The hidden state before every timestep, h_0 … h_{T−1} without resets, (T, B, H)."""
    arrived = torch.cat([leaves(record.initial)[0].unsqueeze(0), record.outputs[:-1]])
    return arrived if record.reset is None else record.reset.begin_all_(arrived, leaves(record.reset.state)[0])
