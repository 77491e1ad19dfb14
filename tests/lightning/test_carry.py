"""State between batches: carried for sequences that continue, initial for others, separate in validation."""

from typing import Any

import pytest
import torch
from support import oracles
from support.fixed_batches import FixedBatches, random_batch
from support.training import KINDS, Frozen, Steps, fit, losses, make_module, stream
from torch import Tensor

from bptt.estimators import Chunked, Full, Sliding
from bptt.shapes import leaves
from bptt.tasks import Batch

kinds = pytest.mark.parametrize("kind", KINDS)


def joined(batches: list[Batch]) -> Batch:
    """One long batch."""
    return Batch(torch.cat([batch.inputs for batch in batches]), torch.cat([batch.targets for batch in batches]))


@kinds
def test_stream_of_two_batches_equals_one_long_batch(kind: str) -> None:
    task = stream([8, 8])
    module = make_module(task, kind, num_layers=2)
    torch.manual_seed(3)
    whole = make_module(FixedBatches([joined(list(task.batches["train"]))]), kind, num_layers=2)
    whole.model.load_state_dict(module.model.state_dict())
    fit(module, limit_val_batches=0)
    fit(whole, limit_val_batches=0)
    assert losses(module) == losses(whole)
    assert len(losses(module)) == 4
    for name, value in module.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name])


def carried(kind: str, resets: list[Tensor | None]) -> tuple[list[Tensor], Any, list[Batch]]:
    """The states kept after batches of two sequences with the given resets, at weights that do not move."""
    batches = [random_batch(5, 2, reset=reset) for reset in resets]
    module = make_module(FixedBatches(batches), kind, num_layers=2, optimizer=Frozen)
    fit(module, limit_val_batches=0)
    assert module.carry.state is not None
    return leaves(module.carry.state), module, batches


@kinds
def test_reset_affects_only_its_sequences(kind: str) -> None:
    first, second = torch.tensor([True, True]), torch.tensor([False, True])
    got, module, batches = carried(kind, [first, second])
    for sequence, inputs in enumerate([joined(batches).inputs[:, :1], batches[1].inputs[:, 1:]]):
        final = oracles.run_model(kind, module.model, inputs).final
        expected = [leaf[0].detach() for layer in final for leaf in layer]
        torch.testing.assert_close([leaf[sequence] for leaf in got], expected, rtol=1e-5, atol=1e-6)


@kinds
@pytest.mark.parametrize("first", [None, torch.tensor([True, True])])
def test_without_resets_every_batch_starts_from_the_initial_state(kind: str, first: Tensor | None) -> None:
    got, module, batches = carried(kind, [first, None])
    final = oracles.run_model(kind, module.model, batches[1].inputs).final
    torch.testing.assert_close(got, [leaf.detach() for layer in final for leaf in layer], rtol=1e-5, atol=1e-6)


def test_a_stream_restarts_in_epochs_that_reset_it() -> None:
    module = make_module(stream([5, 5]), optimizer=Frozen)
    fit(module, max_epochs=2, limit_val_batches=0)
    once = losses(module)[: len(losses(module)) // 2]
    assert losses(module) == once * 2


@pytest.mark.parametrize(("estimator", "count"), [(Chunked(8), 1), (Full(3), 1), (Sliding(1, 5), 5)])
def test_learnt_initial_state_learns_from_sequences_that_begin(estimator: Any, count: int) -> None:
    """In the second batch one sequence continues, detached. Only the other's gradient reaches the parameter.

    All windows begin where the batch does, so the mean over the batch's `count` updates is the full gradient.
    """
    resets = [torch.tensor([True, True]), torch.tensor([False, True])]
    batches = [random_batch(5, 2, reset=reset) for reset in resets]
    module = make_module(FixedBatches(batches), "gru", learnt=True, estimator=estimator, optimizer=Frozen)
    steps = Steps()
    fit(module, callbacks=[steps], limit_val_batches=0)
    kept = oracles.run_model("gru", module.model, batches[0].inputs).final
    learnt = module.model.get_parameter("initial.0")
    start = torch.cat([kept[0][0][:1].detach(), learnt])
    unrolled = oracles.run_model("gru", module.model, batches[1].inputs, [(start,)])
    error = oracles.squared_error(unrolled.predictions, batches[1].targets, None)
    expected = oracles.gradients(error, module.model)
    second = steps.gradients[count:]
    assert len(second) == count
    mean = {name: torch.stack([each[name] for each in second]).mean(0) for name in expected}
    assert oracles.relative_error(mean, expected) < 1e-5
    assert expected["initial.0"].abs().max() > 1e-3


def test_carry_is_no_part_of_the_weights() -> None:
    module = make_module(stream([5]))
    names = set(module.state_dict())
    fit(module, limit_val_batches=0)
    assert set(module.state_dict()) == names
    assert {name for name in names if not name.startswith("evaluation.")} == {
        f"model.{name}" for name, _ in module.model.named_parameters()
    }
    assert module.carry.state is not None
    assert not any(leaf.requires_grad for leaf in leaves(module.carry.state))


@kinds
def test_validation_does_not_change_training(kind: str) -> None:
    """Sequences go on over a validation after every batch, and dropout draws the same."""
    task = stream([6, 6, 6])
    task.batches["validation"] = stream([5, 5]).batches["train"]
    module = make_module(task, kind, num_layers=2, dropout=0.4)
    weights = {name: value.clone() for name, value in module.model.state_dict().items()}
    torch.manual_seed(5)
    fit(module, limit_val_batches=0, max_epochs=2)
    alone = losses(module)
    watched = make_module(task, kind, num_layers=2, dropout=0.4)
    watched.model.load_state_dict(weights)
    torch.manual_seed(5)
    trainer = fit(watched, val_check_interval=1, num_sanity_val_steps=2, max_epochs=2)
    assert "validation/loss" in trainer.callback_metrics
    assert losses(watched) == alone


@kinds
def test_validation_carries_its_own_state_from_the_initial_one(kind: str) -> None:
    """Two batches of a stream score like the long one, at the first validation as at the next.

    Even where the stream does not say itself that it begins, nothing is left from the validation before.
    """
    parts = [random_batch(5, 3, reset=torch.tensor([False] * 3)) for _ in range(2)]
    task = stream([6, 6])
    task.batches["validation"] = parts
    module = make_module(task, kind, num_layers=2, optimizer=Frozen)
    trainer = fit(module, val_check_interval=1, max_epochs=2)
    whole = joined(parts)
    predictions = oracles.run_model(kind, module.model, whole.inputs).predictions
    expected = oracles.squared_error(predictions, whole.targets, None)
    assert float(trainer.callback_metrics["validation/loss"]) == pytest.approx(expected.item(), rel=1e-5)
