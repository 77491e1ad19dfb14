"""Any recurrent module (inputs, state) → (outputs, state) as a layer."""

from collections.abc import Callable
from typing import Any

from torch import nn

from bptt.layers.base import Layer
from bptt.shapes import Features, Input, Outputs, State, map_state


class Adapter(Layer):
    """A module with `(outputs, state) = module(inputs, state)` over inputs (T, B, D) and outputs (T, B, H), as a layer.

    The module may be `torch.nn.LSTM`, `torch.nn.GRU` or one's own. Its kernel runs as it is; only the state changes its
    form, because a layer's state is one row for each sequence, (B, ·).

    module: called with all timesteps of a chunk. D and H are its sizes.
    initial: the module's own state before the first timestep, given the batch size B.
    batch_dim: dimension of B in the tensors of the module's state; 1 for torch's modules, whose states are (1, B, H).

    Estimators need `forward` alone. The measures differentiate `step`, which runs the module over one timestep; they
    need a module whose state begins with the output h_t, as that of one level of torch's modules does. A kernel hides
    how h_t follows from c_t, so dL/dc_t is only the path through c_{t+1}; dL/dh_t is whole.
    """

    def __init__(
        self,
        module: nn.Module,
        input_size: int,
        hidden_size: int,
        *,
        initial: Callable[[int], State],
        batch_dim: int = 0,
    ):
        super().__init__(input_size, hidden_size)
        self.module = module
        self.initial = initial
        self.batch_dim = batch_dim

    def initial_state(self, batch_size: int) -> Any:
        example = next(self.module.parameters())
        own = map_state(lambda leaf: leaf.to(example), self.initial(batch_size))
        return self._rows(own)

    def forward(self, inputs: Features, state: State) -> tuple[Outputs, State]:
        outputs, after = self.module(inputs, self._own(state))
        return outputs, self._rows(after)

    def step(self, input: Input, state: State) -> Any:
        return self(input.unsqueeze(0), state)[1]

    def _rows(self, own: State) -> Any:
        """The module's state with the batch in front and all else in one dimension, (B, ·)."""
        return map_state(lambda leaf: leaf.movedim(self.batch_dim, 0).flatten(1), own)

    def _own(self, state: State) -> Any:
        """The inverse of `_rows`."""

        def restored(row: Any, example: Any) -> Any:
            shape = list(example.movedim(self.batch_dim, 0).shape[1:])
            return row.unflatten(1, shape).movedim(0, self.batch_dim).contiguous()

        return map_state(restored, state, self.initial(1))
