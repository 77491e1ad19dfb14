"""Folders of sweeps and of their jobs, named after what is overridden."""

import hashlib
import re
from collections.abc import Iterable, Sequence

from omegaconf import OmegaConf
from run_groups import columns

LONGEST = 100  # characters
NAMELESS = ("resume", "sweep.dry_run", "sweep.fail_fast", "trainer.enable_progress_bar")  # they change no result


def folder_name(words: Sequence[str]) -> str:
    """Overrides as a name that needs no quotes anywhere: model=gru estimator.chunk_size=8 → model-gru_chunk_size-8.

    Where something had to be left out, a digest of the overrides is at the end.
    """
    words = named(words)
    pairs = [word.lstrip("+~").partition("=")[::2] for word in words]
    pairs = [(re.sub("@.*", "", key).replace("/", "."), value) for key, value in pairs]
    name = "_".join(f"{key}-{value}" for key, (_, value) in zip(columns(key for key, _ in pairs), pairs)) or "defaults"
    safe = re.sub(r"[^a-zA-Z0-9_.+-]+", "-", name)
    if safe == name.replace(",", "-") and len(safe) <= LONGEST:
        return safe
    return f"{safe[: LONGEST - 9].rstrip('-')}-{digest(words)[:8]}"


def named(words: Iterable[str]) -> list[str]:
    """The overrides that say what is run, without those that say how."""
    return [word for word in words if word.partition("=")[0] not in NAMELESS]


def digest(parts: Iterable[str]) -> str:
    """A short text that differs where the parts do."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def as_written(words: Sequence[str]) -> list[str]:
    """Overrides of Hydra's configuration, with the references in them."""
    return OmegaConf.to_container(words, resolve=False)  # type: ignore[return-value]  # a list of words is one


def resolve_name(words: Sequence[str]) -> str:
    return folder_name(as_written(words))


# The name of a sweep is kept, as jobs have other overrides than their sweep.
OmegaConf.register_new_resolver("sweep_name", resolve_name, use_cache=True, replace=True)
OmegaConf.register_new_resolver("job_name", resolve_name, replace=True)
