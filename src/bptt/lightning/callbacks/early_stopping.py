"""Early stopping of a run that has reached its goal or no longer improves."""

import sys
from typing import Any, Literal

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from bptt.contracts import at_least, between, one_of
from bptt.lightning.callbacks.base import TrainingCallback, monitored
from bptt.lightning.module import BPTTModule, Ending
from bptt.lightning.terminal import say
from bptt.run_folder import RunStatus


class EarlyStopping(TrainingCallback, LightningEarlyStopping):
    """Lightning's `EarlyStopping`, applied after every validation that is due, and saved in every checkpoint.

    The run ends with status completed if `monitor` passes `stopping_threshold`, or if it has not improved in `patience`
    validations; null disables either. mode: `min` if a smaller metric is better, `max` if a larger one is. A metric
    that is not finite counts as no improvement. ValueError if there is no such metric.
    """

    def __init__(
        self,
        monitor: str = "validation/loss",
        mode: Literal["min", "max"] = "min",
        *,
        stopping_threshold: float | None = None,
        patience: int | None = 10,
    ):
        one_of(("min", "max"), mode=mode)
        if patience is not None:
            at_least(1, patience=patience)
        if stopping_threshold is not None:
            between(-float("inf"), float("inf"), stopping_threshold=stopping_threshold)
        super().__init__(
            monitor,
            mode=mode,
            patience=sys.maxsize if patience is None else patience,
            stopping_threshold=stopping_threshold,
            check_finite=False,
            check_on_train_epoch_end=False,
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
            assert isinstance(pl_module, BPTTModule)
            pl_module.ending = Ending(RunStatus.COMPLETED, "early stopping")
            trainer.should_stop = True
            if trainer.is_global_zero and trainer.fit_loop._can_stop_early:  # not before min_epochs
                say("the run had been stopped early: it does not become longer")

    def after_validation(self, trainer: Trainer, module: BPTTModule) -> None:
        monitored(trainer, self.monitor)
        if module.validates_at_end:  # a longer run would not have had this validation
            return
        LightningEarlyStopping.on_validation_end(self, trainer, module)
        if self.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
            if trainer.is_global_zero and module.ending.reason is None:
                say(str(self.stopping_reason_message))
            module.ending = Ending(RunStatus.COMPLETED, "early stopping")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})
