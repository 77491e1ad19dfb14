"""Seconds per training batch: through Lightning, in a bare loop, and with pytorch-ignite."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from bptt.benchmarks.measure import DEVICE, now
from bptt.configuration.build import build_module, build_trainer
from bptt.configuration.compose import compose_config
from bptt.lightning.data import TaskData
from bptt.lightning.module import BPTTModule
from bptt.lightning.optimizers import fused_where_possible

MODELS = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
TRAINING_ALONE = (
    *(f"~callbacks.{name}" for name in ("jacobian_spectrum", "parameter_norms", "checkpoint")),
    *("trainer.limit_val_batches=0", "trainer.enable_progress_bar=false"),
    *(("trainer.accelerator=gpu",) if DEVICE.type == "cuda" else ()),
)
UNWATCHED = (*TRAINING_ALONE, "~callbacks.gradient_flow", "~callbacks.divergence")


class Clock(Callback):
    """Records the time at which each batch ends."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.ticks.append(now())

    def mean(self, warm_up: int) -> float:
        """Seconds per batch, without the first `warm_up` batches."""
        ticks = self.ticks[warm_up - 1 :]
        return (ticks[-1] - ticks[0]) / (len(ticks) - 1)


def through_lightning(words: Sequence[str], num_batches: int, warm_up: int) -> float:
    """Seconds per batch of scripts/train.py with these overrides."""
    return run_through_lightning(words, num_batches).mean(warm_up)


def run_through_lightning(words: Sequence[str], num_batches: int, *callbacks: Callback) -> Clock:
    config = compose_config([*words, f"trainer.limit_train_batches={num_batches}"])
    module, clock = build_module(config), Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, Path(folder), callbacks=[*callbacks, clock])
        trainer.fit(module, datamodule=TaskData(module))
    return clock


class Network(nn.Module):
    """Embedding, torch kernel, readout."""

    def __init__(self, kernel: nn.Module, *, vocabulary_size: int, input_size: int, hidden_size: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, input_size)
        self.kernel = kernel
        self.readout = nn.Linear(hidden_size, vocabulary_size)

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        outputs, state = self.kernel(self.embedding(tokens), state)
        return self.readout(outputs), state


def without_lightning(words: Sequence[str]) -> tuple[BPTTModule, Network, torch.optim.Optimizer]:
    """Task, network and optimizer with the same sizes, for a loop without Lightning."""
    config = compose_config(words)
    module = build_module(config)
    sizes = {"input_size": config.model.embedding_size, "hidden_size": config.model.hidden_size}
    kernel = MODELS[config.model.layer._target_.rpartition(".")[2].lower()](*sizes.values())
    network = Network(kernel, vocabulary_size=module.task.input_size, **sizes).to(DEVICE)
    return module, network, module.make_optimizer(network.parameters())


def batches(module: BPTTModule, num_batches: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Tokens and targets (T, B) of training batches."""
    for index in range(num_batches):
        batch = module.task.batch("train", index)
        yield batch.inputs.to(DEVICE).long(), batch.targets.to(DEVICE).long()


def mean_cross_entropy(predictions: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(predictions.flatten(0, 1), targets.flatten())


def bare_loop(words: Sequence[str], num_batches: int, warm_up: int, *, chunk: int, fused: bool = False) -> float:
    """Seconds per batch of truncated BPTT in plain PyTorch. fused: with the optimizer's fused kernel."""
    module, network, optimizer = without_lightning(words)
    if fused:
        optimizer = fused_where_possible(module.make_optimizer, network.parameters(), scaled=False)
    state: Any = None
    clock = Clock()
    for tokens, targets in batches(module, num_batches):
        for part, wanted in zip(tokens.split(chunk), targets.split(chunk)):
            predictions, state = network(part, state)
            mean_cross_entropy(predictions, wanted).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            state = tuple(each.detach() for each in state) if isinstance(state, tuple) else state.detach()
        clock.ticks.append(now())
    return clock.mean(warm_up)


def ignite(words: Sequence[str], num_batches: int, warm_up: int, *, chunk: int) -> float:
    """Seconds per batch of pytorch-ignite's truncated BPTT trainer. It can clip only in a hook of the optimizer."""
    from ignite.contrib.engines.tbptt import create_supervised_tbptt_trainer
    from ignite.engine import Events

    module, network, optimizer = without_lightning(words)

    def clip(*_: Any) -> None:
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)

    optimizer.register_step_pre_hook(clip)
    loss: Any = mean_cross_entropy  # ignite annotates a module, but accepts any callable
    trainer = create_supervised_tbptt_trainer(network, optimizer, loss, chunk)
    clock = Clock()
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: clock.ticks.append(now()))
    trainer.run(batches(module, num_batches), epoch_length=num_batches)
    return clock.mean(warm_up)
