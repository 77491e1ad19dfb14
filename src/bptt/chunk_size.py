"""The cost of every chunk size, measured over training, and which one to take.

Works in a notebook with torch alone:

    moments = [measure(model, task, num_batches=5)]                                   # at these weights
    moments = measure_training(model, task, optimizer, num_updates=500, num_batches=5)  # or over training
    print(advice(moments, delta=0.1))
"""

import csv
import inspect
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.optim import Optimizer

from bptt.contracts import at_least
from bptt.estimators import Chunked, Estimator, Full, Randomized, Sliding
from bptt.measures.gradient_flow import exact_flows
from bptt.measures.horizon import Horizon, horizon
from bptt.measures.memory import saved_tensor_bytes
from bptt.measures.segments import Segment, last_timesteps_with_loss
from bptt.measures.truncation_bias import chunk_sizes, exact_gradient, gradient_noise, truncation_bias
from bptt.model import SequenceModel
from bptt.shapes import State, detach, map_state
from bptt.tasks.base import Batch, Task

Progress = Callable[[str], None]
EPSILON = 0.01  # share of the largest gradient that is left at the horizon
DRAWS = 16  # of an estimator with random numbers, for bias and noise apart


class Candidate(NamedTuple):
    """An estimator to measure. words: how to choose it on the command line. size: its place on the x-axis, if any."""

    name: str
    words: str
    size: int | None
    estimator: Estimator


class Cost(NamedTuple):
    """One candidate, measured at one moment; means over batches.

    bias: ‖E ĝ − g‖ / ‖g‖, relative to the exact gradient g. spread: its standard deviation over batches.
    noise: the root mean square of ‖ĝ − E ĝ‖ / ‖g‖ over draws; 0 for an estimator without random numbers.
    microseconds: time for forward and backward pass, per timestep of the batch. megabytes: tensors that autograd saves.
    Both are NaN if they were not measured at this moment.
    """

    name: str
    words: str
    size: int | None
    bias: float
    spread: float
    noise: float
    cosine: float
    microseconds: float
    megabytes: float


class Moment(NamedTuple):
    """All costs after a number of updates, the horizon of the layer that the gradient reaches furthest back in, and the
    noise of one batch's exact gradient, relative to its size (NaN for a single batch)."""

    updates: int
    costs: list[Cost]
    horizon: Horizon
    batch_noise: float


def candidates(batch: Batch, *, longest: int, own: Estimator | None = None) -> list[Candidate]:
    """Chunks of every power of 2 and of the whole batch, sliding windows of twice the stride, one randomized, and full.

    longest: sizes above it are left out, because no more timesteps are measured. own: an estimator to measure as well.
    """
    sizes = chunk_sizes(batch.num_timesteps, longest=longest)
    middle = max(2, sizes[len(sizes) // 2])
    estimators: list[Estimator] = [Chunked(size, update="sequence") for size in sizes]
    estimators += [Sliding(size, 2 * size) for size in sizes if 4 <= size < batch.num_timesteps / 2]
    estimators += [Randomized(middle, block=min(8, middle // 2), update="sequence"), Full()]
    found = [candidate(estimator) for estimator in estimators]
    if own is not None and (mine := candidate(own)).words not in {each.words for each in found}:
        found.append(mine)
    return found


def candidate(estimator: Estimator) -> Candidate:
    """An estimator with the words that choose it: those of its arguments that are not the default."""
    name = type(estimator).__module__.rpartition(".")[2]
    settings = {}
    for key, parameter in inspect.signature(type(estimator)).parameters.items():
        value = getattr(estimator, key, parameter.default)
        if value != parameter.default and key != "update":  # how often to step does not change the gradient's bias
            settings[key] = value
    words = " ".join([f"estimator={name}", *(f"estimator.{key}={value}" for key, value in settings.items())])
    sizes = (getattr(estimator, key, None) for key in ("chunk_size", "stride", "mean_length"))
    size = next((size for size in sizes if isinstance(size, int)), None)
    return Candidate(name, words, size, estimator)


def measure(
    model: SequenceModel,
    task: Task,
    *,
    num_batches: int = 5,
    num_timesteps: int = 1000,
    own: Estimator | None = None,
    updates: int = 0,
    with_cost: bool = True,
    progress: Progress = lambda _: None,
) -> Moment:
    """All candidates on a few batches of the training split, at the model's weights.

    Tasks whose state is carried from batch to batch are measured from the carried state: `num_batches` batches before
    those that are measured advance it.

    num_timesteps: at most so many of each batch, those up to its last loss. updates: for the record. with_cost: also
    measure time and memory. The model, its gradients and torch's random numbers stay as they are.
    """
    at_least(1, num_batches=num_batches, num_timesteps=num_timesteps)
    whole = list(entered(model, task, num_batches))
    measured = [(batch, last_timesteps_with_loss(model, batch, state, num_timesteps)) for batch, state in whole]
    measured = [(batch, segment) for batch, segment in measured if any(segment.batch.weights())]
    if not measured:
        raise ValueError("a measured batch must have a loss, got none in all of them; use a larger batches=")
    longest = max((batch for batch, _ in measured), key=lambda batch: batch.num_timesteps)
    tried = candidates(longest, longest=num_timesteps, own=own)
    costs: dict[str, list[Any]] = {each.words: [] for each in tried}
    exact, reaches = [], []
    for number, (batch, (part, state, start)) in enumerate(measured, start=1):
        progress(f"batch {number} of {len(measured)} after {updates} updates")
        reference = exact_gradient(model, task.loss, part, state)
        exact.append(reference)
        found = truncation_bias(
            model,
            task.loss,
            part,
            state,
            {each.words: each.estimator for each in tried},
            start=start,
            whole=batch,
            exact=reference,
            num_draws=DRAWS,
        )
        for words, bias in found.items():
            costs[words].append(bias)
        flows = exact_flows(model, task.loss, part, state, num_sequences=part.batch_size)
        reaches.append([horizon(flow.by_lag["h"], num_losses=len(flow.losses), epsilon=EPSILON) for flow in flows])
    rows = []
    for each in tried:
        relative = [bias.relative for bias in costs[each.words]]
        seconds, megabytes = cost(model, task, measured[0][1], each, progress) if with_cost else (math.nan, math.nan)
        rows.append(
            Cost(
                each.name,
                each.words,
                each.size,
                bias=statistics.fmean(relative),
                spread=statistics.stdev(relative) if len(relative) > 1 else 0.0,
                noise=statistics.fmean(bias.noise for bias in costs[each.words]),
                cosine=statistics.fmean(bias.cosine for bias in costs[each.words]),
                microseconds=seconds * 1e6,
                megabytes=megabytes,
            )
        )
    return Moment(updates, rows, furthest(reaches), gradient_noise(exact))


def measure_training(
    model: SequenceModel,
    task: Task,
    optimizer: Optimizer,
    *,
    num_updates: int,
    clip: Callable[[], object] = lambda: None,
    progress: Progress = lambda _: None,
    **options: Any,
) -> list[Moment]:
    """`measure` at log-spaced moments while the model is trained with the exact gradient; the last one with costs.

    One update a batch of the training split. clip: runs before each update. options: as for `measure`.
    """
    at_least(1, num_updates=num_updates)
    due = moments(num_updates)
    found = [measure(model, task, updates=0, with_cost=False, progress=progress, **options)]
    state: State | None = None
    for number in range(1, num_updates + 1):
        batch = task.batch("train", number - 1)
        optimizer.zero_grad()
        (update,) = Full().updates(model, task.loss, batch, entering_state(model, batch, state))
        if update.weight:
            clip()
            optimizer.step()
        state = update.state
        if number in due:
            progress(f"{number} of {num_updates} updates")
            last = number == num_updates
            found.append(measure(model, task, updates=number, with_cost=last, progress=progress, **options))
    return found


def moments(num_updates: int) -> list[int]:
    """Numbers of updates, log-spaced: the last, and a fourth of it three times over."""
    return sorted({max(1, num_updates // 4**power) for power in range(4)})


def entered(model: SequenceModel, task: Task, num_batches: int) -> Iterator[tuple[Batch, State]]:
    """Batches of the training split with the state that training has at their beginning, at the model's weights."""
    first = task.batch("train", 0)
    lead_in = 0 if first.reset is None else num_batches
    state: State | None = None
    for index in range(lead_in + num_batches):
        batch = task.batch("train", index)
        state = entering_state(model, batch, state)
        if index >= lead_in:
            yield batch, state
        state = (
            model.without_dropout().advance_in_blocks(batch.inputs, detach(state), batch.resets) if lead_in else None
        )


def entering_state(model: SequenceModel, batch: Batch, carried: State | None) -> State:
    """The carried state, or the initial state for sequences that begin with this batch."""
    initial = model.initial_state(batch.batch_size)
    if carried is None or batch.begins is None:
        return initial
    begins = batch.begins.tolist()
    rows = [slice(number, number + 1) for number in range(batch.batch_size)]
    joined: State = map_state(
        lambda new, kept: torch.cat([(new if begin else kept)[row] for begin, row in zip(begins, rows)]),
        initial,
        carried,
    )
    return joined


def cost(
    model: SequenceModel, task: Task, segment: Segment, each: Candidate, progress: Progress
) -> tuple[float, float]:
    """Seconds a timestep (the median of three runs, after one to warm up) and megabytes of saved tensors."""
    progress(f"time and memory of {each.words}")
    twin, before = model.without_dropout(), each.estimator.state_dict()

    def run() -> float:
        began = time.perf_counter()
        for _ in each.estimator.updates(twin, task.loss, segment.batch, detach(segment.state)):
            twin.zero_grad()
        return (time.perf_counter() - began) / segment.batch.num_timesteps

    with saved_tensor_bytes() as saved:
        run()
    seconds = statistics.median(run() for _ in range(3))
    each.estimator.load_state_dict(before)
    return seconds, saved.peak / 1e6


def furthest(reaches: Sequence[Sequence[Horizon]]) -> Horizon:
    """The median over batches of each layer's horizon and interval; of the layer with the largest."""
    layers = []
    for horizons in zip(*reaches):
        lag, low, high = (round(statistics.median(each[place] for each in horizons)) for place in range(3))
        layers.append(Horizon(lag, low, high, sum(each.capped for each in horizons) * 2 > len(horizons)))
    return max(layers)


def recommend(moments: Sequence[Moment], *, delta: float) -> Cost | None:
    """The smallest chunk whose relative bias, and that of all larger ones, is below delta at all moments.

    With its numbers at the last moment; None if there is none.
    """
    worst, best = worst_bias(moments), None
    chunked = [each for each in moments[-1].costs if each.name == "chunked" and "burn_in" not in each.words]
    for each in sorted(chunked, key=lambda each: -(each.size or 0)):
        if not worst[each.words][0] < delta:
            break
        best = each
    return best


def worst_bias(moments: Sequence[Moment]) -> Mapping[str, tuple[float, int]]:
    """By words: the largest relative bias over all moments, and the number of updates at which it was."""
    found: dict[str, tuple[float, int]] = {}
    for moment in moments:
        for each in moment.costs:
            bias = math.inf if math.isnan(each.bias) else each.bias
            if each.words not in found or bias > found[each.words][0]:
                found[each.words] = (bias, moment.updates)
    return found


def advice(moments: Sequence[Moment], *, delta: float, untrained: bool = False) -> str:
    """The recommendation and its reasons in plain words, a sentence a line. untrained: warn that the weights are."""
    best, last, worst = recommend(moments, delta=delta), moments[-1], worst_bias(moments)
    full = next(each for each in last.costs if each.name == "full")
    over_training = len(moments) > 1
    lines = []
    if best is None:
        lines.append(f"Recommended: estimator=full. No chunk size has a relative bias below {delta:g}{when(moments)}.")
    else:
        lines.append(
            f"Recommended: {best.words}, the smallest chunk whose relative bias (and that of all larger ones) is below "
            f"{delta:g}{when(moments)}."
        )
        sentence = f"Its bias is {best.bias:.2g}"
        if over_training:
            sentence += f" now, and {worst[best.words][0]:.2g} at its worst, after {worst[best.words][1]} updates"
        lines.append(sentence + ".")
        if best.bias < last.batch_noise:
            share = best.bias / last.batch_noise
            lines.append(f"That is below the noise of one batch's gradient, {last.batch_noise:.2g}: {share:.0%} of it.")
        lines += [compared(best, each, f"the next {side} size, {each.size},") for side, each in neighbours(best, last)]
    if best is not None:
        lines.append(compared(best, full, "estimator=full, which has no bias,"))
    elif full.megabytes == full.megabytes:
        lines.append(f"It has no bias, and takes {memory(full)} and {duration(full)}.")
    lines.append(f"The gradient reaches {last.horizon.interval} timesteps back, to {EPSILON:.0%} of its largest value.")
    if last.horizon.capped:
        lines.append("It may reach further: no more timesteps were measured, or there are no more before the loss.")
    if over_training:
        reached = ", ".join(f"{each.horizon} at {each.updates}" for each in moments)
        lines.append(f"The horizon over training: measured {reached} updates.")
    if untrained:
        lines.append(
            "Warning: these weights are untrained. The horizon usually grows with training, and with it the chunk size "
            "that is needed: measure over training with train=500."
        )
    return "\n".join(lines)


def when(moments: Sequence[Moment]) -> str:
    return f" at {len(moments)} moments of training" if len(moments) > 1 else " at these weights"


def neighbours(best: Cost, moment: Moment) -> list[tuple[str, Cost]]:
    """The next smaller and larger chunk sizes."""
    chunked = sorted((each for each in moment.costs if each.name == "chunked"), key=lambda each: each.size or 0)
    place = chunked.index(best)
    below, above = chunked[max(0, place - 1) : place], chunked[place + 1 : place + 2]
    return [*(("smaller", each) for each in below), *(("larger", each) for each in above)]


def compared(best: Cost, other: Cost, name: str) -> str:
    """A sentence that sets bias, memory and time beside those of the recommended size."""
    bias = "" if other.name == "full" else f" has bias {other.bias:.2g} and"
    return f"Beside it {name}{bias} takes {memory(other)} ({memory(best)}) and {duration(other)} ({duration(best)})."


def memory(each: Cost) -> str:
    """Saved tensors in a unit that a person reads."""
    size, unit = each.megabytes, "MB"
    if size < 0.1:
        size, unit = size * 1000, "kB"
    elif size >= 1000:
        size, unit = size / 1000, "GB"
    return f"{size:.3g} {unit}"


def duration(each: Cost) -> str:
    """Time a timestep in a unit that a person reads."""
    if each.microseconds >= 1000:
        return f"{each.microseconds / 1000:.3g} ms a timestep"
    return f"{each.microseconds:.3g} µs a timestep"


def write_csv(moments: Sequence[Moment], path: Path) -> None:
    """One row for each candidate and moment."""
    rows = [(moment.updates, *each) for moment in moments for each in moment.costs]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("updates", *Cost._fields), *rows])


def write_json(moments: Sequence[Moment], path: Path, *, delta: float) -> None:
    """The recommendation and all moments; null for numbers that are not finite."""
    best = recommend(moments, delta=delta)
    found = [
        {
            "updates": moment.updates,
            "horizon": moment.horizon._asdict(),
            "batch_noise": finite(moment.batch_noise),
            "costs": [{name: finite(value) for name, value in each._asdict().items()} for each in moment.costs],
        }
        for moment in moments
    ]
    words = "estimator=full" if best is None else best.words
    text = json.dumps({"recommended": words, "delta": delta, "moments": found}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def finite(value: Any) -> Any:
    """The value, or None for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
