"""Mean training loss between two logged points."""

from torch import Tensor

from bptt.estimators.base import Update


class MeanLoss:
    """Mean loss of all updates since the last `take`, weighted by each update's number of losses.

    The sum stays on the device, so that `add` does not synchronise with it. first: loss of the run's first update.
    """

    def __init__(self) -> None:
        self.sum: float | Tensor = 0.0
        self.weight = 0
        self.first: float | Tensor | None = None

    def add(self, update: Update) -> None:
        self.first = update.loss if self.first is None else self.first
        self.sum += update.loss * update.weight
        self.weight += update.weight

    def take(self) -> float:
        """Return the mean and reset the sum."""
        mean = float(self.sum) / self.weight
        self.sum, self.weight = 0.0, 0
        return mean

    def state(self) -> tuple[float, int, float | None]:
        return float(self.sum), self.weight, None if self.first is None else float(self.first)

    def restore(self, sum_: float, weight: int, first: float | None = None) -> None:
        """Continue from `state`. Early checkpoints of format 1 have no `first`."""
        self.sum, self.weight, self.first = float(sum_), weight, first
