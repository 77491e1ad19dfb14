"""Confusion matrix of the last validation."""

from typing import Any

from lightning import Trainer
from torch import Tensor

from bptt.lightning.callbacks.base import TrainingCallback, run_folder, run_title
from bptt.lightning.loggers import write_image
from bptt.lightning.module import BPTTModule


class ConfusionMatrix(TrainingCallback):
    """Draws the confusion matrix of the last validation at the end of training, if the task has `class_names`.

    The figure is an image in TensorBoard, confusion/figure, and `confusion_matrix.png` in the run folder.
    """

    def __init__(self) -> None:
        self.counts: Tensor | None = None  # (V, V), of the last validation

    def after_validation(self, trainer: Trainer, module: BPTTModule) -> None:
        confusion = module.evaluation.confusion
        if confusion is not None and confusion.update_called:
            self.counts = confusion.compute().cpu()  # every process must call it

    def state_dict(self) -> dict[str, Any]:
        return {"counts": self.counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts = state_dict.get("counts")  # early checkpoints have none

    def at_end(self, trainer: Trainer, module: BPTTModule, exception: BaseException | None) -> None:
        counts = self.counts
        if exception is None and counts is not None and trainer.is_global_zero:
            from bptt import figures

            figure = figures.confusion_matrix(counts, module.task.class_names, title=run_title(module))
            figures.save(figure, run_folder(trainer).confusion_matrix)
            # One step later, so that resuming discards it.
            write_image(trainer, "confusion/figure", lambda: figure, module.step_axis + 1)
