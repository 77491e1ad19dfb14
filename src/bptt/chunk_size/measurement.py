"""Bias, noise, time and memory of all candidates, at one moment or over training.

Longer than 200 lines: one measurement, from batches to costs, in the order in which it runs.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from torch.optim import Optimizer

from bptt.chunk_size.candidates import Candidate, candidates
from bptt.contracts import at_least
from bptt.estimators import Chunked, Estimator, Full, Sliding
from bptt.estimators.forward_mode import ForwardMode
from bptt.initial_state import state_at_start
from bptt.measures.gradient_flow import exact_flows
from bptt.measures.horizon import EPSILON, Horizon, horizon
from bptt.measures.memory import SavedTensors, saved_tensor_bytes
from bptt.measures.segments import Segment, last_timesteps_with_loss
from bptt.measures.truncation_bias import exact_gradient, flat_vector, gradient_noise, truncation_bias
from bptt.model import SequenceModel
from bptt.shapes import State, detach
from bptt.tasks.base import Batch, Task

Progress = Callable[[str], None]
DRAWS = 16  # gradients drawn from an estimator with random numbers, to separate bias from noise


class Cost(NamedTuple):
    """One candidate, measured at one moment: means over batches, time and memory of the longest one.

    A batch that is no longer than a chunk or window is not truncated by it, and does not count.

    bias: ‖E ĝ − g‖ / ‖g‖, relative to the exact gradient g. spread: its standard deviation over batches.
    noise: the root mean square of ‖ĝ − E ĝ‖ / ‖g‖ over draws; 0 for an estimator without random numbers.
    microseconds: time for forward and backward pass, per timestep of the batch. megabytes: tensors that autograd saves.
    Both are NaN if they were not measured at this moment, megabytes also in forward mode.
    """

    name: str
    overrides: str
    size: int | None
    bias: float
    spread: float
    noise: float
    cosine: float
    microseconds: float
    megabytes: float


class Moment(NamedTuple):
    """Measurements after `updates` updates.

    horizon: that of the layer with the largest one. batch_noise: noise of one batch's exact gradient, relative to its
    norm; NaN if a single batch was measured.
    """

    updates: int
    costs: list[Cost]
    horizon: Horizon
    batch_noise: float


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

    If the task carries the state from batch to batch, `num_batches` further batches come first, which only advance the
    state.

    num_timesteps: at most this many timesteps of each batch, those up to its last loss. updates: number of updates so
    far, kept in the result. with_cost: also measure time and memory. The model, its gradients and torch's random state
    are not changed.
    """
    at_least(1, num_batches=num_batches, num_timesteps=num_timesteps)
    batches = batches_with_state(model, task, num_batches)
    measured = [(batch, last_timesteps_with_loss(model, batch, state, num_timesteps)) for batch, state in batches]
    measured = [(batch, segment) for batch, segment in measured if any(segment.batch.weights())]
    if not measured:
        raise ValueError(
            "a measured batch must have a loss, got none in all of them; use a larger batches=, or data with targets"
        )
    longest = max((batch for batch, _ in measured), key=lambda batch: batch.num_timesteps)
    measured_candidates = candidates(longest, longest=num_timesteps, own=own)
    biases_by_candidate: dict[str, list[Any]] = {each.overrides: [] for each in measured_candidates}
    exact_gradients, horizons = [], []
    for number, (batch, (part, state, start)) in enumerate(measured, start=1):
        progress(f"batch {number} of {len(measured)} after {updates} updates")
        exact = exact_gradient(model, task.loss, part, state)
        length = float(flat_vector(exact).norm())
        if not 0 < length < math.inf:
            wanted = "above 0 and finite for a bias relative to it"
            place = f"in batch {number} after {updates} updates"
            remedy = "use a smaller optimizer.lr or clipping.max" if length else "use other weights"
            raise ValueError(f"the norm of the exact gradient must be {wanted}, got {length:g} {place}; {remedy}")
        exact_gradients.append(exact)
        biases = truncation_bias(
            model,
            task.loss,
            part,
            state,
            {each.overrides: each.estimator for each in measured_candidates},
            start=start,
            whole=batch,
            exact=exact,
            num_draws=DRAWS,
        )
        for overrides, bias in biases.items():
            biases_by_candidate[overrides].append(bias)
        flows = exact_flows(model, task.loss, part, state, num_sequences=part.batch_size)
        horizons.append([horizon(flow.by_lag["h"], num_losses=len(flow.losses), epsilon=EPSILON) for flow in flows])
    longest_segment = max((segment for _, segment in measured), key=lambda segment: segment.batch.num_timesteps)
    rows = []
    for each in measured_candidates:
        all_biases = biases_by_candidate[each.overrides]
        size = reach(each.estimator)
        cut = [bias for bias, (batch, _) in zip(all_biases, measured, strict=True) if batch.num_timesteps > size]
        measured_biases = cut or all_biases
        relative = [bias.relative for bias in measured_biases]
        seconds, megabytes = cost(model, task, longest_segment, each, progress) if with_cost else (math.nan, math.nan)
        rows.append(
            Cost(
                each.name,
                each.overrides,
                each.size,
                bias=statistics.fmean(relative),
                spread=statistics.stdev(relative) if len(relative) > 1 else 0.0,
                noise=statistics.fmean(bias.noise for bias in measured_biases),
                cosine=statistics.fmean(bias.cosine for bias in measured_biases),
                microseconds=seconds * 1e6,
                megabytes=megabytes,
            )
        )
    return Moment(updates, rows, longest_horizon(horizons), gradient_noise([[each] for each in exact_gradients]))


def measure_training(
    model: SequenceModel,
    task: Task,
    optimizer: Optimizer,
    *,
    num_updates: int,
    before_step: Callable[[float], object] = lambda _: None,
    with_cost: bool = True,
    progress: Progress = lambda _: None,
    **options: Any,
) -> list[Moment]:
    """`measure` at moments with log spacing, while the model trains with the exact gradient.

    One update a batch of the training split. options: as for `measure`.
    before_step: called before each update with the number that the loss is divided by, for example to clip.
    with_cost: also measure time and memory, at the last moment.
    """
    at_least(1, num_updates=num_updates)
    due = moments(num_updates)
    measured = [measure(model, task, updates=0, with_cost=False, progress=progress, **options)]
    state: State | None = None
    for number in range(1, num_updates + 1):
        batch = task.batch("train", number - 1)
        optimizer.zero_grad()
        (update,) = Full().updates(model, task.loss, batch, state_at_start(model, batch, state))
        if update.weight:
            before_step(update.denominator)
            optimizer.step()
        state = update.state
        if number in due:
            progress(f"{number} of {num_updates} updates")
            costs = with_cost and number == num_updates
            measured.append(measure(model, task, updates=number, with_cost=costs, progress=progress, **options))
    return measured


def moments(num_updates: int) -> list[int]:
    """Numbers of updates at which to measure: the last one, ¼, 1/16 and 1/64 of it."""
    return sorted({max(1, num_updates // 4**power) for power in range(4)})


def batches_with_state(model: SequenceModel, task: Task, num_batches: int) -> Iterator[tuple[Batch, State]]:
    """Training batches with the state at their start, computed with the present weights."""
    first = task.batch("train", 0)
    lead_in = 0 if first.reset is None else num_batches
    state: State | None = None
    for index in range(lead_in + num_batches):
        batch = task.batch("train", index)
        state = state_at_start(model, batch, state)
        if index >= lead_in:
            yield batch, state
        state = (
            model.without_dropout().advance_in_blocks(batch.inputs, detach(state), batch.resets) if lead_in else None
        )


def reach(estimator: Estimator) -> int:
    """The longest batch whose gradient the estimator does not truncate; 0 if there is none."""
    if isinstance(estimator, Chunked):
        return estimator.chunk_size
    return estimator.window if isinstance(estimator, Sliding) else 0


def cost(
    model: SequenceModel, task: Task, segment: Segment, each: Candidate, progress: Progress
) -> tuple[float, float]:
    """Seconds per timestep (median of three runs after a warm-up) and megabytes of saved tensors.

    NaN for the tensors of forward mode: torch does not say what its transforms save.
    """
    progress(f"time and memory of {each.overrides}")
    twin, before = model.without_dropout(), each.estimator.state_dict()

    def run() -> float:
        started = time.perf_counter()
        for _ in each.estimator.updates(twin, task.loss, segment.batch, detach(segment.state)):
            twin.zero_grad()
        return (time.perf_counter() - started) / segment.batch.num_timesteps

    forward_mode = isinstance(each.estimator, ForwardMode)
    with nullcontext(SavedTensors()) if forward_mode else saved_tensor_bytes() as saved:
        run()
    seconds = statistics.median(run() for _ in range(3))
    each.estimator.load_state_dict(before)
    return seconds, math.nan if forward_mode else saved.peak / 1e6


def longest_horizon(by_batch: Sequence[Sequence[Horizon]]) -> Horizon:
    """Median over batches of each layer's horizon and interval. Returns that of the layer with the largest lag."""
    layers = []
    for horizons in zip(*by_batch):
        lag, low, high = (round(statistics.median(each[field] for each in horizons)) for field in range(3))
        layers.append(Horizon(lag, low, high, sum(each.capped for each in horizons) * 2 > len(horizons)))
    return max(layers)
