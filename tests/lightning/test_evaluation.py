"""Scores of a split: chunk by chunk, as if in one piece."""

import pytest
import torch
from support import oracles
from support.fixed_batches import FixedBatches, random_batch
from support.training import KINDS, make_module, make_trainer
from torch import Tensor

from bptt.lightning.data import TaskData
from bptt.lightning.evaluation import CHUNK


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["validation", "test"])
def test_long_masked_batches_score_as_in_one_piece(kind: str, split: str) -> None:
    """Each loss inside the masks counts once, whatever its chunk or batch; one chunk has none at all."""
    length = 2 * CHUNK + 88
    time = torch.arange(length).unsqueeze(1)
    sparse = (torch.rand(length, 2) < 0.1) & ((time < CHUNK) | (time >= 2 * CHUNK))
    single = (time == length - 1).expand(-1, 2)
    batches = [random_batch(length, 2, mask=sparse), random_batch(length, 2, mask=single), random_batch(30, 2)]
    options = {split: batches}
    module = make_module(FixedBatches(**options), kind, num_layers=2)
    trainer = make_trainer()
    action = trainer.validate if split == "validation" else trainer.test
    action(module, datamodule=TaskData(module), verbose=False)
    terms: list[Tensor] = []
    for batch in batches:
        predictions = oracles.run_model(kind, module.model, batch.inputs).predictions
        errors = ((predictions - batch.targets) ** 2).sum(-1)
        terms.append(errors.flatten() if batch.mask is None else errors[batch.mask])
    expected = torch.cat(terms).mean().item()
    assert float(trainer.callback_metrics[f"{split}/loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(trainer.callback_metrics[f"{split}/mse"]) == pytest.approx(expected / 2, rel=1e-5)  # V = 2


def test_dropout_is_off() -> None:
    task = FixedBatches(validation=[random_batch(20, 2)])
    module = make_module(task, "gru", num_layers=2, dropout=0.5)
    trainer = make_trainer()
    trainer.validate(module, datamodule=TaskData(module), verbose=False)
    batch = task.batch("validation", 0)
    expected = oracles.squared_error(
        oracles.run_model("gru", module.model, batch.inputs).predictions, batch.targets, None
    )
    assert float(trainer.callback_metrics["validation/loss"]) == pytest.approx(expected.item(), rel=1e-5)
