"""Training with one update per batch, so that estimators differ only by their gradients."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from bptt.lightning.carry import Carry
from bptt.lightning.evaluation import Evaluation
from bptt.lightning.module import BPTTModule


class BatchTraining:
    """Trains a module's model batch by batch with its optimizer, reduction and clipping.

    The gradients of an estimator's updates within a batch are added, weighted by the denominators of their losses. So
    all estimators take the same number of steps, with fixed parameters within a batch. The state is carried as usual.

    batches: number of batches so far. timesteps: that each sequence has advanced.
    seconds: processor time so far, without that for drawing data and for scores.
    """

    def __init__(self, module: BPTTModule):
        self.module = module
        self.optimizer = module.new_optimizer()
        self.carry = Carry()
        self.batches = 0
        self.timesteps = 0
        self.seconds = 0.0

    def step(self) -> None:
        """Draw the next batch, then make one update."""
        module, model = self.module, self.module.model
        batch = module.task.batch("train", self.batches)
        started = time.process_time()
        state = self.carry.state_for(model, batch)
        num_losses = sum(batch.weights())
        total = {parameter: torch.zeros_like(parameter) for parameter in model.parameters()}
        for update in module.estimator.updates(model, module.task.loss, batch, state):
            for parameter, gradient in total.items():
                if parameter.grad is not None:
                    gradient.add_(parameter.grad, alpha=update.denominator / num_losses)
                    parameter.grad = None
            state = update.state
        for parameter, gradient in total.items():
            parameter.grad = gradient
        module.scale_and_clip(num_losses)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.carry.keep(state)
        self.seconds += time.process_time() - started
        self.batches += 1
        self.timesteps += batch.num_timesteps

    def score(self, metric: str) -> float:
        """The metric on the validation split."""
        task, evaluation = self.module.task, Evaluation(self.module.task)
        evaluation.begin()
        with torch.no_grad():
            for index in range(task.num_batches("validation")):
                evaluation.add(self.module.model, task.batch("validation", index))
        return float(evaluation.scores()[metric])


def learn(
    module: BPTTModule,
    *,
    metric: str,
    solved: Callable[[float], bool],
    timesteps: int,
    seconds: float,
    score_every: int,
) -> dict[str, Any]:
    """Train until a score is `solved`, or until both budgets, `timesteps` of each sequence and `seconds`, are used up.

    The model is scored every `score_every` batches. Training also ends there if a parameter is not finite.

    Returns whether the last score is solved, this score (None if there is none or it is not finite), and the batches,
    timesteps and seconds used.
    """
    training = BatchTraining(module)
    score = math.nan
    while training.timesteps < timesteps or training.seconds < seconds:
        training.step()
        if training.batches % score_every:
            continue
        score = training.score(metric)
        if solved(score) or not all(bool(each.isfinite().all()) for each in module.model.parameters()):
            break
    return {
        "solved": solved(score),
        "score": score if math.isfinite(score) else None,
        "batches": training.batches,
        "timesteps": training.timesteps,
        "seconds": round(training.seconds, 4),
    }
