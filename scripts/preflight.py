"""What is looked at before a run or a sweep begins."""

from pathlib import Path
from typing import Any

from composition import build_module, build_trainer, check_limits, is_first_process, plain_errors
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from resumption import check_run_folder, new_folder
from sweep_manifest import LAUNCH, Manifest

from bptt.contracts import one_of, true_or_false


class Preflight(Callback):
    """Builds everything once before Hydra makes the run folder, so that a bad configuration leaves nothing behind.

    A run, and each job of a sweep, writes its `.hydra` itself, once nothing is refused and its folder is locked.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with plain_errors():
            HydraConfig.instance().set_config(config)
            folder = Path(config.hydra.run.dir)
            own = config.copy()
            with open_dict(own):
                del own["hydra"]
            one_of((False,), **{"sweep.dry_run": own.sweep.dry_run}, remedy="or say -m, for a sweep")
            if config.hydra.sweeper.params and own.resume is None:  # which a job that is resumed by itself names, too
                raise ValueError("a sweep's values must be launched together, got +sweep without -m; say -m")
            if is_first_process():
                check_run_folder(own, folder)
            module = build_module(own)
            build_trainer(own, folder)
            check_limits(own, module.task)
            with read_write(config.hydra):
                config.hydra.output_subdir = None
                named = any(word.startswith("hydra.run.dir=") for word in config.hydra.overrides.hydra)
                if is_first_process() and own.resume is None and not named:
                    config.hydra.run.dir = str(new_folder(folder))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        with read_write(config.hydra):
            config.hydra.overrides.hydra.append("hydra.output_subdir=null")
        with plain_errors():
            true_or_false(**{f"sweep.{key}": config.sweep[key] for key in ("dry_run", "fail_fast")})
        if config.hydra.sweeper._target_ != "hydra_plugins.grid.Grid":  # which says by itself what it launches
            HydraConfig.instance().set_config(config)
            with plain_errors():
                one_of((False,), **{"sweep.dry_run": config.sweep.dry_run}, remedy="its jobs follow from one another")
            sweep = Path(config.hydra.sweep.dir)
            sweep.mkdir(parents=True, exist_ok=True)
            Manifest(sweep).add(LAUNCH)
