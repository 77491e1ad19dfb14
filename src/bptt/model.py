"""Encoder, stack of recurrent layers, and readout.

Longer than 200 lines: one module, whose forward pass, records and blocks belong together.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal, Self, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from bptt.contracts import at_least, between, one_of, refusal, true_or_false
from bptt.layers.base import Layer
from bptt.layers.bidirectional import Bidirectional
from bptt.layers.block import NARROW, Block, time_local_vjp
from bptt.layers.diagonal import DiagonalLayer
from bptt.layers.full_precision import in_full_precision
from bptt.layers.initialise import Part, default
from bptt.layers.record import LayerGradients, Record
from bptt.layers.repetition import changes_buffers, repeats, silence
from bptt.layers.reset import Reset
from bptt.shapes import Features, Inputs, Mask, Outputs, Predictions, State, leaves, map_state

BLOCK = 1000  # timesteps per call of `advance`: kernels hold about a kilobyte for each until they return
DROPOUTS = ("dropout", "input_dropout", "output_dropout", "weight_dropout")


class SequenceModel(nn.Module):
    """x_t → encoder → layer 1 → dropout → … → layer n → readout: y_t = V h_t + c.

    With `block`, each layer stands in a residual block (see `bptt.layers.block`), and the readout acts on the residual
    stream instead of the topmost h_t.

    Inputs are features (T, B, D) or token ids (T, B). Token ids count as one-hot vectors of size D. With
    `embedding_size`, the encoder is a linear map without bias (an embedding, for token ids); otherwise the identity.
    Each layer has a single level, so the direct gradient of every level's outputs is visible.

    layer: constructor of one level from (input_size, hidden_size), such as `bptt.layers.LSTM`.
    bidirectional: each level reads the sequence in both directions, so its outputs are (T, B, 2H); see
        `bptt.layers.bidirectional`. Such a model must be called with whole sequences.
    dropout: probability at the outputs of every level except the last; with `block`, at the branch of every block.
    input_dropout: probability at the inputs of the lowest layer. output_dropout: at the inputs of the readout.
    weight_dropout: probability for each recurrent weight, one mask for all timesteps of a pass (a chunk, or a segment
        of it). locked_dropout: also the same units at all timesteps of a pass, in place of new ones at each
        (Gal & Ghahramani 2016). All of them act in training alone.
    block: `none`, or a kind of `bptt.layers.block`. The residual stream has width `embedding_size`, by default
        `hidden_size`.
    learnt_initial_state: the state before the first timestep is a parameter. By default the layer defines it.
    readout: `linear`, or `identity` if the topmost outputs are the predictions, which requires H = V.
    initialise: called with every layer, then with every linear map (the encoder, those of the blocks, the readout),
        after torch's default initialisation; see `bptt.layers.initialise`.
    """

    def __init__(
        self,
        layer: Callable[[int, int], Layer],
        *,
        input_size: int,
        output_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        locked_dropout: bool = False,
        embedding_size: int | None = None,
        learnt_initial_state: bool = False,
        readout: Literal["linear", "identity"] = "linear",
        block: Literal["none", "glu", "mlp", "norm", "residual", "norm_residual"] = "none",
        initialise: Callable[[Part], None] = default,
    ):
        super().__init__()
        at_least(1, hidden_size=hidden_size, num_layers=num_layers)
        if embedding_size is not None:
            at_least(1, embedding_size=embedding_size)
        between(0, 1, dropout=dropout, input_dropout=input_dropout)
        between(0, 1, output_dropout=output_dropout, weight_dropout=weight_dropout)
        one_of(("linear", "identity"), readout=readout)
        one_of(("none", "glu", "mlp", *NARROW), block=block)
        true_or_false(learnt_initial_state=learnt_initial_state, locked_dropout=locked_dropout)
        true_or_false(bidirectional=bidirectional)
        twice, width = ("twice ", 2 * hidden_size) if bidirectional else ("", hidden_size)  # of a level's outputs
        if block != "none" and output_dropout:
            wanted = "0 with model.block, which has dropout of its own"
            raise ValueError(refusal("output_dropout", wanted, output_dropout, "use model.dropout"))
        if block in NARROW and embedding_size not in (None, width):
            wanted = f"null or {twice}hidden_size, {width}, with model.block={block}"
            raise ValueError(refusal("embedding_size", wanted, embedding_size))
        if readout == "identity" and block != "none":
            raise ValueError(refusal("readout", "linear with model.block", readout, "use model.block=none"))
        if readout == "identity" and width != output_size:
            wanted = f"the output size {output_size} for an identity readout"
            raise ValueError(refusal(f"{twice}hidden_size", wanted, width))
        self.input_size = input_size
        self.output_size = output_size
        if block != "none":
            embedding_size = embedding_size or width
        self.encoder = None if embedding_size is None else nn.Linear(input_size, embedding_size, bias=False)
        self.bidirectional = bidirectional
        make = partial(Bidirectional, layer) if bidirectional else layer
        top = width
        if block == "none":
            widths = [embedding_size or input_size] + [width] * (num_layers - 1)
            self.layers = nn.ModuleList(make(below, hidden_size) for below in widths)
            self.blocks = None
        else:
            assert embedding_size is not None
            top = embedding_size
            self.layers = nn.ModuleList(make(top, hidden_size) for _ in range(num_layers))
            self.blocks = nn.ModuleList(Block(top, width, kind=block) for _ in range(num_layers))
        directions = [each for level in self.levels for each in level.directions]
        if weight_dropout:
            for level in directions:
                if isinstance(level, DiagonalLayer) or not level.recurrent:
                    wanted = "0 for a layer without recurrent weight matrices"
                    raise ValueError(refusal("weight_dropout", wanted, weight_dropout, "use lstm, gru or elman"))
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.output_dropout = output_dropout
        self.weight_dropout = weight_dropout
        self.locked_dropout = locked_dropout
        self.readout = nn.Linear(top, output_size) if readout == "linear" else nn.Identity()
        for part in (*directions, self.encoder, *(self.blocks.modules() if self.blocks else ()), self.readout):
            if isinstance(part, Layer | nn.Linear):
                initialise(part)
        self.initial = None
        if learnt_initial_state:
            own = [leaf for level in self.levels for leaf in leaves(level.initial_state(1))]
            self.initial = nn.ParameterList(leaf.detach().clone() for leaf in own)

    @property
    def levels(self) -> Iterable[Layer]:
        """The layers, from the input upwards."""
        return cast(Iterable[Layer], self.layers)

    def without_dropout(self) -> Self:
        """A copy without dropout and without hooks, for measurements. Own layers draw no random numbers in it."""
        twin = copy.deepcopy(self)
        for layer in twin.unrepeatable_layers:
            silence(layer)
        for name in DROPOUTS:
            setattr(twin, name, 0.0)
        twin._forward_hooks.clear()
        return twin

    def summarise(self) -> None:
        """Predict for whole sequences, at their last timesteps.

        In a bidirectional model, the output of the topmost level there becomes the final states of both directions.
        """
        top = self.layers[-1]
        if isinstance(top, Bidirectional):
            top.summary = True

    @property
    def unrepeatable_layers(self) -> list[Layer]:
        """The layers that have other values when a pass in training is computed again."""
        return [layer for level in self.levels for layer in level.directions if not repeats(layer)]

    def require_repeatable(self, name: str, *, buffers: bool = False) -> None:
        """ValueError if a layer has other values when a step in training is computed again.

        name: what it is refused by. buffers: also refuse layers that change buffers.
        """
        if others := self.unrepeatable_layers:
            wanted = "layers that have the same values when a step in training is computed again"
            got = f"{others[0].label}, which draws random numbers or counts"
            raise ValueError(f"{name} must run on {wanted}, got {got}; leave random numbers to model.dropout")
        layers = [layer for level in self.levels for layer in level.directions]
        if buffers and (changing := [layer for layer in layers if changes_buffers(layer)]):
            got = f"{changing[0].label} with some, as of a batch normalisation; use estimator=chunked"
            raise ValueError(f"{name} must run on layers without buffers that change, got {got}")

    def require_one_direction(self, name: str) -> None:
        """ValueError for a bidirectional model. name: what it is refused by."""
        if self.bidirectional:
            remedy = "use model.bidirectional=false"
            raise ValueError(f"{name} must run on a model of one direction, got a bidirectional one; {remedy}")

    def timesteps_per_pass(self, num_timesteps: int, limit: int) -> int:
        """Timesteps of one forward pass over a batch: at most `limit`, but all of them in a bidirectional model."""
        return num_timesteps if self.bidirectional else limit

    @property
    def dropouts(self) -> dict[str, float]:
        """The probabilities that are not 0, by name."""
        every = {name: float(getattr(self, name)) for name in DROPOUTS}
        return {name: probability for name, probability in every.items() if probability}

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

    def gradients(self, records: Sequence[Record], seed: Outputs) -> list[LayerGradients]:
        """Manual BPTT through the stack, one entry per layer.

        seed: direct gradient at the readout's inputs `top(records)`, (T, B, ·).
        """
        by_layer: list[LayerGradients] = []
        above = seed
        if self.blocks is not None:
            seed, _ = self._through_branch(len(records) - 1, records[-1], above)
        elif records[-1].mask is not None:
            seed = _times_mask(seed, records[-1].mask)
        for level, (layer, record) in reversed(list(enumerate(zip(self.levels, records)))):
            by_layer.append(layer.gradients(record, seed))
            if level:
                seed, above = self.seed_below(level, records, by_layer[-1].inputs, above)
        return by_layer[::-1]

    def seed_below(
        self, level: int, records: Sequence[Record], at_inputs: Tensor, above: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Direct gradient at the outputs of the next lower level, from the gradient at this level's inputs.

        at_inputs: dL/du_t through this level's layer, (T, B, ·); without blocks also of several losses, (T, m·B, ·).
        above: with `block`, the gradient at the residual stream above this level, (T, B, W). Also returned for the
            stream below. Without a block it has no meaning.
        """
        record, lower = records[level], records[level - 1]
        if self.blocks is None:
            return at_inputs if lower.mask is None else _times_mask(at_inputs, lower.mask), above
        assert record.stream is not None
        _, beside = self._through_branch(level, record, above)
        block = in_full_precision(self._block(level))
        below = time_local_vjp(block.norm, [record.stream], at_inputs + beside)[0]
        below = below + above if block.residual else below
        return self._through_branch(level - 1, lower, below)[0], below

    def top(self, records: Sequence[Record]) -> Tensor:
        """Inputs of the readout: the topmost outputs, or with `block` the residual stream above them, (T, B, ·)."""
        last = records[-1]
        level = len(records) - 1
        above = self._branch(level, last.inputs, last.outputs)
        above = above if last.mask is None else above * last.mask
        return above if last.stream is None else self._passed_on(level, last.stream, above)

    def _block(self, level: int) -> Block:
        assert self.blocks is not None
        return cast(Block, self.blocks[level])

    def _through_branch(self, level: int, record: Record, above: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients at a layer's outputs h and inputs u through its block's branch."""
        cotangent = above if record.mask is None else above * record.mask
        branch = in_full_precision(self._block(level)).branch
        at_inputs, at_outputs = time_local_vjp(branch, [record.inputs, record.outputs], cotangent)
        return at_outputs, at_inputs

    def step(
        self, input: Shaped[Tensor, "B *D"], state: State, equations: Literal["step", "step_within_units"] = "step"
    ) -> tuple[Float[Tensor, "B W"], State]:
        """One timestep of the encoder and all layers by their equations, without dropout.

        input: features (B, D), or token ids (B,). equations: the method of the layers. Returns the readout's input and
        the state after the timestep.
        """
        hidden = self.encode(input.unsqueeze(0)).squeeze(0)
        after: list[State] = []
        for level, (layer, before) in enumerate(zip(self.levels, state, strict=True)):
            below = self.layer_inputs(level, hidden)
            after.append(getattr(layer, equations)(below, before))
            hidden = self.stream_above(level, hidden, below, leaves(after[-1])[0])
        return hidden, tuple(after)

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
        self._check_sizes(inputs, state)
        hidden = self.encode(inputs)
        input_mask = self._dropout_mask(hidden, self.input_dropout)
        hidden = hidden if input_mask is None else hidden * input_mask
        resets = self._resets(reset, inputs.shape[1])
        final: list[State] = []
        records = []
        for index, (layer, before, begins) in enumerate(zip(self.levels, state, resets, strict=True)):
            below = self.layer_inputs(index, hidden)
            weight_masks = self._weight_masks(layer)
            runner = layer if weight_masks is None else layer.with_masked_weights(weight_masks)
            if begins is None:
                outputs, after = runner(below, before)
            else:
                outputs, after = runner.forward_with_resets(below, before, begins)
            # Views, so that hooks see the gradient at either alone: a layer may return one tensor in both.
            outputs, after = outputs.view_as(outputs), map_state(lambda leaf: leaf.view_as(leaf), after)
            final.append(after)
            above = self._branch(index, below, outputs)
            topmost = self.blocks is None and index + 1 == len(self.layers)
            mask = self._dropout_mask(above, self.output_dropout if topmost else self.dropout)
            stream, at_input = None if self.blocks is None else hidden, None if index else input_mask
            records.append(Record(below, before, outputs, after, mask, begins, stream, weight_masks, at_input))
            above = above if mask is None else above * mask
            hidden = self._passed_on(index, hidden, above)
        return hidden, tuple(final), tuple(records)

    def _check_sizes(self, inputs: Inputs, state: State) -> None:
        """ValueError for inputs and a state that do not fit, which the kernels report in terms of their own."""
        shape, number = list(inputs.shape), len(next(iter(leaves(state))))
        features = inputs.is_floating_point()
        if len(shape) != 2 + features or 0 in shape or (features and shape[2] != self.input_size):
            wanted = f"features (T, B, {self.input_size}) or token ids (T, B), time first, with T, B >= 1"
            raise ValueError(refusal("inputs", wanted, shape))
        if number != shape[1]:
            remedy = "carry a state among batches of one size (drop_last=True), or begin with initial_state(B)"
            raise ValueError(refusal("state", f"that of {shape[1]} sequences, B of inputs {shape}", number, remedy))

    def layer_inputs(self, level: int, hidden: Tensor) -> Tensor:
        """Inputs of a layer, from the output of the level below."""
        return hidden if self.blocks is None else self._block(level).norm(hidden)

    def stream_above(self, level: int, hidden: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Output of a level without dropout, from that of the level below and its layer's inputs and outputs."""
        return self._passed_on(level, hidden, self._branch(level, inputs, outputs))

    def _branch(self, level: int, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Result of a level before dropout, from its layer's inputs and outputs."""
        return outputs if self.blocks is None else self._block(level).branch(inputs, outputs)

    def _passed_on(self, level: int, hidden: Tensor, above: Tensor) -> Tensor:
        """Output of a level: its branch, in a residual block plus the stream from below."""
        return hidden + above if self.blocks is not None and self._block(level).residual else above

    def _resets(self, mask: Mask | None, batch_size: int) -> list[Reset | None]:
        """The resets of every layer; None if no sequence begins again."""
        first = None if mask is None else Reset.at(mask, None)
        if first is None or not first.times:
            return [None] * len(self.layers)
        return [first._replace(state=began) for began in self.initial_state(batch_size)]

    def _dropout_mask(self, outputs: Tensor, probability: float) -> Tensor | None:
        """0 or 1/(1 − p) for every unit and timestep. Recorded, because gradients pass through it as well."""
        if not self.training or probability == 0:
            return None
        shape = outputs[:1] if self.locked_dropout else outputs
        return nn.functional.dropout(torch.ones_like(shape), probability).expand_as(outputs)

    def _weight_masks(self, layer: Layer) -> dict[str, Tensor] | None:
        """0 or 1/(1 − p) for every recurrent weight of a layer."""
        if not self.training or self.weight_dropout == 0:
            return None
        weights = {name: layer.get_parameter(name) for name in layer.recurrent}
        return {name: nn.functional.dropout(torch.ones_like(own), self.weight_dropout) for name, own in weights.items()}


def _times_mask(gradient: Tensor, mask: Tensor) -> Tensor:
    """The gradients of m losses side by side, (T, m·B, ·), through a dropout mask (T, B, ·)."""
    return gradient * mask.repeat(1, gradient.shape[1] // mask.shape[1], 1)
