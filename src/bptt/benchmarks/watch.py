"""Training step with GradientFlow, against one without, and against a loop over cells with `retain_grad`."""

import statistics
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from bptt.benchmarks.measure import Found, now, row
from bptt.benchmarks.training import (
    MODELS,
    TRAINING_ALONE,
    Clock,
    batches,
    mean_cross_entropy,
    run_through_lightning,
    without_lightning,
)
from bptt.lightning.callbacks.gradient_flow import GradientFlow

LENGTH = 100  # timesteps of a batch, which is one update
SIZES = (
    *(f"task.length={LENGTH}", "task.batch_size=32", f"estimator.chunk_size={LENGTH}"),
    *("model.embedding_size=64", "model.hidden_size=128"),
)
EVERY = {"elman": 1.3, "gru": 1.5, "lstm": 2.0}
# Updates are timed in alternating blocks of one run, with and without GradientFlow, because separate runs differ by
# more than the effect. Figures are drawn at looks 8, 32 and 128 only. 6 pairs of 15 updates lie between two of these:
EVERY_UPDATE = {"pairs": 6, "updates": 15, "warm_up": 33}
# Blocks of 100 updates with one look, as late in training, or with a few more early on. Look 8 is at update 161:
DEFAULT = {"pairs": 5, "updates": 100, "warm_up": 180}


def rows(repetitions: int) -> Found:
    for model in MODELS:
        words = (*TRAINING_ALONE, f"model={model}", *SIZES)
        every_update = (*words, "callbacks.gradient_flow.every_n_updates=1")
        cells = partial(cell_by_cell, (*words, "~callbacks.gradient_flow"), num_batches=20, warm_up=4)
        turns = [(in_blocks(every_update, **EVERY_UPDATE), cells()) for _ in range(2 * repetitions)]
        title = f"watch, {model}: every update"
        yield row(f"{title} / off", *in_one(blocks for blocks, _ in turns), target=EVERY[model])
        means, others = [statistics.mean(watched) for (watched, _), _ in turns], [seconds for _, seconds in turns]
        lstm = 0.5 if model == "lstm" else None
        yield row(f"{title} / cells with retain_grad", means, others, target=lstm)
        runs = (in_blocks(words, **DEFAULT) for _ in range(2 * repetitions))
        yield row(f"watch, {model}: default schedule / off", *in_one(runs), target=1.02)


class Switch(Callback):
    """Switches GradientFlow on and off for alternating blocks of updates."""

    def __init__(self, updates: int, warm_up: int):
        self.updates = updates
        self.warm_up = warm_up

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        block, within = divmod(batch_idx - self.warm_up, self.updates)
        if block < 0 or within:
            return
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # no annotation in Lightning
        (flow,) = (callback for callback in callbacks if isinstance(callback, GradientFlow))
        assert flow.recorder is not None
        flow.recorder.close()
        if is_watched(block):
            flow.on_fit_start(trainer, pl_module)


def is_watched(block: int) -> bool:
    """True for blocks 0, 3, 4, 7, …: pairs in the order A B, B A, A B, …"""
    return block % 4 in (0, 3)


Blocks = tuple[list[float], list[float]]  # watched and not


def in_blocks(words: Sequence[str], pairs: int, updates: int, warm_up: int) -> Blocks:
    """Seconds per update in blocks of one run, with GradientFlow and without."""
    clock = run_through_lightning(words, warm_up + 2 * pairs * updates, Switch(updates, warm_up))
    ticks = clock.ticks[warm_up - 1 :: updates]
    by_kind: Blocks = ([], [])
    for block, (start, end) in enumerate(pairwise(ticks)):
        by_kind[not is_watched(block)].append((end - start) / updates)
    return by_kind


def in_one(runs: Iterable[Blocks]) -> Blocks:
    watched, unwatched = zip(*runs)
    return list(chain(*watched)), list(chain(*unwatched))


def cell_by_cell(words: Sequence[str], num_batches: int, warm_up: int) -> float:
    """Seconds per batch of the usual way to measure ‖dL/dh_t‖: a loop over cells with `retain_grad` on each state."""
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
