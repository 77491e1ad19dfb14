"""Ending of a run that no exception ended."""

import math
from collections.abc import Mapping

from lightning import Trainer

from bptt.lightning.module import BPTTModule, Ending, time_is_over, timers
from bptt.run_folder import RunStatus

DIVERGED_FACTOR = 10  # last loss / first loss above which a run counts as diverged


def ending_of(trainer: Trainer, module: BPTTModule) -> Ending:
    """`module.ending`, or the trainer's limit that ended the run before its last epoch was complete.

    `max_steps` is not an early end if the number of epochs is unlimited: it is then the planned length of the run.
    """
    epochs = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs >= 0 else None
    if epochs is not None and module.stream_position.epoch >= epochs:
        ending = Ending()  # even if a callback wanted to end it before `min_epochs`
    elif module.ending.reason is not None:
        ending = module.ending
    elif 0 <= trainer.max_steps <= trainer.global_step:
        stopped = epochs is not None or module.counters.updates == 0
        reason = f"trainer.max_steps={trainer.max_steps}"
        ending = Ending(RunStatus.STOPPED, reason) if stopped else module.ending
    elif time_is_over(trainer):
        seconds = max(each.time_elapsed() for each in timers(trainer))
        ending = Ending(RunStatus.STOPPED, f"trainer.max_time, after {seconds:,.0f} s")
    else:
        ending = module.ending
    if module.counters.updates == 0 and ending.reason is None:
        return Ending(RunStatus.STOPPED, "no update was made")
    return ending


def warning_of(module: BPTTModule, metrics: Mapping[str, float]) -> str | None:
    """One line if training diverged, although it went on: the last training loss is far above the first one, or a loss
    of training or validation is not finite, as all updates may have been skipped.

    The loss of a validation without targets is NaN, too; it is no sign of divergence beside a training loss.
    """
    last, validation = metrics.get("train/loss"), metrics.get("validation/loss", 0.0)
    first = math.nan if module.mean_loss.first is None else float(module.mean_loss.first)
    if last is not None and (not math.isfinite(last) or 0 < DIVERGED_FACTOR * first < last):
        what = f"the last loss is {last:.3g}" + (f", the first was {first:.3g}" if math.isfinite(first) else "")
    elif math.isinf(validation) or (math.isnan(validation) and last is None):
        what = f"the last loss of validation is {validation}"
    else:
        return None
    return f"training diverged, although it went on: {what}; try a smaller optimizer.lr"
