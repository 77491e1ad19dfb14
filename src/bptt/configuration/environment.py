"""Environment variables that a configuration refers to, ${oc.env:NAME}. Their values may be secret."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bptt.configuration.containers import leaves, with_texts
from bptt.contracts import refusal

UNESCAPED = re.compile(r"(?<!\\)((?:\\\\)*)\$\{")  # a beginning that no odd number of backslashes precedes
REFERENCE = re.compile(r"""\$\{\s*oc\.env\s*:\s*["'\\]*([\w.-]*)""")

WITHOUT_DEFAULT = re.compile(REFERENCE.pattern + r"""["'\\]*\s*\}""")


def references(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the text of every setting that refers to an environment variable."""
    for key, value in leaves(OmegaConf.to_container(config, resolve=False)):
        if isinstance(value, str) and REFERENCE.search(value):
            yield key, value


def without_environment(config: DictConfig) -> DictConfig:
    """A copy of the configuration with ${oc.env:NAME} as text, for what is shared: comparisons and TensorBoard."""
    plain = OmegaConf.to_container(config, resolve=False)
    shown = OmegaConf.create(with_texts(plain, as_it_stands))
    assert isinstance(shown, DictConfig)
    return shown


def as_it_stands(text: str) -> str:
    """A text that refers to the environment with its references escaped, so that they are not resolved."""
    return UNESCAPED.sub(r"\1\\${", text) if REFERENCE.search(text) else text


def values_in(text: str) -> list[str]:
    """The present values of the variables that a text refers to, NAME=VALUE."""
    return [f"{name}={os.environ.get(name, '')}" for name in REFERENCE.findall(text)]


def fingerprints(config: DictConfig) -> dict[str, str]:
    """A hash of each value that comes from the environment, by the setting's key; without loggers' settings."""
    return {
        key: hashlib.sha256(f"{key}={without_references(OmegaConf.select(config, key))}".encode()).hexdigest()[:16]
        for key, _ in references(config)
        if not key.startswith("logger.")
    }


def without_references(value: Any) -> Any:
    """A setting with its references resolved, also those within a list."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def without_unknown_keys(config: DictConfig) -> DictConfig:
    """A copy to load a run from, which needs no loggers and may lack the variables that they refer to.

    These references stay as texts. The copy has no loggers if they refer to something else that is unknown.
    """
    known, written = config.copy(), OmegaConf.to_container(config, resolve=False)
    if isinstance(written, dict) and isinstance(written.get("logger"), dict):
        known.logger = with_texts(written["logger"], unset_as_it_stands)
        try:
            OmegaConf.to_container(known.logger, resolve=True)
        except OmegaConfBaseException:
            known.logger = {}
    return known


def unset_as_it_stands(text: str) -> str:
    """A text with its references escaped if a variable without a default is not set, or if its name is a reference."""
    known = all(name in os.environ for name in WITHOUT_DEFAULT.findall(text)) and "" not in REFERENCE.findall(text)
    return text if known else as_it_stands(text)


def check_environment(now: Mapping[str, str], before: Mapping[str, Any]) -> None:
    """Raise ValueError if values from the environment have other fingerprints than before."""
    for key, fingerprint in now.items():
        if before.get(key, fingerprint) != fingerprint:
            wanted = "the value from the environment that the run began with"
            raise ValueError(refusal(key, wanted, "another", "set the variable as it was, or start another run"))
