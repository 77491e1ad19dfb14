"""Composition of a sweep's jobs before they are launched."""

from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from bptt.configuration.errors import one_line
from bptt.configuration.unknown_keys import unknown_key


class CheckedJobs:
    """Composes jobs of a sweep, and knows which others compose because of those.

    Whether a job composes depends on the choices of its groups, on its `hydra` settings, and on which keys get values,
    but not on these values, unless they are lists or sections. Composing takes .1 s, so that one job must do for all
    that differ in plain values only, such as seeds.
    """

    def __init__(self, loader: ConfigLoader, sweep: DictConfig):
        self.loader = loader
        self.sweep = sweep
        self.shapes: set[tuple[str, ...]] = set()
        self.is_group: dict[str, bool] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of a job; ValueError if there is none, or if it has a launcher or sweeper of its own."""
        try:
            config = self.loader.load_sweep_config(self.sweep, list(overrides))
        except HydraException as error:
            line = unknown_key(str(error), overrides) or one_line(error)
            raise ValueError(f"job {' '.join(overrides)}: {line}") from error
        check_launch(self.sweep, config, overrides)
        self.shapes.add(self.shape(overrides))
        return config

    def covers(self, overrides: Sequence[str]) -> bool:
        """True if the job differs in plain values only from one that was composed."""
        return self.shape(overrides) in self.shapes

    def shape(self, overrides: Sequence[str]) -> tuple[str, ...]:
        """The overrides without their plain values."""
        return tuple(word.partition("=")[0] if self.is_plain(word) else word for word in overrides)

    def is_plain(self, word: str) -> bool:
        """True if an override gives a number, a text or null to a key that is no group and no setting of Hydra."""
        key, _, value = word.partition("=")
        key = key.lstrip("+~")
        if key.startswith("hydra.") or value.startswith(("[", "{")):
            return False
        group = key.partition("@")[0]
        if group not in self.is_group:
            self.is_group[group] = bool(self.loader.get_group_options(group))
        return not self.is_group[group]


def check_launch(sweep: DictConfig, job: DictConfig, overrides: Sequence[str]) -> None:
    """ValueError if a swept choice sets the launcher or the sweeper, which act before jobs are composed."""
    for part in ("launcher", "sweeper"):
        common, own = (OmegaConf.to_container(each.hydra[part], resolve=False) for each in (sweep, job))
        if common != own:
            line = f"settings of hydra.{part} must not be among the values of a sweep, got job {' '.join(overrides)}"
            raise ValueError(f"{line}; name them on the command line")
