"""Confusion matrix of the last validation."""

from lightning import Trainer

from bptt.lightning.callbacks.base import TrainingCallback, run_folder, run_title
from bptt.lightning.loggers import write_image
from bptt.lightning.module import BPTTModule


class ConfusionMatrix(TrainingCallback):
    """Draws the confusion matrix of the last validation at the end of training, if the task has `class_names`.

    The figure is an image in TensorBoard, confusion/figure, and `confusion_matrix.png` in the run folder.
    """

    def at_end(self, trainer: Trainer, module: BPTTModule, exception: BaseException | None) -> None:
        confusion = module.evaluation.confusion
        if exception is not None or confusion is None or not confusion.update_called:
            return
        counts = confusion.compute().cpu()  # every process must call it
        if trainer.is_global_zero:
            from bptt import figures

            figure = figures.confusion_matrix(counts, module.task.class_names, title=run_title(module))
            figures.save(figure, run_folder(trainer).confusion_matrix)
            # One step later, so that resuming discards it.
            write_image(trainer, "confusion/figure", lambda: figure, module.step_axis + 1)
