"""The classes that the last validation confused, counted and drawn."""

from pathlib import Path

import torch
from support.training import Frozen, fit, make_module, make_trainer

from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.confusion_matrix import ConfusionMatrix
from bptt.lightning.checkpoint_files import newest_checkpoint
from bptt.lightning.data import TaskData
from bptt.tasks.copy_memory import CopyMemory
from bptt.tasks.sequences import Sequences


def test_the_matrix_of_the_last_validation(tmp_path: Path) -> None:
    """Counts of every validation sequence, by a forward pass of its own; the figure lies in the run folder."""
    task = Sequences(**Sequences.example(tmp_path), batch_size=4)
    module = make_module(task, optimizer=Frozen)
    fit(module, callbacks=[ConfusionMatrix()], default_root_dir=tmp_path)
    counts = torch.zeros(3, 3, dtype=torch.long)
    for index in range(task.num_batches("validation")):
        batch = task.batch("validation", index)
        assert batch.mask is not None
        predictions, _, _ = module.model(batch.inputs, module.model.initial_state(4))
        for true, found in zip(batch.targets[batch.mask], predictions[batch.mask].argmax(-1)):
            counts[true, found] += 1
    assert module.evaluation.confusion is not None
    assert torch.equal(module.evaluation.confusion.compute(), counts)
    assert counts.sum() == len(task._members["validation"])
    assert (tmp_path / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")


def test_tasks_without_names_of_classes_have_none(tmp_path: Path) -> None:
    task = CopyMemory(delay=3, batch_size=2, train_batches=1, validation_batches=1, test_batches=1, seed=1)
    module = make_module(task)
    fit(module, callbacks=[ConfusionMatrix()], default_root_dir=tmp_path)
    assert module.evaluation.confusion is None
    assert not list(tmp_path.glob("*.png"))


def test_a_run_that_was_killed_before_its_end_draws_it_when_resumed(tmp_path: Path) -> None:
    task = Sequences(**Sequences.example(tmp_path), batch_size=4)
    for _ in range(2):
        checkpoint, _ = newest_checkpoint(tmp_path)
        trainer = make_trainer(callbacks=[Checkpoint(), ConfusionMatrix()], default_root_dir=tmp_path)
        module = make_module(task, optimizer=Frozen)
        trainer.fit(module, datamodule=TaskData(module), ckpt_path=checkpoint, weights_only=True)
        (tmp_path / "confusion_matrix.png").unlink()  # raises without it
    assert checkpoint is not None
