"""Comparison of data with those of training."""

from collections.abc import Mapping
from typing import Any

USE_CHANGED = "set other_data=true to use the changed data"  # a remedy for errors


def same_data(before: str | None, now: str | None) -> bool:
    """True for equal identities of data. Those in checkpoints of earlier versions say less, or are missing."""
    return before in (None, now) or (now is not None and now.startswith(f"{before}; "))


def other_encoding(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> tuple[str, str] | None:
    """The difference between two encodings of equal numbers, and a remedy; None without one.

    Standardised numbers say no units, and ids of classes and categories no names. Checkpoints of earlier versions lack
    some entries, and an own task may use their names otherwise.
    """
    before = before or {}

    def replaced(name: str, kind: type) -> bool:
        return isinstance(before.get(name), kind) and isinstance(now.get(name), kind) and before[name] != now[name]

    if replaced("classes", list):
        known = all(each in before["classes"] for each in now["classes"])
        remedy = USE_CHANGED if known else "name the classes as in training"
        return f"other classes, {now['classes']} in place of {before['classes']}", remedy
    if replaced("categories", dict):
        return f"other categories, {now['categories']} in place of {before['categories']}", USE_CHANGED
    if replaced("rate", int):
        return f"another rate, {now['rate']} in place of {before['rate']}", "resample the sounds"
    scales = [(before, now), (before.get("target_scale"), now.get("target_scale"))]
    for old, new in scales:
        if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
            continue
        moments = [side.get(name) for side in (old, new) for name in ("mean", "deviation")]
        if not all(isinstance(each, list) and all(isinstance(item, float) for item in each) for each in moments):
            continue
        for mean, deviation, new_mean, new_deviation in zip(*moments):
            rounding = 1e-4 * deviation + 1e-9 * abs(mean)
            if abs(new_mean - mean) > rounding:
                return f"another mean, {new_mean:g} in place of {mean:g}", USE_CHANGED
            if abs(new_deviation - deviation) > rounding:
                return f"another deviation, {new_deviation:g} in place of {deviation:g}", USE_CHANGED
    return None
