"""Names of the folders of sweeps and jobs, made from their overrides."""

import hashlib
import re
from collections.abc import Iterable, Sequence

from omegaconf import OmegaConf

from bptt.runs.groups import short_keys

LONGEST = 100  # characters
NAMELESS = (
    "resume",
    "sweep.dry_run",
    "sweep.fail_fast",
    "trainer.enable_progress_bar",
)  # change no result


def folder_name(words: Sequence[str]) -> str:
    """Overrides as a name that needs no quotes: model=gru estimator.chunk_size=8 → model-gru_chunk_size-8.

    A name that had to leave something out ends with a digest of the overrides.
    """
    words = identifying_overrides(words)
    pairs = [word.lstrip("+~").partition("=")[::2] for word in words]
    pairs = [(re.sub("@.*", "", key).replace("/", "."), value) for key, value in pairs]
    name = (
        "_".join(f"{key}-{value}" for key, (_, value) in zip(short_keys(key for key, _ in pairs), pairs)) or "defaults"
    )
    safe = re.sub(r"[^a-zA-Z0-9_.+-]+", "-", name)
    if safe == name.replace(",", "-") and len(safe) <= LONGEST:
        return safe
    return f"{safe[: LONGEST - 9].rstrip('-')}-{digest(words)[:8]}"


def identifying_overrides(words: Iterable[str]) -> list[str]:
    """The overrides that determine the result, without those that only change how the job is run."""
    return [word for word in words if word.partition("=")[0] not in NAMELESS]


def digest(parts: Iterable[str]) -> str:
    """SHA-256 of several texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def as_written(words: Sequence[str]) -> list[str]:
    """Overrides from Hydra's configuration, with interpolations unresolved."""
    return OmegaConf.to_container(words, resolve=False)  # type: ignore[return-value]  # a list config becomes a list


def resolve_name(words: Sequence[str]) -> str:
    return folder_name(as_written(words))


# The name of a sweep is cached, because its jobs have other overrides than the sweep.
OmegaConf.register_new_resolver("sweep_name", resolve_name, use_cache=True, replace=True)
OmegaConf.register_new_resolver("job_name", resolve_name, replace=True)
