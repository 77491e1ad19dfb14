"""A checkpoint that an earlier version wrote loads today, or is refused by the numbers of both formats.

Of each format one file is kept: `python tests/lightning/test_former_checkpoint.py FOLDER` writes that of the present.
"""

import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import Trainer

from bptt.estimators import Randomized
from bptt.layers import GRU
from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.divergence import Divergence
from bptt.lightning.callbacks.gradient_flow import GradientFlow
from bptt.lightning.callbacks.summary import RunSummary
from bptt.lightning.checkpoint_content import FORMAT
from bptt.lightning.checkpoint_files import newest_checkpoint, read
from bptt.lightning.data import TaskData
from bptt.lightning.learning_rates import decay_after
from bptt.lightning.module import BPTTModule, LearningRateSchedule
from bptt.model import SequenceModel
from bptt.run_folder import RunFolder
from bptt.tasks.lag_bits import LagBits

KEPT = sorted((Path(__file__).parent / "data").glob("format_*.ckpt"))


def train(folder: Path, *, epochs: int) -> BPTTModule:
    """Three batches an epoch, from the newest checkpoint in the folder if there is one."""
    torch.manual_seed(1)
    task = LagBits(length=12, batch_size=2, seed=1, train_batches=3, validation_batches=1, test_batches=1)
    module = BPTTModule(
        task=task,
        model=SequenceModel(GRU, input_size=2, output_size=2, hidden_size=3),
        estimator=Randomized(4, block=2),
        optimizer=partial(torch.optim.Adam, lr=0.01),
        schedule=LearningRateSchedule(partial(decay_after, factor=0.9, start=1)),
    )
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[Divergence(), RunSummary(), GradientFlow(every_n_updates=5), Checkpoint()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=TaskData(module), ckpt_path=newest_checkpoint(folder)[0], weights_only=True)
    return module


def test_the_present_format_is_kept() -> None:
    assert f"format_{FORMAT}.ckpt" in {path.name for path in KEPT}


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.stem)
def test_a_former_checkpoint(kept: Path, tmp_path: Path) -> None:
    number = int(kept.stem.removeprefix("format_"))
    if number != FORMAT:
        with pytest.raises(ValueError, match=rf"must be of format {FORMAT}, got .* of format {number}; train again"):
            read(kept)
        return
    before = read(kept)
    RunFolder(tmp_path).checkpoints.mkdir()
    shutil.copy(kept, RunFolder(tmp_path).checkpoints / "last.ckpt")
    module = train(tmp_path, epochs=2)
    assert before["bptt"]["counters"]["batches"] == 3
    assert module.counters.batches == 6
    assert module.counters.timesteps == 2 * before["bptt"]["counters"]["timesteps"] == 6 * 12 * 2
    for name, weight in module.state_dict().items():
        assert weight.isfinite().all()
        assert not torch.equal(weight, before["state_dict"][name])
        # Near to where it was: one step of Adam moves a weight by about its learning rate of 0.01.
        torch.testing.assert_close(weight, before["state_dict"][name], rtol=0, atol=0.01 * module.counters.updates)


def test_another_format_is_refused_with_both_numbers(tmp_path: Path) -> None:
    """A run without another checkpoint prints this and starts again."""
    content = torch.load(KEPT[0], weights_only=True)
    content["bptt"]["format"] = 999
    path = RunFolder(tmp_path).checkpoints / "last.ckpt"
    path.parent.mkdir()
    torch.save(content, path)
    found, faults = newest_checkpoint(tmp_path)
    assert found is None
    assert faults == [f"a checkpoint must be of format {FORMAT}, got {path} of format 999; train again"]


if __name__ == "__main__":
    train(Path(sys.argv[1]), epochs=1)
    shutil.copy(RunFolder(Path(sys.argv[1])).checkpoints / "last.ckpt", Path(sys.argv[1]) / f"format_{FORMAT}.ckpt")
