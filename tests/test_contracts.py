"""Refusals: what is let through, what is not, and that the message says the contract, what arrived and the remedy."""

import math
import shlex
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bptt.contracts import at_least, between, check_types, one_of, refusal, setting


def test_refusal_says_contract_arrival_and_remedy() -> None:
    assert refusal("size", "even", 3) == "size must be even, got 3"
    assert refusal("size", "even", "3", "say size=4") == "size must be even, got '3'; say size=4"


def test_at_least_accepts_integers_from_the_minimum_on() -> None:
    at_least(0, seed=0)
    at_least(1, length=1, batch_size=10**12)


@pytest.mark.parametrize("value", [0, -3, 1.5, 2.0, "2", None, True, math.inf, math.nan, [2]])
def test_at_least_refuses(value: Any) -> None:
    with pytest.raises(ValueError) as refused:
        at_least(1, length=5, size=value, remedy="use more")
    assert str(refused.value) == f"size must be an integer >= 1, got {value!r}; use more"


@pytest.mark.parametrize(
    ("options", "inside", "outside"),
    [
        ({}, [0, 0.5, 0.999], [-0.001, 1, 1.0]),
        ({"open_low": True}, [0.001, 0.5], [0, 0.0, 1]),
        ({"open_high": False}, [0, 1, 1.0], [1.001, -1]),
        ({"open_low": True, "open_high": False}, [0.5, 1], [0, 1.001]),
    ],
)
def test_between_minds_its_ends(options: dict[str, Any], inside: list[float], outside: list[float]) -> None:
    for value in inside:
        between(0, 1, **options, share=value)
    for value in outside:
        with pytest.raises(ValueError, match=r"^share must be a number in .0, 1., got "):
            between(0, 1, **options, share=value)


@pytest.mark.parametrize("value", ["0.5", None, True, math.nan, math.inf, [0.5]])
def test_between_refuses_what_is_no_finite_number(value: Any) -> None:
    with pytest.raises(ValueError) as refused:
        between(0, math.inf, open_low=True, max=value, remedy="use 1")
    assert str(refused.value) == f"max must be a number in (0, inf), got {value!r}; use 1"


def test_between_has_no_infinite_end() -> None:
    with pytest.raises(ValueError, match=r"^max must be a number in \[0, inf\], got inf$"):
        between(0, math.inf, open_high=False, max=math.inf)


def test_one_of() -> None:
    one_of(("chunk", "sequence"), update="chunk")
    one_of((choice for choice in ("min", "max")), first="min", second="max")  # an iterator serves several arguments
    with pytest.raises(ValueError) as refused:
        one_of(("chunk", "sequence"), update="chunks", remedy="see README")
    assert str(refused.value) == "update must be chunk or sequence, got 'chunks'; see README"


def annotated(  # type: ignore[no-untyped-def]  # a parameter without a type is what is tested
    count: int,
    rate: float,
    number: int | float | None = None,
    name: str = "",
    flag: bool = False,
    call: Callable[[], int] | None = None,
    several: Iterable[int] = (),
    unknown=None,
) -> None:
    """A signature with plain types, unions of them, and types that are not plain."""


def unresolved(count: "MissingPackage.Run" = 3) -> None:  # type: ignore[name-defined]
    """A signature whose annotation only a type checker resolves, such as those of wandb's logger."""


@pytest.mark.parametrize(
    "values",
    [
        {"count": 3},
        {"rate": 0.1},
        {"number": 3},
        {"number": 0.5},
        {"number": None},
        {"name": "x", "flag": True},
        {"call": "not checked, as its type is not plain"},
        {"unknown": object()},
        {"several": [1, 2]},
        {"absent": object()},
    ],
)
def test_check_types_accepts(values: dict[str, Any]) -> None:
    check_types(annotated, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": "3"}, "count must be int, got '3'"),
        ({"count": 1.5}, "count must be int, got 1.5"),
        ({"count": True}, "count must be int, got True"),
        ({"number": "abc"}, "number must be float or int or null, got 'abc'"),
        ({"number": True}, "number must be float or int or null, got True"),
        ({"name": 3}, "name must be str, got 3"),
        ({"flag": 1}, "flag must be bool, got 1"),
        ({"count": 3, "flag": None}, "flag must be bool, got None"),
    ],
)
def test_check_types_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_types(annotated, values)
    assert str(refused.value) == message


def test_check_types_passes_over_annotations_that_cannot_be_resolved() -> None:
    check_types(unresolved, {"count": "any"})


def test_check_types_takes_a_whole_number_for_a_float() -> None:
    check_types(annotated, {"rate": 1})


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"])), min_size=1))
@example(["T (degC)", "", "a,b", "it's", 'an "x"\\', "null", "Température", "a\\b"])
@example(["load", "wind_2", "0"])
def test_a_setting_is_read_by_a_shell_and_hydra_as_it_was_meant(names: list[str]) -> None:
    (word,) = shlex.split(setting("task.leave_out", *names))
    read = OverridesParser.create().parse_override(word).value()
    assert isinstance(read, list)
    assert [str(name) for name in read] == names
