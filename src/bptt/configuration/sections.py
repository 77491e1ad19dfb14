"""Sections of the configuration: `_target_` names what Hydra instantiates, the other keys are its arguments."""

import math
import pydoc
from inspect import isfunction
from typing import Any

from omegaconf import DictConfig

from bptt.contracts import between, check_types, refusal, true_or_false

LIBRARIES = ("torch.", "lightning.")


def locate(target: str) -> Any:
    """The object of a dotted name, or None. pydoc alone turns Ctrl-C within an import into an error of its own."""
    try:
        return pydoc.locate(target)
    except pydoc.ErrorDuringImport as error:
        if isinstance(error.value, KeyboardInterrupt):
            raise error.value from None
        raise


def validate_section(name: str, section: Any) -> DictConfig:
    """Check that a section and its inner sections can be instantiated; ValueError if not.

    Classes of this project check their own arguments. Libraries accept values of wrong types and fail later, so their
    arguments must match the annotations, and be finite.
    """
    if not isinstance(section, DictConfig) or not isinstance(section.get("_target_"), str):
        group, _, inner = name.partition(".")
        remedy = f"if {group} is chosen elsewhere too, say {group}=[{inner},…]" if inner else ""
        remedy = f"to leave it out, say ~{name}" if inner and section is None else remedy
        raise ValueError(refusal(name, "a section with a _target_", section, remedy))
    true_or_false(**{f"{name}._partial_": section.get("_partial_", False)})
    values = {str(key): value for key, value in section.items() if not str(key).startswith("_")}
    if section._target_.startswith(LIBRARIES):
        target: Any = locate(section._target_)
        is_class = isinstance(target, type)
        if is_class or isfunction(target):  # Hydra refuses everything else
            check_types(target.__init__ if is_class else target, values, within=f"{name}.")
        numbers: dict[str, Any] = {f"{name}.{key}": value for key, value in values.items() if isinstance(value, float)}
        between(-math.inf, math.inf, open_low=True, **numbers)
    for key, value in values.items():
        if isinstance(value, DictConfig) and "_target_" in value:
            validate_section(f"{name}.{key}", value)
    return section


def named_sections(group: str, sections: Any) -> list[DictConfig]:
    """The sections of a group that holds any number of them by name, such as `callbacks`."""
    if not isinstance(sections, DictConfig):
        raise ValueError(refusal(group, "a group of named sections", sections))
    return [validate_section(".".join((group, str(name))), section) for name, section in sections.items()]
