"""Train a recurrent network: python scripts/train.py task=… model=… estimator=…"""

import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import bptt.configuration.interruption  # noqa: F401  # first: for Ctrl-C while the rest is imported

# isort: split
import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from bptt.configuration.command_line import check_words, prints_only
from bptt.configuration.errors import plain_errors
from bptt.lightning.stop_signals import SIGNALS, keep_for_training, leaving_is_a_failure
from bptt.lightning.terminal import lasting_output
from bptt.runs.hydra_files import save_settings
from bptt.runs.resumed_command import absolute_paths, resumed_arguments
from bptt.runs.training import train
from bptt.sweeps.names import as_written
from bptt.sweeps.run_job import run_job

if TYPE_CHECKING:
    from lightning import Trainer

os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `plain_errors`, instead of being printed by Hydra


@hydra.main(config_path="../conf", config_name="train", version_base=None)
def main(config: DictConfig) -> float | None:
    """Train one run. A job of a sweep returns the best of the monitored metric, which a sweeper may optimise."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_job(config, train)
    folder = Path(HydraConfig.get().runtime.output_dir)
    overrides = as_written(HydraConfig.get().overrides.task)

    def begin(trainer: "Trainer") -> None:
        if trainer.is_global_zero:
            save_settings(config, folder, overrides=overrides)

    with plain_errors(), leaving_is_a_failure():  # here, because Hydra would put a line of its own before the error's
        train(config, folder, begin=begin, overrides=overrides)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # all is done and said
    return None


if __name__ == "__main__":
    keep_for_training(signal.SIGUSR1)
    with plain_errors():
        check_words(sys.argv[1:])
        sys.argv[1:] = resumed_arguments(absolute_paths(sys.argv[1:]))
        with lasting_output() if prints_only(sys.argv[1:]) else nullcontext():
            main()
