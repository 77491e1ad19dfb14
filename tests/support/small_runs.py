"""Folders of small runs, and changes to them."""

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from bptt.lightning.checkpoint_files import read
from bptt.run_folder import RunFolder
from bptt.runs.training import train


def trained(config: DictConfig, folder: Path) -> Path:
    """The folder of a run that is trained in this process, or goes on."""
    train(config, folder)
    run = RunFolder(folder)
    run.settings.mkdir(exist_ok=True)
    OmegaConf.save(config, run.config)
    return folder


def without_a_copy(run: RunFolder) -> None:
    """Checkpoints as former versions wrote them."""
    for path in run.checkpoints.iterdir():
        content = read(path)
        del content["settings"]
        torch.save(content, path)
