"""The module trains like the textbook's loop, to the bit."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from support import oracles
from support.fixed_batches import FixedBatches, random_batch
from support.training import KINDS, Recorder, Steps, Textbook, fit, losses, make_module, stream
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from bptt.chunk_size import measure_training
from bptt.estimator_comparison.training import BatchTraining
from bptt.estimators import Chunked, Full, Update
from bptt.lightning.clipping import Clipping
from bptt.model import SequenceModel
from bptt.shapes import detach, map_state

CLIPPINGS: dict[str, tuple[Clipping, Any]] = {
    "none": (Clipping(), lambda parameters: None),
    "norm": (Clipping("norm", 0.3), partial(clip_grad_norm_, max_norm=0.3)),
    "value": (Clipping("value", 0.05), partial(clip_grad_value_, clip_value=0.05)),
}
WORD: Any = "l1"
STOCK = [kind for kind in KINDS if kind not in ("lru", "mingru")]  # run by torch's kernels, or beside them
OPTIMIZERS: dict[str, Any] = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=0.01),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01, alpha=0.95),
}


@pytest.mark.parametrize("kind", STOCK)
@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_losses_and_weights_are_the_textbooks(kind: str, clipping: str, optimizer: str) -> None:
    """Two epochs of three batches with carried state, ragged chunks, two layers, float64.

    Equal but for rounding: layers run in loops of their own or in kernels, and optimizers in fused kernels,
    which add in another order.
    """
    task = stream([10, 10, 7])
    ours, theirs = CLIPPINGS[clipping]
    module = make_module(task, kind, num_layers=2, optimizer=OPTIMIZERS[optimizer], clipping=ours)
    textbook = Textbook(module.model.double())
    batches = [task.batch("train", index).to("cpu") for index in range(3)] * 2
    for batch in batches[:3]:
        assert batch.inputs.dtype == torch.float32  # the trainer makes them float64
    doubled = [type(batch)(batch.inputs.double(), batch.targets.double(), None, batch.reset) for batch in batches]
    expected = textbook.train(doubled, 4, OPTIMIZERS[optimizer], theirs)
    fit(module, max_epochs=2, precision="64-true", limit_val_batches=0)
    tolerance = 1e-11
    assert losses(module) == pytest.approx(expected, rel=tolerance, abs=0)
    assert len(expected) == 2 * (3 + 3 + 2)
    torch.testing.assert_close(
        [value.detach() for value in module.model.parameters()], textbook.weights(), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("kind", STOCK)
def test_losses_are_the_textbooks_in_single_precision(kind: str) -> None:
    """float32 is what users train in."""
    task = stream([10, 10, 7])
    module = make_module(task, kind, num_layers=2, clipping=Clipping("norm", 0.3))
    textbook = Textbook(module.model)
    expected = textbook.train(task.batches["train"], 4, OPTIMIZERS["adam"], CLIPPINGS["norm"][1])
    module.make_optimizer = OPTIMIZERS["adam"]
    fit(module, limit_val_batches=0)
    tolerance = 1e-5
    assert losses(module) == pytest.approx(expected, rel=tolerance, abs=0)
    torch.testing.assert_close(
        [value.detach() for value in module.model.parameters()], textbook.weights(), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(("algorithm", "limit"), [("none", 1.0), ("norm", 0.1), ("norm", 1e6), ("value", 0.02)])
def test_step_is_taken_with_the_clipped_gradient_and_callbacks_see_the_unclipped(algorithm: Any, limit: float) -> None:
    """Norm: g · min(1, max/‖g‖) over all gradients together. Value: each entry into [−max, max]."""
    task = FixedBatches([random_batch(6, 3)])
    module = make_module(
        task,
        "lstm",
        estimator=Full(2),
        optimizer=partial(torch.optim.SGD, lr=1.0),
        clipping=Clipping(algorithm, limit),
    )
    before = {name: value.detach().clone() for name, value in module.model.named_parameters()}
    batch = task.batch("train", 0)
    predictions = oracles.run_model("lstm", module.model, batch.inputs).predictions
    gradient = oracles.gradients(oracles.squared_error(predictions, batch.targets, None), module.model)
    norm = torch.cat([value.flatten() for value in gradient.values()]).norm()
    clipped = {
        "none": lambda g: g,
        "norm": lambda g: g * min(1.0, limit / float(norm)),
        "value": lambda g: g.clamp(-limit, limit),
    }[algorithm]
    steps = Steps()
    fit(module, callbacks=[steps], limit_val_batches=0)
    (seen,) = steps.gradients
    for name, value in module.model.named_parameters():
        torch.testing.assert_close(before[name] - value.detach(), clipped(gradient[name]), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(seen[name], gradient[name], rtol=1e-4, atol=1e-7)


def test_callbacks_find_the_update_that_is_about_to_be_made() -> None:
    module, steps = make_module(stream([10, 6])), Steps()
    fit(module, callbacks=[steps], limit_val_batches=0)
    extents = [(update.start, update.stop) for update in steps.current_update if update is not None]
    assert extents == [(0, 4), (4, 8), (8, 10), (0, 4), (4, 6)]


@pytest.mark.parametrize("estimator", [Chunked(3), Chunked(3, update="sequence"), Full(3)])
def test_batch_without_loss_steps_nothing(estimator: Any) -> None:
    """Momentum would move the weights at a step without gradient; weight decay too."""
    empty = torch.zeros(7, 2, dtype=torch.bool)
    module = make_module(
        FixedBatches([random_batch(7, 2, mask=empty)]),
        estimator=estimator,
        optimizer=partial(torch.optim.SGD, lr=0.1, weight_decay=0.1),
    )
    before = [value.detach().clone() for value in module.model.parameters()]
    steps = Steps()
    fit(module, callbacks=[steps], limit_val_batches=0)
    assert all(map(torch.equal, before, [value.detach() for value in module.model.parameters()]))
    assert steps.rates == []
    assert (module.counters.updates, module.counters.batches, module.counters.timesteps) == (0, 1, 14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clipping": Clipping("norm", 0.0)}, r"max must be a number in \(0, inf\), got 0.0"),
        ({"clipping": Clipping("value", -1.0)}, r"max must be a number in \(0, inf\), got -1.0"),
        ({"clipping": Clipping(WORD)}, "algorithm must be norm or value or none, got 'l1'"),
    ],
)
def test_bad_clipping_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_module(stream([4]), **options)


@pytest.mark.parametrize("update", ["chunk", "sequence"])
def test_losses_summed_over_time(update: Any) -> None:
    """The gradient is that of Σ_t loss_t / B over the update's timesteps; clipping sees it, logged losses are means."""
    torch.manual_seed(3)
    mask = torch.rand(7, 3) < 0.7
    batch, steps = random_batch(7, 3, mask=mask), Steps()
    task = FixedBatches([batch])
    task.reduction = "sum_over_time"
    frozen = partial(torch.optim.SGD, lr=0.0)
    module = make_module(task, "lstm", estimator=Chunked(4, update=update), optimizer=frozen)
    twin = copy.deepcopy(module.model).double()
    fit(module, callbacks=[steps], precision="64-true", limit_val_batches=0)
    state, expected = twin.initial_state(3), []
    for start in (0, 4):
        predictions, state, _ = twin(batch.inputs[start : start + 4].double(), detach(state))
        errors = (predictions - batch.targets[start : start + 4]).square().sum(-1)
        expected.append(oracles.gradients((errors * mask[start : start + 4]).sum() / 3, twin))
    if update == "sequence":
        expected = [{name: one + expected[1][name] for name, one in expected[0].items()}]
    assert len(steps.gradients) == len(expected)
    for found, wanted in zip(steps.gradients, expected):
        assert oracles.relative_error(found, wanted) < 1e-10


@pytest.mark.parametrize("clipping", ["none", "norm", "value"])
def test_loops_without_a_trainer_train_as_with_one(clipping: Any) -> None:
    """`choose_chunk_size.py` and `compare_estimators.py`: summed losses, clipping and groups of the optimizer."""
    task = FixedBatches([random_batch(7, 3) for _ in range(3)])
    task.reduction = "sum_over_time"
    found = []
    for loop in ("trainer", "chunk size", "comparison"):
        torch.manual_seed(4)
        module = make_module(
            task,
            estimator=Full(),
            clipping=Clipping(clipping, 0.3),
            optimizer=partial(torch.optim.SGD, lr=0.1),
            optimizer_groups={"recurrent": {"lr": 0.02}, "biases": {"weight_decay": 0.1}},
        )
        if loop == "trainer":
            fit(module, limit_val_batches=0)
        elif loop == "chunk size":
            optimizer = module.new_optimizer()
            measure_training(
                module.model, task, optimizer, num_updates=3, before_step=module.scale_and_clip, num_batches=1
            )
        else:
            training = BatchTraining(module)
            for _ in range(3):
                training.step()
        found.append(torch.cat([each.detach().flatten() for each in module.model.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=1e-6)


class Faulty(Recorder):
    """The updates of another estimator, each changed by a function; None leaves one out."""

    def __init__(self, change: Callable[[Update], Any]):
        super().__init__(Chunked(4))
        self.change = change

    def updates(self, model: SequenceModel, *arguments: Any, **options: Any) -> Iterator[Update]:
        for update in map(self.change, super().updates(model, *arguments, **options)):
            if update == "no gradient":
                model.zero_grad()
                update = self.seen[-1]
            if update is not None:
                yield update


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda update: None, "updates of Faulty must be up to the end of a batch, 12 timesteps, got 0"),
        (lambda update: update if update.start < 8 else None, "updates of Faulty must be .*, 12 timesteps, got 8"),
        (
            lambda update: "no gradient",
            "an update of Faulty must leave its gradient in .grad, got none there; say",
        ),
        (lambda update: update.loss + 1, "an update of Faulty must be an Update, got 'Tensor'"),
        (
            lambda update: update._replace(state=map_state(Tensor.requires_grad_, update.state)),
            r"the state in an update of Faulty must be detached, .*; say detach\(state\)",
        ),
    ],
)
def test_a_mistake_in_an_own_estimator_is_named(change: Callable[[Update], Any], message: str) -> None:
    module = make_module(stream([12]))
    module.estimator = Faulty(change)
    with pytest.raises(ValueError, match=message):
        fit(module, limit_val_batches=0)
