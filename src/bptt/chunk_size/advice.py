"""The recommended chunk size, and the reasons for it in sentences."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import TypeVar

from bptt.chunk_size.measurement import Cost, Moment
from bptt.measures.horizon import EPSILON

Size = TypeVar("Size")


def recommend(moments: Sequence[Moment], *, delta: float) -> Cost | None:
    """The smallest chunk whose relative bias, and that of all larger ones, is below delta at all moments.

    Returns its cost at the last moment, or None if no chunk size qualifies.
    """
    worst = worst_bias(moments)
    descending = sorted(plain_chunks(moments[-1]), key=lambda each: -(each.size or 0))
    return smallest_below(descending, lambda each: worst[each.overrides][0], delta=delta)


def smallest_below(descending: Iterable[Size], bias: Callable[[Size], float], *, delta: float) -> Size | None:
    """The smallest size whose bias, and that of all larger ones, is below delta; None if that of the largest is not.

    descending: the sizes, the largest first.
    """
    below = list(takewhile(lambda size: bias(size) < delta, descending))
    return below[-1] if below else None


def plain_chunks(moment: Moment) -> list[Cost]:
    """The costs of chunks without other settings, such as burn-in."""
    plain = "estimator=chunked estimator.chunk_size="
    return [each for each in moment.costs if each.overrides == f"{plain}{each.size}"]


def worst_bias(moments: Sequence[Moment]) -> Mapping[str, tuple[float, int]]:
    """Largest relative bias over all moments and the number of updates at which it occurred, by `Cost.overrides`."""
    worst: dict[str, tuple[float, int]] = {}
    for moment in moments:
        for each in moment.costs:
            bias = math.inf if math.isnan(each.bias) else each.bias
            if each.overrides not in worst or bias > worst[each.overrides][0]:
                worst[each.overrides] = (bias, moment.updates)
    return worst


def advice(moments: Sequence[Moment], *, delta: float, untrained: bool = False) -> str:
    """The recommendation and its reasons, one sentence per line. untrained: warn that the weights are untrained."""
    best, last, worst = recommend(moments, delta=delta), moments[-1], worst_bias(moments)
    full = next(each for each in last.costs if each.name == "full")
    over_training = len(moments) > 1
    lines = []
    if best is None:
        lines.append(f"Recommended: estimator=full. No chunk size has a relative bias below {delta:g}{when(moments)}.")
    else:
        lines.append(
            f"Recommended: {best.overrides}, the smallest chunk whose relative bias (and that of all larger ones) is "
            f"below {delta:g}{when(moments)}."
        )
        sentence = f"Its bias is {best.bias:.3g}"  # with two digits, .0996 would not be below .1
        if over_training:
            sentence += (
                f" now, and {worst[best.overrides][0]:.3g} at its worst, after {worst[best.overrides][1]} updates"
            )
        lines.append(sentence + ".")
        if best.bias < last.batch_noise:
            share = best.bias / last.batch_noise
            lines.append(f"That is below the noise of one batch's gradient, {last.batch_noise:.2g}: {share:.0%} of it.")
        lines += [compared(best, each, f"the next {side} size, {each.size},") for side, each in neighbours(best, last)]
    if best is not None:
        lines.append(compared(best, full, "estimator=full, which has no bias,"))
    elif not math.isnan(full.megabytes):
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
    """Clause that says at which weights the bias was measured."""
    return f" at {len(moments)} moments of training" if len(moments) > 1 else " at these weights"


def neighbours(best: Cost, moment: Moment) -> list[tuple[str, Cost]]:
    """The next smaller and larger chunk sizes."""
    chunked = sorted(plain_chunks(moment), key=lambda each: each.size or 0)
    index = chunked.index(best)
    below, above = chunked[max(0, index - 1) : index], chunked[index + 1 : index + 2]
    return [*(("smaller", each) for each in below), *(("larger", each) for each in above)]


def compared(best: Cost, other: Cost, name: str) -> str:
    """Sentence comparing bias, memory and time with those of the recommended size."""
    if best.bias == other.bias == 0 and memory(best) == memory(other):
        return f"For comparison, {name} does the same here: both see the whole sequence."
    bias = "" if other.name == "full" else f" has bias {other.bias:.3g} and"
    cost = f"{memory(other)} (not {memory(best)}) and {duration(other)} (not {duration(best)})"
    return f"For comparison, {name}{bias} takes {cost}."


def memory(each: Cost) -> str:
    """Size of the saved tensors with a readable unit; a dash if it was not measured."""
    size, unit = each.megabytes, "MB"
    if math.isnan(size):
        return "–"
    if size < 0.1:
        size, unit = size * 1000, "kB"
    elif size >= 1000:
        size, unit = size / 1000, "GB"
    return f"{size:.3g} {unit}"


def duration(each: Cost) -> str:
    """Time per timestep with a readable unit."""
    if each.microseconds >= 1000:
        return f"{each.microseconds / 1000:.3g} ms per timestep"
    return f"{each.microseconds:.3g} µs per timestep"
