"""The sweeper `hydra/sweeper=grid`, which Hydra finds in the installed package."""

from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.config_store import ConfigStore

from bptt.sweeps.sweeper import GridSweeper


class Grid(GridSweeper):
    """The sweeper under a name inside `hydra_plugins`: Hydra accepts plugins from no other package."""


@dataclass
class GridConf(BasicSweeperConf):
    _target_: str = f"{Grid.__module__}.{Grid.__name__}"


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridConf, provider="bptt")
