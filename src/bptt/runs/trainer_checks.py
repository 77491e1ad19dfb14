"""What a module and its trainer cannot do together is refused, left out or said before training begins."""

from typing import TYPE_CHECKING

from bptt.contracts import one_of

if TYPE_CHECKING:
    from lightning import Trainer

    from bptt.lightning.module import BPTTModule


def check_trainer(trainer: "Trainer", module: "BPTTModule") -> None:
    """Refuse what only fails in training: a number of processes that does not divide the batch, models that the
    estimator or a regulariser cannot train, an optimizer's ε that the precision makes 0, metrics that the task lacks.
    """
    from bptt.lightning.callbacks.regulariser import Regulariser
    from bptt.lightning.data import Stream
    from bptt.lightning.optimizers import check_epsilon

    check_epsilon(module.new_optimizer(), precision=str(trainer.precision))
    Stream(module.task, "train", num_processes=trainer.world_size)
    module.estimator.check(module.model, module.task.batch_size, module.task.length)
    metrics = [f"validation/{name}" for name in ("loss", *module.evaluation.metrics.keys(keep_base=True))]
    if module.schedule is not None:
        one_of(metrics, **{"scheduler.monitor": module.schedule.monitor})
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # no annotation in Lightning
        monitor = getattr(callback, "monitor", None)
        library = type(callback).__module__.partition(".")[0]
        if isinstance(monitor, str) and library in ("bptt", "lightning"):
            one_of(metrics, **{f"monitor of {type(callback).__name__}": monitor})
        if isinstance(callback, Regulariser):
            callback.check(module)


def leave_out_measures(trainer: "Trainer", module: "BPTTModule") -> None:
    """Remove the callbacks that cannot measure a model from its training.

    Those that measure one direction of time from that of a bidirectional model, and those that compute passes again if
    a layer then has other values.
    """
    from bptt.lightning.callbacks.base import RecordingCallback, TrainingCallback
    from bptt.lightning.callbacks.regulariser import Regulariser
    from bptt.lightning.terminal import say

    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # no annotation in Lightning
    measures = [each for each in callbacks if isinstance(each, TrainingCallback) and not isinstance(each, Regulariser)]
    if module.model.bidirectional:
        left_out = [each for each in measures if each.one_direction]
        reason = "for a bidirectional model, because they measure one direction of time"
    elif any(isinstance(each, RecordingCallback) for each in measures) and (other := module.model.unrepeatable_layers):
        left_out = [each for each in measures if isinstance(each, RecordingCallback)]
        reason = f"because a pass of {other[0].label} in training, computed again, has other values"
    else:
        return
    if left_out:
        kept = [each for each in callbacks if each not in left_out]
        trainer.callbacks = kept  # type: ignore[attr-defined]  # no annotation in Lightning
        if trainer.is_global_zero:
            say(f"left out {reason}: {', '.join(type(each).__name__ for each in left_out)}")


def say_what_has_no_effect(trainer: "Trainer", module: "BPTTModule") -> None:
    """Say that dropout between layers needs two of them, or blocks."""
    from bptt.lightning.terminal import say

    model = module.model
    if model.dropout and model.blocks is None and len(list(model.levels)) == 1 and trainer.is_global_zero:
        say("model.dropout has no effect between layers, as there is one; model.output_dropout acts after it")
