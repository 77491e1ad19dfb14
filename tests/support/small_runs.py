"""Changes to the folders of small runs."""

import torch

from bptt.lightning.checkpoint_files import read
from bptt.run_folder import RunFolder


def without_a_copy(run: RunFolder) -> None:
    """Checkpoints as former versions wrote them."""
    for path in run.checkpoints.iterdir():
        content = read(path)
        del content["settings"]
        torch.save(content, path)
