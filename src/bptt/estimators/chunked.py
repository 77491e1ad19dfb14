"""Truncated backpropagation through time over disjoint chunks."""

from collections.abc import Iterator
from itertools import islice
from typing import Literal

from torch import Tensor

from bptt.contracts import at_least, one_of
from bptt.estimators.base import Backward, Estimator, Update, zero_loss
from bptt.estimators.window import Window, check_burn_in, run_window
from bptt.model import SequenceModel
from bptt.shapes import State
from bptt.tasks.base import Batch, Loss


class Chunked(Estimator):
    """Chunks of `chunk_size` timesteps: the state is carried from chunk to chunk, the gradient is cut between them.

    A chunk without a loss only advances the state, without a graph.

    update: `chunk` yields the gradient of a chunk's mean loss after every chunk. `sequence` accumulates the chunks'
        gradients and yields the gradient of the batch's mean loss once a batch.
    ragged: which chunk is shorter if the number of timesteps is no multiple of `chunk_size`. `last` counts chunks from
        the batch's start, `first` from its end. `auto` is `first` for a batch whose losses all lie within its last
        `chunk_size` timesteps, because `last` would leave them only the remainder of the division; else `last`.
    burn_in: timesteps N before each chunk that only advance the state, without a graph and without a loss. A window is
        N + `chunk_size` timesteps and overlaps the window before it by N: its burn-in is run again with the current
        parameters, from the state that the window before stored there. The first N timesteps of a batch have no
        timesteps before them, so they are the first chunk's burn-in and their losses are not trained; a batch of at
        most N timesteps trains nothing. This is the warm-up of hydrological models and the burn-in of recurrent replay
        (Kapturowski et al. 2019).
    """

    def __init__(
        self,
        chunk_size: int,
        *,
        update: Literal["chunk", "sequence"] = "chunk",
        ragged: Literal["auto", "first", "last"] = "auto",
        burn_in: int = 0,
    ):
        at_least(1, chunk_size=chunk_size, remedy="use estimator=full for no truncation")
        one_of(("chunk", "sequence"), update=update)
        one_of(("auto", "first", "last"), ragged=ragged)
        at_least(0, burn_in=burn_in)
        self.chunk_size = chunk_size
        self.update = update
        self.ragged = ragged
        self.burn_in = burn_in

    def check(self, model: SequenceModel, batch_size: int, length: int) -> None:
        check_burn_in(self.burn_in, length)

    def updates(
        self, model: SequenceModel, loss: Loss, batch: Batch, state: State, backward: Backward = Tensor.backward
    ) -> Iterator[Update]:
        weights, length, total = batch.weights(), batch.num_timesteps, zero_loss(batch)
        burn_in = min(self.burn_in, length)
        whole = sum(islice(weights, burn_in, None))
        passes: list[tuple[int, int]] = []
        begun = 0  # first timestep that no update covers yet
        for start, stop in self.chunks(batch.timesteps_with_loss(), burn_in):
            weight = sum(weights[start:stop])
            window = Window(start - burn_in, start, start, stop, stop - burn_in)
            share = None if self.update == "chunk" else whole
            ran = run_window(model, loss, batch, state, window, weight=weight, whole=share, backward=backward)
            if self.update == "chunk":
                yield Update(ran.loss, weight, begun, stop, ran.final, ran.passes)
            else:
                total = total + ran.loss
                passes += ran.passes
            state, begun = ran.following, stop
        if self.update == "sequence":
            yield Update(total, whole, 0, length, ran.final, tuple(passes))

    def rest(self) -> Estimator | None:
        # Whichever chunk is the shorter one, after the first chunk the others follow at equal distances.
        return Chunked(self.chunk_size, ragged="last") if self.update == "chunk" and not self.burn_in else None

    def chunks(self, due: list[bool], burn_in: int) -> list[tuple[int, int]]:
        """First timestep and last + 1 of every chunk, given the timesteps with a loss.

        One empty chunk at the end of a batch that is burn-in alone.
        """
        length, size = len(due), self.chunk_size
        last = max(burn_in, length - size)  # first timestep of the last chunk
        at_the_end = any(islice(due, last, None)) and not any(islice(due, burn_in, last))
        from_end = self.ragged == "first" or (self.ragged == "auto" and at_the_end)
        remainder = (length - burn_in) % size if from_end else 0
        starts = [burn_in] * bool(remainder) + list(range(burn_in + remainder, length, size)) or [length]
        return list(zip(starts, [*starts[1:], length]))
