"""The type checker of the tests: array annotations only.

Plain types are mypy's business. Were they checked here, the package's own refusals of a wrong number or word, which
are what a user reads, could not be tested.
"""

import inspect
from collections.abc import Callable
from typing import Any, get_args

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray
from torch import Tensor


def check_shapes_of(package: str) -> None:
    """Check the annotated shapes of all functions that are imported from a package from now on.

    jaxtyping's hook also wraps functions whose annotations name no array. The time for that is half of a test that
    trains, so they are left as they are.
    """
    decorated = jaxtyping.jaxtyped

    def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
        def decorate(function: Any) -> Any:
            without_arrays = inspect.isfunction(function) and not _array_hints(function)
            return function if without_arrays else decorated(function, typechecker=typechecker)

        return decorate

    jaxtyping.jaxtyped = jaxtyped  # type: ignore[assignment]  # the hook's decorators look it up here
    jaxtyping.install_import_hook(package, f"{__name__}.check_arrays")


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
