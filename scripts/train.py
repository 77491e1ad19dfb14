"""Train a recurrent network: python scripts/train.py task=… model=… estimator=…"""

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import hydra
from choices import hyperparameters, resolved
from composition import build_module, build_trainer, plain_errors
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from resumption import locked, resumed_words

os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `plain_errors`, instead of being printed by Hydra


def train(config: DictConfig, folder: Path) -> dict[str, float]:
    """Train what a configuration names; everything that is written lies in `folder`. Returns the last metrics."""
    from bptt.lightning.callbacks.hyperparameters import Hyperparameters
    from bptt.lightning.checkpoint import newest_checkpoint
    from bptt.lightning.data import TaskData
    from bptt.lightning.processes import all_alive
    from bptt.lightning.tensorboard import forget_after, writers

    module = build_module(config)
    trainer = build_trainer(config, folder, callbacks=[Hyperparameters(hyperparameters(resolved(config)))])
    with locked(folder) if trainer.is_global_zero else nullcontext():
        checkpoint, faults = newest_checkpoint(folder) if config.resume == "auto" else (None, [])
        for fault in faults:
            print(f"passed over: {fault}", file=sys.stderr)
        for writer in writers(trainer) if checkpoint is None else []:
            forget_after(writer, -1)  # what an attempt without a checkpoint may have left
            writer.add_text("configuration", f"```yaml\n{OmegaConf.to_yaml(config, resolve=True)}```")
        with all_alive():
            trainer.fit(module, datamodule=TaskData(module), ckpt_path=checkpoint, weights_only=True)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@hydra.main(config_path="../conf", config_name="train", version_base=None)
def main(config: DictConfig) -> None:
    hydra_config = HydraConfig.get()
    # A sweep goes on with its other jobs. For a run alone, Hydra would put a line of its own before the error's.
    with plain_errors() if hydra_config.mode == RunMode.RUN else nullcontext():
        train(config, Path(hydra_config.runtime.output_dir))


if __name__ == "__main__":
    with plain_errors():
        sys.argv[1:] = resumed_words(sys.argv[1:])
        main()
