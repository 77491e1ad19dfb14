"""Loss and metrics of a model on a split."""

from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from bptt.lightning.carry import Carry
from bptt.model import SequenceModel
from bptt.tasks.base import Batch, Task

CHUNK = 256  # timesteps per forward pass, to bound memory for long batches


class Evaluation(nn.Module):
    """Mean loss and the task's metrics over the batches of a split. Has its own carried state."""

    def __init__(self, task: Task):
        super().__init__()
        self.task = task
        self.loss = MeanMetric(nan_strategy=float("nan"))  # a loss that is not finite must stay visible
        self.metrics = MetricCollection(dict(task.metrics()))
        self.carry = Carry()

    def begin(self) -> None:
        self.loss.reset()
        self.metrics.reset()
        self.carry = Carry()

    def add(self, model: SequenceModel, batch: Batch) -> None:
        weights = batch.weights()
        state = self.carry.state_for(model, batch)
        for start, chunk in batch.split(CHUNK):
            predictions, state, _ = model(chunk.inputs, state, chunk.resets)
            weight = sum(weights[start : start + chunk.num_timesteps])
            if weight:
                self.loss.update(self.task.loss(predictions, chunk), weight)
                self.metrics.update(chunk.inside(predictions), chunk.inside(chunk.targets))
        self.carry.keep(state)

    def scores(self) -> dict[str, Tensor]:
        return {"loss": self.loss.compute(), **self.metrics.compute()}
