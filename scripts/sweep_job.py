"""One job of a sweep, in whatever process a launcher runs it."""

import ctypes
import gc
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composition import FAULTS, is_first_process, one_line
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from resumption import check_configuration, save_settings
from sweep_manifest import Manifest, files_digest, identity, state
from sweep_names import as_written

from bptt.contracts import refusal

if TYPE_CHECKING:
    from lightning import Trainer


def run_job(config: DictConfig, train: Callable[..., Any]) -> float | None:
    """Train what a job of a sweep names, unless it is done, or go on where it was interrupted or had failed.

    The manifest gets a line when it begins and one when it ends. A job that fails has its traceback in its log; one
    that is refused leaves no folder. Returns the best of the monitored metric.
    """
    from bptt.lightning.checkpoint import best_metric

    hydra = HydraConfig.get()
    if "joblib" in hydra.launcher._target_:
        stop_with_parent()
    folder = Path(hydra.runtime.output_dir)
    manifest = Manifest(Path(hydra.sweep.dir))
    words = as_written(hydra.overrides.task)
    about = {"overrides": words, "identity": identity(words, files=files_digest(hydra))}
    name = os.path.relpath(folder, manifest.sweep)
    log = folder / f"{hydra.job.name}.log"
    began = time.monotonic()

    def record(state: str, **results: Any) -> None:
        if is_first_process():
            manifest.add(name, **about, state=state, **results)

    def begin(trainer: "Trainer") -> None:
        if trainer.world_size > 1 and "submitit" not in hydra.launcher._target_:
            sys.exit(f"error: {refusal('trainer.devices', '1 in a sweep', trainer.world_size, SEVERAL)}")
        if trainer.is_global_zero:
            save_settings(config, folder, words=words)
            record("running")

    if config.sweep.fail_fast and manifest.failed_in_this_launch():
        leave_nothing(folder, log)
        return None
    try:
        if is_first_process() and check_configuration(config, folder) and state(folder, None) == "done":
            return best_metric(folder)
        with own_settings():
            train(OmegaConf.merge(config, {"resume": "auto"}), folder, begin=begin)
    except Exception as error:
        line = one_line(error) if isinstance(error, FAULTS) else f"{type(error).__name__}: {one_line(error)}"
        record("failed", error=line, wall_seconds=round(time.monotonic() - began, 3))
        print(f"failed: {name}: {line}", file=sys.stderr)
        with log.open("a") as file:
            traceback.print_exc(file=file)
        leave_nothing(folder, log)
        raise
    except BaseException:
        if (folder / ".hydra").exists():
            record("interrupted", wall_seconds=round(time.monotonic() - began, 3))
        leave_nothing(folder, log)
        raise
    objective = best_metric(folder)
    record("done", wall_seconds=round(time.monotonic() - began, 3), objective=objective)
    return objective


def stop_with_parent() -> None:
    """Have this process asked to stop once the one that started it is gone; SIGKILL leaves that no time to say so."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


PR_SET_PDEATHSIG = 1
SEVERAL = "use hydra/launcher=slurm, which gives every job its own processes, or torchrun for one run at a time"


def leave_nothing(folder: Path, log: Path) -> None:
    """Remove the folder of a job that was never begun."""
    if set(folder.iterdir()) <= {log}:
        shutil.rmtree(folder)


@contextmanager
def own_settings() -> Iterator[None]:
    """What a job changes for its whole process is put back, and what it needed is given free."""
    import torch

    environment = dict(os.environ)
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    deterministic, precision = torch.get_deterministic_debug_mode(), torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_deterministic_debug_mode(deterministic)
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
        gc.unfreeze()  # where training was cut off
        gc.collect()
