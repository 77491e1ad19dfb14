"""The bias that a training run logs is that of the chunks with which it trains."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from support.fixed_batches import FixedBatches, random_batch
from support.training import Frozen, fit, make_module

from bptt.estimators import Chunked, Full
from bptt.lightning.callbacks.truncation_bias import TruncationBias
from bptt.measures import bias, estimated_gradient


@pytest.mark.parametrize("size", [5, 6, 8])
@pytest.mark.parametrize("max_timesteps", [9, 13])
def test_the_chunk_size_in_use_from_the_carried_state(tmp_path: Path, size: int, max_timesteps: int) -> None:
    """Also if it is no power of 2, and if only the last timesteps are looked at, from the middle of a chunk on."""
    before, batch = (random_batch(13, 3, reset=torch.full((3,), first)) for first in (True, False))
    module = make_module(FixedBatches([before, batch]), optimizer=Frozen)
    module.estimator = Chunked(size)
    model, loss, start = module.model, module.task.loss, 13 - max_timesteps
    with torch.no_grad():
        state = model.advance(torch.cat([before.inputs, batch.inputs[:start]]), model.initial_state(3))
    borders = [start, *(border for border in range(0, 13, size) if border > start), 13]
    chunks = [batch.between(*span) for span in pairwise(borders)]
    exact = estimated_gradient(Full(), model, loss, batch.between(start, 13), state)
    expected = bias(estimated_gradient(Full(), model, loss, chunks, state), exact).relative
    assert expected > 0.001

    callback = TruncationBias(every_n_batches=1, max_timesteps=max_timesteps)
    fit(module, callbacks=[callback], default_root_dir=tmp_path, limit_val_batches=0)
    assert callback.curves[-1][size][1] == pytest.approx(expected, rel=1e-4)
