"""The plugin that Hydra finds once the package is installed: `hydra/sweeper=grid`."""

from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.config_store import ConfigStore

from bptt.sweeps.sweeper import GridSweeper

__all__ = ["GridSweeper"]


@dataclass
class GridSweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.bptt_grid.GridSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="bptt")
