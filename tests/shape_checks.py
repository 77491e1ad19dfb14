"""The type checker of the tests: array annotations only.

Plain types are mypy's business. Were they checked here, the package's own refusals of a wrong number or word, which
are what a user reads, could not be tested.
"""

import inspect
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any, get_args

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray
from torch import Tensor

FIRST, THEN = 10, 20

calls: Counter[Callable[..., Any]] = Counter()  # of every function, in the current test


def check_shapes_of(package: str) -> None:
    """Check the annotated shapes of all functions that are imported from a package from now on.

    A check costs several times what a small network costs. So a function is checked in its first 10 calls in a test,
    and in every 20th after that. Functions inside functions, and those whose annotations name no array, are not
    checked.
    """
    decorated = jaxtyping.jaxtyped

    def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
        def decorate(function: Any) -> Any:
            left = inspect.isfunction(function) and ("<locals>" in function.__qualname__ or not _array_hints(function))
            if left:
                return function
            checked = decorated(function, typechecker=typechecker)
            return sampled(function, checked) if inspect.isfunction(function) else checked

        return decorate

    jaxtyping.jaxtyped = jaxtyped  # type: ignore[assignment]  # the hook's decorators look it up here
    jaxtyping.install_import_hook(package, f"{__name__}.check_arrays")


def sampled(function: Callable[..., Any], checked: Callable[..., Any]) -> Callable[..., Any]:
    """The function, checked in some of its calls."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        calls[function] += 1
        chosen = calls[function] <= FIRST or calls[function] % THEN == 0
        return (checked if chosen else function)(*args, **kwargs)

    return call


def check_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype, for those parameters and returned values whose annotation names an array."""
    function.__annotations__ = _array_hints(function)
    return beartype(function)


def _array_hints(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: hint for name, hint in function.__annotations__.items() if _names_array(hint)}


def _names_array(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, Tensor | AbstractArray):
        return True
    return any(_names_array(part) for part in get_args(hint))
