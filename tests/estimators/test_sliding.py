"""TBPTT(k1, k2) against windows that are unrolled by hand."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import oracles
from support.masked_batches import KINDS, loss, make_model, masked_batch, masks
from torch import Tensor

from bptt.estimators import Chunked, Estimator, Full, Sliding, Update
from bptt.model import SequenceModel
from bptt.shapes import State, detach, leaves
from bptt.tasks import Batch

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@given(
    timesteps=st.integers(1, 14),
    stride=st.integers(1, 6),
    more=st.integers(0, 12),
    num_layers=st.integers(1, 2),
    burn_in=st.one_of(st.just(0), st.integers(1, 15)),
    pattern=masks,
)
def test_every_window_alone(
    kind: str, timesteps: int, stride: int, more: int, num_layers: int, burn_in: int, pattern: str
) -> None:
    """The newest losses, through the window before their end, from the state of the plain pass at its start.

    At frozen weights the burn-in of a window changes nothing but where the first one begins.
    """
    window = stride + more
    model, batch = make_model(kind, num_layers), masked_batch(pattern, timesteps, 2, stride)
    updates = list(_gradients(Sliding(stride, window, burn_in=burn_in), model, batch))
    skipped = min(burn_in, timesteps)
    assert [update.stop for update, _ in updates] == [*range(skipped + stride, timesteps, stride), timesteps]
    assert updates[0][0].start == 0
    for update, gradient in updates:
        update = update._replace(start=max(update.start, skipped))
        begin = max(skipped, update.start + stride - window)
        mask = None if batch.mask is None else batch.mask[update.start : update.stop]
        assert update.weight == ((update.stop - update.start) * 2 if mask is None else int(mask.sum()))
        if not update.weight:
            assert gradient is None
            continue
        assert gradient is not None
        before = _final_state(kind, model, batch.inputs[:begin]) if begin else None
        unrolled = oracles.run_model(kind, model, batch.inputs[begin : update.stop], before)
        newest = unrolled.predictions[update.start - begin :]
        error = oracles.squared_error(newest, batch.targets[update.start : update.stop], mask)
        assert oracles.relative_error(gradient, oracles.gradients(error, model)) < 1e-9
        assert update.passes[0][0] == begin
        assert update.passes[-1][1] == update.stop
    torch.testing.assert_close(leaves(updates[-1][0].state), leaves(_plain(model, batch)))


@given(timesteps=st.integers(1, 14), size=st.integers(1, 15), pattern=masks)
def test_ends_of_the_scale(timesteps: int, size: int, pattern: str) -> None:
    """A window of one stride is a chunk; one stride over everything is the whole gradient."""
    model, batch = make_model("gru", 2), masked_batch(pattern, timesteps, 2, size)
    for (_, sliding), (_, chunked) in zip(
        _gradients(Sliding(size, size), model, batch),
        _gradients(Chunked(size, ragged="last"), model, batch),
        strict=True,
    ):
        assert (sliding is None) == (chunked is None)
        assert sliding is None or chunked is None or oracles.relative_error(sliding, chunked) < 1e-12
    ((_, once),) = _gradients(Sliding(timesteps, timesteps + size), model, batch)
    ((_, full),) = _gradients(Full(), model, batch)
    assert once is not None
    assert full is not None
    assert oracles.relative_error(once, full) < 1e-10


@pytest.mark.parametrize(("stride", "window"), [(0, 4), (4, 3), (2, "5")])
def test_refuses(stride: int, window: int) -> None:
    with pytest.raises(ValueError, match=r"must be an integer >= "):
        Sliding(stride, window)


def _gradients(
    estimator: Estimator, model: SequenceModel, batch: Batch
) -> Iterator[tuple[Update, dict[str, Tensor] | None]]:
    model.zero_grad()
    for update in estimator.updates(model, loss, batch, model.initial_state(2)):
        yield update, oracles.grads(model) if update.weight else None
        model.zero_grad()


def _final_state(kind: str, model: SequenceModel, inputs: Tensor) -> list[oracles.CellState]:
    return [tuple(part.detach() for part in layer) for layer in oracles.run_model(kind, model, inputs, None).final]


def _plain(model: SequenceModel, batch: Batch) -> State:
    return detach(model.advance(batch.inputs, model.initial_state(2)))
