"""Names of the folders of sweeps and jobs, made from their overrides."""

import hashlib
import re
from collections.abc import Iterable, Sequence

from omegaconf import OmegaConf

from bptt.runs.groups import short_keys

MAX_LENGTH = 100  # characters of a name
NOT_IN_NAMES = (
    "resume",
    "sweep.dry_run",
    "sweep.fail_fast",
    "trainer.enable_progress_bar",
)  # settings that do not change the results


def folder_name(overrides: Sequence[str]) -> str:
    """Overrides as a folder name that needs no quotes: model=gru estimator.chunk_size=8 → model-gru_chunk_size-8.

    If characters were replaced or the name was shortened, it ends with a digest of the overrides.
    """
    overrides = identifying_overrides(overrides)
    pairs = [word.lstrip("+~").partition("=")[::2] for word in overrides]
    pairs = [(re.sub("@.*", "", key).replace("/", "."), value) for key, value in pairs]
    name = (
        "_".join(f"{key}-{value}" for key, (_, value) in zip(short_keys(key for key, _ in pairs), pairs)) or "defaults"
    )
    safe = re.sub(r"[^a-zA-Z0-9_.+-]+", "-", name)
    if safe == name.replace(",", "-") and len(safe) <= MAX_LENGTH:
        return safe
    return f"{safe[: MAX_LENGTH - 9].rstrip('-')}-{digest(overrides)[:8]}"


def identifying_overrides(overrides: Iterable[str]) -> list[str]:
    """The overrides that determine the result. Those that only change how the job is run are left out."""
    return [word for word in overrides if word.partition("=")[0] not in NOT_IN_NAMES]


def digest(parts: Iterable[str]) -> str:
    """SHA-256 of several texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def as_written(overrides: Sequence[str]) -> list[str]:
    """Overrides from Hydra's configuration, with interpolations unresolved."""
    return OmegaConf.to_container(overrides, resolve=False)  # type: ignore[return-value]  # a list config becomes a list


def resolve_name(overrides: Sequence[str]) -> str:
    """Value of ${sweep_name:…} and ${job_name:…} in conf/."""
    return folder_name(as_written(overrides))


# The name of a sweep is cached, because its jobs would compute another one from their own overrides.
OmegaConf.register_new_resolver("sweep_name", resolve_name, use_cache=True, replace=True)
OmegaConf.register_new_resolver("job_name", resolve_name, replace=True)
