"""Train a recurrent network: python scripts/train.py task=… model=… estimator=…"""

import os
from pathlib import Path

import hydra
from composition import build_module, build_trainer, plain_errors
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `plain_errors`, instead of being printed by Hydra


def train(config: DictConfig, folder: Path) -> dict[str, float]:
    """Train what a configuration names; everything that is written lies in `folder`. Returns the last metrics."""
    from lightning.pytorch.loggers import TensorBoardLogger

    from bptt.lightning.data import TaskData

    module = build_module(config)
    trainer = build_trainer(config, folder)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            logger.experiment.add_text("configuration", f"```yaml\n{OmegaConf.to_yaml(config, resolve=True)}```")
    trainer.fit(module, datamodule=TaskData(module.task))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@hydra.main(config_path="../conf", config_name="train", version_base=None)
def main(config: DictConfig) -> None:
    train(config, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    with plain_errors():
        main()
