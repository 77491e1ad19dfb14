"""A training step with GradientFlow, against one without, and against a loop over cells that keeps every gradient."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Found, interleaved, now, row
from benchmarks.training import (
    MODELS,
    TRAINING_ALONE,
    Clock,
    batches,
    mean_cross_entropy,
    through_lightning,
    without_lightning,
)

LENGTH = 100  # timesteps of a batch, which is one update
SIZES = (
    *(f"task.length={LENGTH}", "task.batch_size=32", f"estimator.chunk_size={LENGTH}"),
    *("model.embedding_size=64", "model.hidden_size=128"),
)
EVERY = {"elman": 1.3, "gru": 1.5, "lstm": 2.0}
# Figures are drawn at looks 8, 32 and 128, so between them only the looking is measured.
EVERY_UPDATE = {"num_batches": 124, "warm_up": 48}
# One look in 100 updates, at 200, as in the long run. The figure of look 8, at update 100, is over.
DEFAULT = {"num_batches": 240, "warm_up": 140}


def rows(repetitions: int) -> Found:
    for model in MODELS:
        watched = (*TRAINING_ALONE, f"model={model}", *SIZES)
        unwatched = (*watched, "~callbacks.gradient_flow")
        every = (*watched, "callbacks.gradient_flow.every_n_updates=1")
        found = interleaved(
            {
                "off": partial(through_lightning, unwatched, **EVERY_UPDATE),
                "every": partial(through_lightning, every, **EVERY_UPDATE),
                "cells": partial(cell_by_cell, unwatched, num_batches=20, warm_up=4),
            },
            repetitions,
        )
        title = f"watch, {model}: every update"
        yield row(f"{title} / off", found["every"], found["off"], target=EVERY[model])
        lstm = 0.5 if model == "lstm" else None
        yield row(f"{title} / cells with retain_grad", found["every"], found["cells"], target=lstm)
        found = interleaved(
            {
                "off": partial(through_lightning, unwatched, **DEFAULT),
                "default": partial(through_lightning, watched, **DEFAULT),
            },
            repetitions * 6,  # a percent or two takes more of them to tell from chance
        )
        yield row(f"watch, {model}: default schedule / off", found["default"], found["off"], target=1.02)


def cell_by_cell(words: Sequence[str], num_batches: int, warm_up: int) -> float:
    """The usual way to see dL/dh_t: a loop over cells with `retain_grad` on each state, and the norms afterwards."""
    module, network, _ = without_lightning(words)
    cells = {nn.RNN: nn.RNNCell, nn.GRU: nn.GRUCell, nn.LSTM: nn.LSTMCell}
    sizes = (network.embedding.embedding_dim, network.readout.in_features)
    network.kernel = cells[type(network.kernel)](*sizes).to(network.readout.weight.device)
    optimizer = module.make_optimizer(network.parameters())
    state: Any = None
    clock = Clock()
    for tokens, targets in batches(module, num_batches):
        states: list[Tensor] = []
        for features in network.embedding(tokens):
            state = network.kernel(features, state)
            states.append(state[0] if isinstance(state, tuple) else state)
            states[-1].retain_grad()
        mean_cross_entropy(network.readout(torch.stack(states)), targets).backward()
        norms = torch.stack([each.grad for each in states if each.grad is not None]).norm(dim=-1).mean(1)
        assert len(norms) == LENGTH
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        state = tuple(each.detach() for each in state) if isinstance(state, tuple) else state.detach()
        clock.ticks.append(now())
    return clock.mean(warm_up)
