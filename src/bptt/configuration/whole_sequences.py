"""What a bidirectional model needs: whole sequences, from their first timestep to their last."""

from typing import TYPE_CHECKING

from bptt.contracts import refusal

if TYPE_CHECKING:  # imported in the function: --help and refused arguments need not wait for torch
    from bptt.estimators import Estimator
    from bptt.model import SequenceModel
    from bptt.tasks.base import Task

SWITCH_OFF = "model.bidirectional=false"


def fit_to_directions(task: "Task", model: "SequenceModel", estimator: "Estimator") -> None:
    """Let a bidirectional model read every sequence of a task from its own end, and predict as often as the task does.

    ValueError for a task whose sequences continue from batch to batch, and for an estimator that truncates: a backward
    direction must begin at the end of the sequence, which is in another batch or chunk. Models of one direction and
    their tasks stay as they are.
    """
    from bptt.estimators import Full

    if not model.bidirectional:
        return
    if not isinstance(estimator, Full):
        wanted = "full with model.bidirectional=true, whose backward direction begins at the end of the whole sequence"
        raise ValueError(refusal("estimator", wanted, type(estimator).__name__, f"say estimator=full or {SWITCH_OFF}"))
    if estimator.segment_size is not None:
        wanted = "null with model.bidirectional=true, which reads whole sequences"
        raise ValueError(refusal("estimator.segment_size", wanted, estimator.segment_size))
    # the first batch begins the streams of a task that carries the state to the second one
    for index in range(2 if task.num_batches("train") else 0):
        if task.batch("train", index).continues:
            wanted = "false for a task that carries the state, because the end of its sequences is in another batch"
            remedy = f"say {SWITCH_OFF}, or give whole sequences by task=sequences"
            raise ValueError(refusal("model.bidirectional", wanted, type(task).__name__, remedy))
    task.marks_ends = True
    if task.per_sequence:
        model.summarise()
