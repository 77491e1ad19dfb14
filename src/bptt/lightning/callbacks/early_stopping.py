"""An early end for a run that has learnt what it was to learn, or learns no more."""

from typing import Literal

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping

from bptt.contracts import at_least, between, one_of
from bptt.lightning.checkpoint import monitored, validated_in_training


class EarlyStopping(LightningEarlyStopping):
    """Lightning's own, which looks after every validation and is in every checkpoint.

    The run ends, completed, once `monitor` is beyond `stopping_threshold`, or has not become better in `patience`
    validations. mode: whether it is to be small (`min`) or large (`max`). ValueError where there is no such metric.
    """

    def __init__(
        self,
        monitor: str = "validation/loss",
        mode: Literal["min", "max"] = "min",
        *,
        stopping_threshold: float | None = None,
        patience: int = 10,
    ):
        one_of(("min", "max"), mode=mode)
        at_least(1, patience=patience)
        if stopping_threshold is not None:
            between(-float("inf"), float("inf"), stopping_threshold=stopping_threshold)
        options = {"stopping_threshold": stopping_threshold, "check_on_train_epoch_end": False}
        super().__init__(monitor, mode=mode, patience=patience, **options)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if validated_in_training(trainer):
            monitored(trainer, self.monitor)
        super().on_validation_end(trainer, pl_module)
