"""The plugin that Hydra finds once the package is installed: `hydra/sweeper=grid`."""

from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.config_store import ConfigStore

from bptt.sweeps.sweeper import GridSweeper


class Grid(GridSweeper):
    """The sweeper under a name inside `hydra_plugins`, the only place where Hydra accepts plugins."""


@dataclass
class GridConf(BasicSweeperConf):
    _target_: str = f"{Grid.__module__}.{Grid.__name__}"


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridConf, provider="bptt")
