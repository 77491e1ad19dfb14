"""The type checker of the tests: array annotations only.

Plain types are mypy's business. Were they checked here, the package's own refusals of a wrong number or word, which
are what a user reads, could not be tested.
"""

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray
from torch import Tensor


def check_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype, for those parameters and returned values whose annotation names an array."""
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if _names_array(hint)}
    return beartype(function)


def _names_array(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, Tensor | AbstractArray):
        return True
    return any(_names_array(part) for part in get_args(hint))
