"""Handle losses and gradients that are not finite."""

import math
from collections import deque
from typing import Any, Literal

import torch
from lightning import Trainer

from bptt.contracts import one_of
from bptt.estimators.base import Update
from bptt.lightning.callbacks.base import TrainingCallback
from bptt.lightning.carry import Carry
from bptt.lightning.module import BPTTModule
from bptt.measures.divergence import Origin, first_non_finite
from bptt.measures.norms import total_norm
from bptt.run_folder import RunStatus
from bptt.shapes import State, leaves
from bptt.tasks.base import Batch

NUM_NORMS = 5  # latest finite gradient norms in the error message


class DivergenceError(ValueError):
    """A loss or a gradient is not finite."""

    status = RunStatus.DIVERGED  # of the run that this error ends


class Divergence(TrainingCallback):
    """Checks loss and gradient of every update before the optimizer steps. Weights never become NaN or infinite.

    action:
    - `stop` ends the run with a `DivergenceError`. It names the first timestep and layer that are not finite, the
      gradient norms before, and possible remedies. Checkpoints are not changed.
    - `skip` omits the update, counts it under `divergence/skipped`, and resets sequences whose state is not finite to
      the initial state.

    Infinite gradients in float16 training are handled by its loss scaling, not here.
    """

    def __init__(self, *, action: Literal["stop", "skip"] = "stop"):
        one_of(("stop", "skip"), action=action)
        self.action = action
        self.skipped = 0
        self.norms: deque[float] = deque(maxlen=NUM_NORMS)
        self.batch: Batch | None = None
        self.state: State | None = None  # after the last finite update of this batch; None before the first one
        self.before = Carry()  # state carried into this batch
        self.reached = 0  # timestep in the batch at which `state` (or `before`) holds

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "norms": list(self.norms)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped = state_dict["skipped"]
        self.norms.extend(state_dict["norms"])

    def before_batch(self, trainer: Trainer, module: BPTTModule, batch: Batch) -> None:
        self.batch, self.reached = batch, module.timestep_in_batch  # > 0 if the run is resumed within the batch
        self.state = module.carry.state if self.reached else None
        self.before.state = module.carry.state  # kept, because the module's carry changes with every update

    def on_update(self, trainer: Trainer, module: BPTTModule, update: Update) -> None:
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        # 0 · loss is NaN if the loss is not finite, and 0 otherwise
        norm = float(total_norm([*gradients, 0 * update.loss]))
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        if math.isfinite(float(update.loss)) if scaled else norm <= largest_norm(module):
            self.norms.append(norm)
            self.state, self.reached = update.state, update.stop
            return
        if self.action == "stop":
            raise DivergenceError(self.message(module, norm))
        self.skipped += 1
        for parameter in module.parameters():
            parameter.grad = None
        module.write({"divergence/skipped": float(self.skipped)})

    def after_batch(self, trainer: Trainer, module: BPTTModule) -> None:
        carry = module.carry
        if self.action == "stop" or carry.state is None or module.timestep_in_batch:  # the batch goes on
            return
        finite = torch.stack([leaf.isfinite().flatten(1).all(1) for leaf in leaves(carry.state)]).all(0)
        if not finite.all():
            with torch.no_grad():
                carry.keep(carry.with_initial_where(module.model, ~finite))

    def message(self, module: BPTTModule, norm: float) -> str:
        """Error message in one line: the first value that is not finite, the gradient norms before it, and remedies."""
        update, batch = module.current_update, self.batch
        assert update is not None
        assert batch is not None
        state = self.before.state_for(module.model, batch) if self.state is None else self.state
        origin = first_non_finite(module.model, module.task.errors, batch.between(self.reached, update.stop), state)
        place = f"update {module.counters.updates}, timesteps {update.start} to {update.stop - 1} of a batch"
        if origin is None:
            what = "square of the gradient" if math.isfinite(norm) else "gradient"
            where = f"the {what} is not finite, though all states and losses are"
        else:
            where = f"{origin.what} is not finite at timestep {self.reached + origin.timestep}"
        before = ", ".join(f"{norm:.3g}" for norm in self.norms) or "none"
        help_ = advice(origin, clipped=module.clipping.algorithm != "none")
        return f"training must stay finite, got {place}, where {where}; gradient norms before: {before}; {help_}"


def largest_norm(module: BPTTModule) -> float:
    """Largest norm of a gradient that can be used. Its square must be finite unless it is clipped: adaptive optimizers
    accumulate squares, and divide by their root.
    """
    dtype = torch.promote_types(next(module.parameters()).dtype, torch.float32)
    largest = torch.finfo(dtype).max
    return largest if module.clipping.algorithm != "none" else math.sqrt(largest)


def advice(origin: Origin | None, *, clipped: bool) -> str:
    """Remedies for data that are not finite, an unstable recurrence, or exploding gradients."""
    if origin is not None and origin.what == "the input":
        return "check the task's data"
    remedies = [] if clipped else ["clipping=norm"]
    remedies += ["a smaller optimizer.lr"]
    if origin is None:
        remedies += ["a smaller chunk size, through which less gradient can build up"]
    elif origin.what.startswith("the hidden state"):
        remedies += ["initialisation=orthogonal, or a smaller scale of the identity"]
    return f"try {' or '.join(remedies)}"
