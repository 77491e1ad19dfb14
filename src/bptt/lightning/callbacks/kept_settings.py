"""A run's configuration in its checkpoints."""

from typing import Any

from lightning import LightningModule, Trainer

from bptt.lightning.callbacks.base import TrainingCallback

KEY = "settings"  # its entry in a checkpoint


class KeptSettings(TrainingCallback):
    """Writes the run's configuration into every checkpoint, in case its own files are lost or torn.

    settings: `config`, the composed configuration in YAML, and `overrides`, the words of the command line.
    """

    def __init__(self, settings: dict[str, Any]):
        self.settings = settings

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = self.settings
