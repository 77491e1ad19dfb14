"""A callback that tells on how many threads a job computes."""

from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer


class Threads(Callback):
    """Writes their number into the run folder."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (Path(trainer.default_root_dir) / "threads").write_text(str(torch.get_num_threads()))
