"""Encoder, stack of recurrent layers, and readout."""

import copy
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Literal, Self, cast

import torch
from torch import nn

from bptt.contracts import at_least, between, one_of, refusal, true_or_false
from bptt.layers.base import Layer, LayerGradients, Record
from bptt.layers.initialise import Part, default
from bptt.layers.reset import Reset
from bptt.shapes import Features, Inputs, Mask, Outputs, Predictions, State, leaves, map_state

BLOCK = 1000  # timesteps per call of `advance`: kernels hold about a kilobyte for each until they return


class SequenceModel(nn.Module):
    """x_t → encoder → layer 1 → dropout → … → layer n → readout: y_t = V h_t + c.

    Inputs are features (T, B, D) or token ids (T, B). Token ids count as one-hot vectors of size D. With
    `embedding_size`, the encoder is a linear map without bias (an embedding, for token ids); otherwise the identity.
    Each layer has a single level, so the direct gradient of every level's outputs is visible.

    layer: constructor of one level from (input_size, hidden_size), such as `bptt.layers.LSTM`.
    dropout: probability at the outputs of every level except the last.
    learnt_initial_state: the state before the first timestep is a parameter. By default the layer defines it.
    readout: `linear`, or `identity` if the topmost outputs are the predictions, which requires H = V.
    initialise: called with every layer, then with the encoder and the readout if they are linear, after torch's
        default initialisation; see `bptt.layers.initialise`.
    """

    def __init__(
        self,
        layer: Callable[[int, int], Layer],
        *,
        input_size: int,
        output_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        embedding_size: int | None = None,
        learnt_initial_state: bool = False,
        readout: Literal["linear", "identity"] = "linear",
        initialise: Callable[[Part], None] = default,
    ):
        super().__init__()
        at_least(1, hidden_size=hidden_size, num_layers=num_layers)
        if embedding_size is not None:
            at_least(1, embedding_size=embedding_size)
        between(0, 1, dropout=dropout)
        one_of(("linear", "identity"), readout=readout)
        true_or_false(learnt_initial_state=learnt_initial_state)
        if readout == "identity" and hidden_size != output_size:
            raise ValueError(
                refusal("hidden_size", f"the output size {output_size} for an identity readout", hidden_size)
            )
        self.input_size = input_size
        self.output_size = output_size
        self.encoder = None if embedding_size is None else nn.Linear(input_size, embedding_size, bias=False)
        widths = [embedding_size or input_size] + [hidden_size] * num_layers
        self.layers = nn.ModuleList(layer(*pair) for pair in pairwise(widths))
        self.dropout = dropout
        self.readout = nn.Linear(hidden_size, output_size) if readout == "linear" else nn.Identity()
        for part in (*self.levels, self.encoder, self.readout):
            if isinstance(part, Layer | nn.Linear):
                initialise(part)
        own = [leaf for level in self.levels for leaf in leaves(level.initial_state(1))]
        self.initial = nn.ParameterList(leaf.detach().clone() for leaf in own) if learnt_initial_state else None

    @property
    def levels(self) -> Iterable[Layer]:
        """The layers, from the input upwards."""
        return cast(Iterable[Layer], self.layers)

    def without_dropout(self) -> Self:
        """A copy without dropout and without hooks, for measurements."""
        twin = copy.deepcopy(self)
        twin.dropout = 0.0
        twin._forward_hooks.clear()
        return twin

    def initial_state(self, batch_size: int) -> State:
        """The state before the first timestep, one entry per layer."""
        state = tuple(level.initial_state(batch_size) for level in self.levels)
        if self.initial is None:
            return state
        learnt = iter(self.initial)
        return cast(State, map_state(lambda own: next(learnt).expand_as(own), state))

    def forward(
        self, inputs: Inputs, state: State, reset: Mask | None = None
    ) -> tuple[Predictions, State, tuple[Record, ...]]:
        """Predictions (T, B, V), the final state, and one record per layer.

        reset: the timesteps (T, B) at which sequences begin again, from the initial state.
        """
        hidden, final, records = self._run(inputs, state, reset)
        return self.readout(hidden), final, records

    def gradients(
        self, records: Sequence[Record], seed: Outputs, finals: Sequence[State | None] | None = None
    ) -> list[LayerGradients]:
        """Manual BPTT through the stack, one entry per layer.

        dL/dx_t of a layer, times the dropout mask of the pass, is the seed of the layer below.

        seed: direct gradient at the topmost outputs, from the readout, (T, B, H).
        finals: gradient at each layer's final state, from later chunks; zero by default.
        """
        found: list[LayerGradients] = []
        arriving = finals or [None] * len(records)
        for layer, record, final in reversed(list(zip(self.levels, records, arriving))):
            if found:
                seed = found[-1].inputs if record.mask is None else found[-1].inputs * record.mask
            found.append(layer.gradients(record, seed, final))
        return found[::-1]

    def advance(self, inputs: Inputs, state: State, reset: Mask | None = None) -> State:
        """Run the layers and return only the final state; predictions are not computed."""
        return self._run(inputs, state, reset)[1]

    def advance_in_blocks(self, inputs: Inputs, state: State, reset: Mask | None = None) -> State:
        """`advance` without a graph and in blocks, so memory does not grow with the number of timesteps."""
        with torch.no_grad():
            for start in range(0, len(inputs), BLOCK):
                block = slice(start, start + BLOCK)
                state = self.advance(inputs[block], state, None if reset is None else reset[block])
        return state

    def features(self, inputs: Inputs) -> Features:
        """Inputs of the encoder (T, B, D): features unchanged, token ids as one-hot vectors."""
        kind = next(self.parameters()).dtype
        if inputs.is_floating_point():
            return inputs.to(kind)
        return nn.functional.one_hot(inputs.long(), self.input_size).to(kind)

    def encode(self, inputs: Inputs) -> Features:
        """Inputs of the first layer."""
        if self.encoder is None:
            return self.features(inputs)
        if inputs.is_floating_point():
            return self.encoder(self.features(inputs))
        # contiguous: gathering rows of a transposed matrix copies single numbers
        return nn.functional.embedding(inputs.long(), self.encoder.weight.T.contiguous())

    def _run(self, inputs: Inputs, state: State, reset: Mask | None) -> tuple[torch.Tensor, State, tuple[Record, ...]]:
        hidden = self.encode(inputs)
        resets = self._resets(reset, inputs.shape[1])
        final: list[State] = []
        records = []
        for index, (layer, before, begins) in enumerate(zip(self.levels, state, resets, strict=True)):
            if begins is None:
                outputs, after = layer(hidden, before)
            else:
                outputs, after = layer.forward_with_resets(hidden, before, begins)
            final.append(after)
            mask = self._dropout_mask(outputs) if index + 1 < len(self.layers) else None
            records.append(Record(hidden, before, outputs, after, mask, begins))
            hidden = outputs if mask is None else outputs * mask
        return hidden, tuple(final), tuple(records)

    def _resets(self, mask: Mask | None, batch_size: int) -> list[Reset | None]:
        """The resets of every layer; None if no sequence begins again."""
        first = None if mask is None else Reset.at(mask, None)
        if first is None or not first.times:
            return [None] * len(self.layers)
        return [first._replace(state=began) for began in self.initial_state(batch_size)]

    def _dropout_mask(self, outputs: Outputs) -> Outputs | None:
        """0 or 1/(1 − p) for every unit and timestep. Recorded, because gradients pass through it as well."""
        if not self.training or self.dropout == 0:
            return None
        return nn.functional.dropout(torch.ones_like(outputs), self.dropout)
