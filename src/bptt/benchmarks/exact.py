"""Full BPTT in segments against plain autograd over the whole sequence, and cost against T, H and chunk size.

Time and saved tensors of one layer between encoder and readout, for gradients only, without an optimizer.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bptt.benchmarks.measure import DEVICE, Found, Row, curve, interleaved, now, row
from bptt.estimators import Chunked, Estimator, Full
from bptt.layers import GRU, LSTM, Elman, Layer
from bptt.measures.memory import saved_tensor_bytes
from bptt.model import SequenceModel
from bptt.tasks.base import Batch, cross_entropy

VOCABULARY = 32
TARGETS: dict[type[Layer], float] = {Elman: 1.33, GRU: 1.0, LSTM: 1.0}
AS_PLAIN = 1.05  # target for the default where plain autograd fits its budget
BUDGET = 256 * 2**20 / 1e6  # MB, the default of `Full`
LENGTHS = (100, 1000, 10_000, 100_000)
WIDTHS = (64, 128, 256, 512)
CHUNKS = (16, 64, 256, 1024)


class Passes(NamedTuple):
    """A model and a batch for repeated gradient computations."""

    model: SequenceModel
    batch: Batch

    @classmethod
    def of(
        cls, layer: Callable[[int, int], Layer], *, num_timesteps: int, batch_size: int = 32, hidden_size: int = 128
    ) -> "Passes":
        tokens = torch.randint(VOCABULARY, (num_timesteps + 1, batch_size), device=DEVICE)
        model = SequenceModel(layer, input_size=VOCABULARY, output_size=VOCABULARY, hidden_size=hidden_size)
        return cls(model.to(DEVICE), Batch(tokens[:-1], tokens[1:]))

    def seconds(self, estimator: Estimator) -> float:
        began = now()
        for _ in estimator.updates(self.model, mean_loss, self.batch, self.model.initial_state(self.batch.batch_size)):
            self.model.zero_grad()
        return now() - began

    def plain(self) -> float:
        """Seconds of torch's kernel and autograd over the whole sequence."""
        began = now()
        outputs, _ = self.model.get_submodule("layers.0.kernel")(self.model.encode(self.batch.inputs))
        mean_loss(self.model.readout(outputs), self.batch).backward()
        self.model.zero_grad()
        return now() - began


def megabytes(run: Callable[[], float]) -> float:
    """Peak memory of saved tensors, in MB."""
    with saved_tensor_bytes() as saved:
        run()
    return saved.peak / 1e6


def mean_loss(predictions: Tensor, batch: Batch) -> Tensor:
    return cross_entropy(predictions, batch.targets).mean()


def rows(repetitions: int) -> Found:
    for layer, target in TARGETS.items():
        yield from compared(f"exact, {layer.__name__}", Passes.of(layer, num_timesteps=1000), repetitions, target)
    costs: dict[tuple[str, str], dict[int, float]] = {}
    for length in LENGTHS:
        passes = Passes.of(LSTM, num_timesteps=length, batch_size=4, hidden_size=32)
        measured = list(compared(f"exact, LSTM of 32, T = {length}", passes, repetitions if length < 10_000 else 1))
        for each in (ratio for ratio in measured if "segments" in ratio.title):
            costs.setdefault(("plain", each.unit), {})[length] = each.baseline
            costs.setdefault(("segments", each.unit), {})[length] = each.measured
        yield from measured
    for (name, unit), points in costs.items():
        yield curve(f"cost of the exact gradient, {name}", "T", points, unit=unit)
    wide = {width: Passes.of(LSTM, num_timesteps=100, hidden_size=width) for width in WIDTHS}
    plain = Chunked(100)
    times = interleaved({str(width): partial(passes.seconds, plain) for width, passes in wide.items()}, repetitions)
    yield curve("cost of plain BPTT, T = 100", "H", {width: min(times[str(width)]) for width in WIDTHS})
    memory = {width: megabytes(partial(passes.seconds, plain)) for width, passes in wide.items()}
    yield curve("cost of plain BPTT, T = 100", "H", memory, unit="MB")
    passes = Passes.of(LSTM, num_timesteps=max(CHUNKS))
    times = interleaved({str(size): partial(passes.seconds, Chunked(size)) for size in CHUNKS}, repetitions)
    yield curve(f"cost of chunks, T = {max(CHUNKS)}", "K", {size: min(times[str(size)]) for size in CHUNKS})
    memory = {size: megabytes(partial(passes.seconds, Chunked(size))) for size in CHUNKS}
    yield curve(f"cost of chunks, T = {max(CHUNKS)}", "K", memory, unit="MB")


def compared(title: str, passes: Passes, repetitions: int, target: float | None = None) -> Iterator[Row]:
    """Ratios to plain autograd: time and memory of `Full` with segments of √T timesteps, and time of its default.

    The default is one segment if plain autograd fits its budget of memory, so it may take no longer then.
    """
    segments = partial(passes.seconds, Full(math.ceil(math.sqrt(passes.batch.num_timesteps))))
    default = partial(passes.seconds, Full())
    saved = {name: [megabytes(run)] for name, run in (("segments", segments), ("plain", passes.plain))}
    default_target = AS_PLAIN if saved["plain"][0] <= BUDGET else target
    measured = interleaved({"plain": passes.plain, "segments": segments, "default": default}, repetitions)
    yield row(f"{title}: segments / plain, time", measured["segments"], measured["plain"], target=target)
    yield row(f"{title}: default / plain, time", measured["default"], measured["plain"], target=default_target)
    yield row(f"{title}: segments / plain, saved", *saved.values(), unit="MB", target=target and 0.06)
