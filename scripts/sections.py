"""Sections of the configuration: each names by `_target_` what Hydra is to build, and its arguments."""

import math
import pydoc
from inspect import isfunction
from typing import Any

from omegaconf import DictConfig

from bptt.contracts import between, check_types, refusal, true_or_false

LIBRARIES = ("torch.", "lightning.")


def check_section(name: str, section: Any) -> DictConfig:
    """A section, sections within it too, must be fit to be built; ValueError where it is not.

    What a class of this project takes it checks itself. Libraries take much for a number that is none, and fail later:
    for them each value must be of a type in the annotation, and finite.
    """
    if not isinstance(section, DictConfig) or not isinstance(section.get("_target_"), str):
        group, _, inner = name.partition(".")
        remedy = f"where {group} is chosen elsewhere too, say {group}=[{inner},…]" if inner else ""
        raise ValueError(refusal(name, "a section with a _target_", section, remedy))
    true_or_false(**{f"{name}._partial_": section.get("_partial_", False)})
    values = {str(key): value for key, value in section.items() if not str(key).startswith("_")}
    if section._target_.startswith(LIBRARIES):
        found: Any = pydoc.locate(section._target_)
        is_class = isinstance(found, type)
        if is_class or isfunction(found):  # Hydra refuses all else
            check_types(found.__init__ if is_class else found, **values)
        numbers: dict[str, Any] = {key: value for key, value in values.items() if isinstance(value, float)}
        between(-math.inf, math.inf, open_low=True, **numbers)
    for key, value in values.items():
        if isinstance(value, DictConfig) and "_target_" in value:
            check_section(f"{name}.{key}", value)
    return section


def named_sections(group: str, sections: Any) -> list[DictConfig]:
    """The sections of a group that has any number of them, each with a name."""
    if not isinstance(sections, DictConfig):
        raise ValueError(refusal(group, "a group of named sections", sections))
    return [check_section(".".join((group, str(name))), section) for name, section in sections.items()]
