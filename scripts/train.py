"""Train a recurrent network: python scripts/train.py task=… model=… estimator=…"""

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from choices import hyperparameters, resolved
from composition import build_module, build_trainer, check_limits, plain_errors
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from resumption import check_length, locked, resumed_words, save_settings
from sweep_job import run_job

if TYPE_CHECKING:
    from lightning import Trainer

os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `plain_errors`, instead of being printed by Hydra


def train(config: DictConfig, folder: Path, *, begin: Callable[["Trainer"], None] = lambda _: None) -> dict[str, float]:
    """Train what a configuration names; everything that is written lies in `folder`. Returns the last metrics.

    begin: called once nothing is refused any more and the folder is this run's alone.
    """
    from bptt.lightning.callbacks.hyperparameters import Hyperparameters
    from bptt.lightning.checkpoint import check_fits, newest_checkpoint, read
    from bptt.lightning.data import TaskData
    from bptt.lightning.loggers import forget_after, writers
    from bptt.lightning.processes import all_alive
    from bptt.run_folder import RunFolder

    module = build_module(config)
    trainer = build_trainer(config, folder, callbacks=[Hyperparameters(hyperparameters(resolved(config)))])
    check_limits(config, module.task)
    with locked(folder) if trainer.is_global_zero else nullcontext():
        checkpoint, faults = newest_checkpoint(folder) if config.resume == "auto" else (None, [])
        if checkpoint is not None:
            content = read(checkpoint)
            check_length(config, epochs=content["epoch"])
            check_fits(module, content, checkpoint)
        elif faults:
            raise ValueError(f"{faults[0]}; move {RunFolder(folder).checkpoints} away to begin the run anew")
        begin(trainer)
        for fault in faults:
            print(f"passed over: {fault}", file=sys.stderr)
        if checkpoint is None:
            forget_after(trainer, -1)  # what an attempt without a checkpoint may have left
        for writer in writers(trainer) if checkpoint is None else []:
            writer.add_text("configuration", f"```yaml\n{OmegaConf.to_yaml(config, resolve=True)}```")
        with all_alive():
            trainer.fit(module, datamodule=TaskData(module), ckpt_path=checkpoint, weights_only=True)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@hydra.main(config_path="../conf", config_name="train", version_base=None)
def main(config: DictConfig) -> float | None:
    """A job of a sweep returns what a sweeper is to make small or large: the best of the monitored metric."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_job(config, train)
    folder = Path(HydraConfig.get().runtime.output_dir)

    def begin(trainer: "Trainer") -> None:
        if trainer.is_global_zero:
            save_settings(config, folder, words=HydraConfig.get().overrides.task)

    with plain_errors():  # Hydra would put a line of its own before the error's
        train(config, folder, begin=begin)
    return None


if __name__ == "__main__":
    with plain_errors():
        sys.argv[1:] = resumed_words(sys.argv[1:])
        main()
