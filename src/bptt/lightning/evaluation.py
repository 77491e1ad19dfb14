"""Loss and metrics of a model on a split."""

from collections.abc import Callable

from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from bptt.lightning.carry import Carry
from bptt.model import SequenceModel
from bptt.tasks.base import Batch, Task

CHUNK = 256  # timesteps per forward pass, to bound memory for long batches


class Evaluation(nn.Module):
    """Mean loss and the task's metrics over the batches of a split. Has its own carried state.

    confusion: how often each class was predicted for each, for tasks with `class_names`; None for others.
    """

    def __init__(self, task: Task):
        super().__init__()
        self.task = task
        self.loss = MeanMetric(nan_strategy=float("nan"))  # a loss that is not finite must stay visible
        # Groups are of metrics whose states are close after one update, as those of errors of 1e-9 all are.
        self.metrics = MetricCollection(dict(task.metrics()), compute_groups=False)
        number = len(task.class_names)
        self.confusion = MulticlassConfusionMatrix(number) if number else None
        self.carry = Carry()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Evaluation":
        """Keep the dtypes of the sums where the model is converted: bfloat16 adds nothing to a sum of 256 losses."""
        evaluation: Evaluation = super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), recurse)
        return evaluation

    def begin(self) -> None:
        self.loss.reset()
        self.metrics.reset()
        if self.confusion is not None:
            self.confusion.reset()
        self.carry = Carry()

    def add(self, model: SequenceModel, batch: Batch) -> None:
        weights = batch.weights()
        state = self.carry.state_for(model, batch)
        for start, chunk in batch.split(model.timesteps_per_pass(batch.num_timesteps, CHUNK)):
            predictions, state, _ = model(chunk.inputs, state, chunk.resets)
            weight = sum(weights[start : start + chunk.num_timesteps])
            if weight:
                self.loss.update(self.task.loss(predictions, chunk), weight)
                values, targets = chunk.inside(predictions), chunk.inside(chunk.targets)
                self.metrics.update(values, targets)
                if self.confusion is not None:
                    self.confusion.update(values, targets)
        self.carry.keep(state)

    def scores(self) -> dict[str, Tensor]:
        return {"loss": self.loss.compute(), **self.metrics.compute()}
