"""Checks before a run or a sweep starts."""

import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from bptt.configuration.build import is_first_process
from bptt.configuration.errors import plain_errors
from bptt.configuration.paths import check_folder, with_absolute_paths
from bptt.contracts import at_least, one_of, refusal, true_or_false
from bptt.lightning.stop_signals import leaving_is_a_failure
from bptt.parent_process import announce_parent
from bptt.run_folder import RunFolder
from bptt.runs.resumption import check_log_name, check_run_folder, new_folder
from bptt.runs.training import preflight
from bptt.sweeps.local_workers import runs_in_workers
from bptt.sweeps.manifest import LAUNCH, Manifest
from bptt.sweeps.study import check_direction, go_on, let_grid_fail

GRID = "hydra_plugins.bptt_grid.Grid"


@contextmanager
def fatal_errors() -> Iterator[None]:
    """`plain_errors`, and an end with the traceback at other exceptions, of which Hydra only warns in a callback."""
    try:
        with plain_errors():
            yield
    except Exception:
        traceback.print_exc()
        sys.exit(1)


class Preflight(Callback):
    """Builds the run before Hydra creates its folder, so that a refused configuration leaves no files.

    Training uses the module that was built here. Runs and jobs write their `.hydra` themselves, after their folder is
    locked.
    """

    def __init__(self) -> None:
        self.locks = ExitStack()  # the lock of a sweep's folder, unless the grid sweeper takes it itself

    def __getstate__(self) -> dict[str, Any]:
        return {"locks": ExitStack()}  # a job in another process does not hold the lock

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with fatal_errors():
            HydraConfig.instance().set_config(config)
            check_folder("hydra.run.dir", config.hydra.run.dir)
            check_log_name(config.hydra.job.name)
            folder = Path(config.hydra.run.dir)
            with read_write(config):
                absolute = with_absolute_paths(config, Path.cwd())
                config.task, config.model = absolute.task, absolute.model
            run_config = config.copy()
            with open_dict(run_config):
                del run_config["hydra"]
            one_of((False,), **{"sweep.dry_run": run_config.sweep.dry_run}, remedy="or say -m, for a sweep")
            if (
                config.hydra.sweeper.params and run_config.resume is None
            ):  # a sweep's job that is resumed alone also has params
                raise ValueError("a sweep's values must be launched together, got +sweep without -m; say -m")
            by_user = any(word.startswith("hydra.run.dir=") for word in config.hydra.overrides.hydra)
            chosen = by_user or run_config.resume is not None
            if is_first_process():
                check_run_folder(run_config, folder, chosen=chosen)
            with leaving_is_a_failure():
                preflight(run_config, folder)
            with read_write(config.hydra):
                config.hydra.output_subdir = None
                if is_first_process() and not chosen:
                    config.hydra.run.dir = str(new_folder(folder))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        with read_write(config.hydra):
            config.hydra.overrides.hydra.append("hydra.output_subdir=null")
        with fatal_errors():
            check_folder("hydra.sweep.dir", config.hydra.sweep.dir)
            check_log_name(config.hydra.job.name)
            if RunFolder(Path(config.hydra.sweep.dir)).holds_a_run:  # comparisons look for no runs inside a run
                wanted = "a folder that holds no run itself"
                raise ValueError(refusal("hydra.sweep.dir", wanted, str(config.hydra.sweep.dir), "name another"))
            true_or_false(**{f"sweep.{key}": config.sweep[key] for key in ("dry_run", "fail_fast")})
            if config.hydra.launcher._target_.lower().endswith(("slurm", "slurmlauncher")):
                name = str(config.hydra.sweep.dir)
                if "%" in name:
                    raise ValueError(refusal("hydra.sweep.dir", "without %, by which Slurm means a job's number", name))
                if shutil.which("sbatch") is None:
                    wanted = "one that this machine has"
                    raise ValueError(refusal("hydra/launcher", wanted, "slurm", "sbatch is missing"))
        if runs_in_workers(config.hydra.launcher):
            announce_parent()
            # joblib's tracker of resources would warn of what it clears when the sweep is killed.
            filters = [os.environ.get("PYTHONWARNINGS", ""), "ignore:resource_tracker:UserWarning"]
            os.environ["PYTHONWARNINGS"] = ",".join(filter(None, filters))
        if config.hydra.sweeper._target_ != GRID:  # the grid sweeper records its launches itself
            HydraConfig.instance().set_config(config)
            with fatal_errors():
                plain = config.hydra.sweeper._target_.endswith("BasicSweeper")
                remedy = "say sweeper=grid" if plain else "its jobs follow from one another"
                one_of((False,), **{"sweep.dry_run": config.sweep.dry_run}, remedy=remedy)
                if config.hydra.sweeper._target_.endswith("OptunaSweeper"):
                    at_least(1, **{"hydra.sweeper.n_trials": config.hydra.sweeper.n_trials})
                    check_direction(config)
                sweep = Path(config.hydra.sweep.dir).absolute()
                sweep.mkdir(parents=True, exist_ok=True)
                self.locks.enter_context(RunFolder(sweep).locked(key="hydra.sweep.dir"))
                manifest = Manifest(sweep)
                manifest.add(LAUNCH)
                if config.hydra.sweeper._target_.endswith("OptunaSweeper"):
                    with read_write(config.hydra.sweeper):
                        go_on(config.hydra.sweeper, manifest)
                        let_grid_fail(config.hydra.sweeper)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        self.locks.close()
