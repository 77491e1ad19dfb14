"""Checks of arguments, which raise ValueError with one line: the contract, the value received, the remedy; and names
and paths of settings as the command line has them.
"""

import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

LARGEST = (2 - 2**-23) * 2.0**127  # largest finite float32
PLAIN = re.compile(r"(?!(null|true|false|nan|inf)$)([A-Za-z_][\w./+-]*|\d)", re.ASCII | re.IGNORECASE)
BEFORE_QUOTE = re.compile(r'(\\*)("|$)')


def expanded(path: str | Path) -> Path:
    """A path with ~ as the home directory; as it stands if its user is not known, such as a folder called ~run."""
    return Path(os.path.expanduser(path))


def at_least(minimum: int, *, remedy: str = "", **named: Any) -> None:
    """Check that each argument is an integer of at least `minimum`."""
    for name, value in named.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ValueError(refusal(name, f"an integer >= {minimum}", value, remedy))


def between(
    low: float, high: float, *, open_low: bool = False, open_high: bool = True, remedy: str = "", **named: Any
) -> None:
    """Check that each argument is a number from `low` to `high`. `open_low` and `open_high` exclude the end point."""
    interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
    wanted = "a finite number" if (low, high) == (-math.inf, math.inf) else f"a number in {interval}"
    for name, value in named.items():
        finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
        inside = (
            finite and (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
        )
        if not inside:
            too_large = isinstance(value, float) and LARGEST < abs(value) < math.inf
            raise ValueError(refusal(name, f"{wanted} that float32 holds" if too_large else wanted, value, remedy))


def valid_seed(**named: Any) -> None:
    """Check that each argument is an integer from 0 to 2⁶³ − 1, which every random generator takes."""
    at_least(0, **named)
    for name, value in named.items():
        if value >= 1 << 63:
            raise ValueError(refusal(name, "below 2^63", value))


def one_of(choices: Iterable[Any], *, remedy: str = "", **named: Any) -> None:
    """Check that each argument is one of the given choices."""
    choices = list(choices)
    for name, value in named.items():
        if value not in choices:
            raise ValueError(refusal(name, " or ".join(str(choice) for choice in choices), value, remedy))


def true_or_false(**named: Any) -> None:
    """Check that each argument is a bool. 0, 1 and other truthy or falsy values are rejected."""
    for name, value in named.items():
        if not isinstance(value, bool):
            raise ValueError(refusal(name, "true or false", value))


def check_types(function: Callable[..., Any], named: Mapping[str, Any], *, within: str = "") -> None:
    """Check that each argument has a type of the function's annotation. Errors name it with `within` before its name.

    Only annotations of plain types (int, float, str, bool, None) and their unions are checked. A bool is not accepted
    as a number.
    """
    try:
        hints = get_type_hints(function)
    except NameError:  # a name that a library imports for type checkers alone, or from a package that is missing
        return
    for name, value in named.items():
        union = get_origin(hints.get(name)) in (Union, UnionType)  # not a container such as Iterable[int]
        choices = get_args(hints.get(name)) if union else (hints.get(name),)
        plain = [choice for choice in choices if choice in (int, float, str, bool, NoneType)]
        fits = type(value) in plain or (float in plain and type(value) is int)
        if not fits and (len(plain) == len(choices) or (plain and isinstance(value, bool))):
            names = ("null" if choice is NoneType else choice.__name__ for choice in plain)
            raise ValueError(refusal(f"{within}{name}", " or ".join(sorted(names)), value))


def refusal(name: str, wanted: str, got: Any, remedy: str = "") -> str:
    """Error message: the contract, the value received, the remedy."""
    return f"{name} must be {wanted}, got {got!r}" + (f"; {remedy}" if remedy else "")


def plain_name(target: str) -> str:
    """Class or function in lower case: bptt.layers.LSTM → lstm, bptt.tasks.copy_memory.CopyMemory → copy_memory."""
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z]{2})", "_", target.rpartition(".")[2]).lower()


def setting(key: str, *names: str) -> str:
    """The names as a setting KEY=[NAMES] for a shell, in quotes if a name has spaces, brackets or other letters."""
    if all(PLAIN.fullmatch(name) for name in names):
        return f"{key}=[{','.join(names)}]"
    texts = ",".join(f'"{BEFORE_QUOTE.sub(doubled, name)}"' for name in names)
    return shlex.quote(f"{key}=[{texts}]")


def doubled(found: re.Match[str]) -> str:
    """Backslashes before a quote or the end, doubled; a quote gets one more. Hydra reads all others as they are."""
    return 2 * found[1] + found[2].replace('"', '\\"')
