"""A configuration in plain containers: dictionaries, lists, texts and numbers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf


def resolved(config: DictConfig | ListConfig) -> dict[str, Any]:
    """A configuration in plain containers, with all interpolations resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(group): part for group, part in container.items()}


def leaves(part: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of every setting below `key`; a list is one value."""
    if isinstance(part, Mapping):
        for name, inner in part.items():
            yield from leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, str(part) if isinstance(part, list) else part


def with_texts(part: Any, change: Callable[[str], str]) -> Any:
    """Plain containers with every text changed, at any depth."""
    if isinstance(part, Mapping):
        return {key: with_texts(value, change) for key, value in part.items()}
    if isinstance(part, list):
        return [with_texts(value, change) for value in part]
    return change(part) if isinstance(part, str) else part
