"""Small training runs: the module's, by a real Trainer, and the textbook's, in plain torch."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from bptt.estimators import Chunked, Estimator, Update
from bptt.layers.lstm import AUTOCAST_KERNEL
from bptt.lightning.data import TaskData
from bptt.lightning.module import BPTTModule
from bptt.model import SequenceModel
from bptt.tasks import Batch, Task
from support.fixed_batches import FixedBatches
from support.layer_kinds import KINDS as KINDS

Sgd = partial(torch.optim.SGD, lr=0.1)
Frozen = partial(torch.optim.SGD, lr=0.0)


class Recorder(Estimator):
    """Another estimator, with its updates kept."""

    def __init__(self, estimator: Estimator):
        self.estimator = estimator
        self.seen: list[Update] = []

    def updates(self, *arguments: Any, **options: Any) -> Iterator[Update]:
        for update in self.estimator.updates(*arguments, **options):
            self.seen.append(update)
            yield update

    def scalars(self) -> Mapping[str, float]:
        return self.estimator.scalars()

    @property
    def losses(self) -> list[float]:
        return [float(update.loss) for update in self.seen]


class Steps(Callback):
    """Records gradients, learning rate and the current update at each optimizer step."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.rates: list[float] = []
        self.current_update: list[Update | None] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        assert isinstance(pl_module, BPTTModule)
        named = pl_module.model.named_parameters()
        self.gradients.append({name: value.grad.clone() for name, value in named if value.grad is not None})
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.current_update.append(pl_module.current_update)


def make_module(
    task: Task,
    kind: str = "gru",
    *,
    num_layers: int = 1,
    hidden_size: int = 4,
    dropout: float = 0.0,
    learnt: bool = False,
    estimator: Estimator | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = Sgd,
    **options: Any,
) -> BPTTModule:
    model = SequenceModel(
        KINDS[kind],
        input_size=task.input_size,
        output_size=task.output_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        dropout=dropout,
        learnt_initial_state=learnt,
    )
    recorder = Recorder(estimator or Chunked(4))
    return BPTTModule(task=task, model=model, estimator=recorder, optimizer=optimizer, **options)


def losses(module: BPTTModule) -> list[float]:
    """The loss of every update so far."""
    assert isinstance(module.estimator, Recorder)
    return module.estimator.losses


def make_trainer(**options: Any) -> Trainer:
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(**{**quiet, **options})


def fit(module: BPTTModule, **options: Any) -> Trainer:
    trainer = make_trainer(**options)
    trainer.fit(module, datamodule=TaskData(module))
    return trainer


def callbacks_of(trainer: Trainer) -> list[Callback]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # no annotation in Lightning
    return callbacks


class Textbook:
    """Truncated BPTT on copies of a model's kernels and readout: forward, loss, backward, clip, step, detach."""

    def __init__(self, model: SequenceModel):
        kernels = [copy.deepcopy(layer.get_submodule("kernel")) for layer in model.layers]
        self.network = nn.ModuleList([*kernels, copy.deepcopy(model.readout)])

    def train(
        self,
        batches: Sequence[Batch],
        chunk_size: int,
        make_optimizer: Callable[..., torch.optim.Optimizer],
        clip: Callable[..., Any] = lambda parameters: None,
        forward_context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> list[float]:
        *kernels, readout = self.network
        optimizer, losses = make_optimizer(self.network.parameters()), []
        for batch in batches:
            if batch.reset is None or batch.reset.all():
                states: list[Any] = [None] * len(kernels)
            for hidden, targets in zip(batch.inputs.split(chunk_size), batch.targets.split(chunk_size)):
                with forward_context():
                    for level, kernel in enumerate(kernels):
                        # As the layer does on a CPU whose LSTM kernel has no bfloat16.
                        half = AUTOCAST_KERNEL or not (isinstance(kernel, nn.LSTM) and torch.is_autocast_enabled("cpu"))
                        with nullcontext() if half else torch.autocast("cpu", enabled=False):
                            hidden, states[level] = kernel(hidden if half else hidden.float(), states[level])
                    predictions = readout(hidden)
                    if predictions.dtype != torch.float64:
                        predictions = predictions.float()
                    loss = (predictions - targets).square().sum(-1).mean()
                loss.backward()
                clip(list(self.network.parameters()))
                optimizer.step()
                optimizer.zero_grad()
                states = [
                    tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
                    for state in states
                ]
                losses.append(loss.item())
        return losses

    def weights(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self.network.parameters()]


def stream(timesteps: Sequence[int], batch_size: int = 3) -> FixedBatches:
    """Batches of the given lengths, of sequences that go on from each to the next within an epoch."""
    lengths, batches = list(timesteps), []
    for index, length in enumerate(lengths):
        reset = torch.full((batch_size,), index == 0)
        batches.append(Batch(torch.randn(length, batch_size, 2), torch.randn(length, batch_size, 2), None, reset))
    return FixedBatches(batches)
