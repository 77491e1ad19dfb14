"""Truncated backpropagation through time with a chunk size chosen from the decay of the gradient."""

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from bptt.buffers import kept_buffers
from bptt.contracts import at_least, between, valid_seed
from bptt.estimators.base import Backward, Estimator, Update
from bptt.estimators.decay import decay_rate
from bptt.estimators.sliding import Sliding
from bptt.model import SequenceModel
from bptt.shapes import State, detach, leaves
from bptt.tasks.base import Batch, Loss


class Adaptive(Estimator):
    """Chooses the smallest chunk size K whose estimated relative bias is below `delta` (Aicher, Foti & Fox 2019).

    As in the paper, training slides windows of 2K − 1 timesteps by K, with the loss on the last K. K is chosen at the
    first batch and again every `every_n_batches` batches. To choose it, `num_samples` timesteps s are drawn from the
    batch. For each, the gradients ∂L_s/∂h_{s−k} of its loss alone with respect to all layers' states are computed for
    lags k below `lags`. φ_k, the mean of their norms at lag k, bounds the bias of leaving out that lag. The norm of
    their mean, summed over lags, measures the gradient itself. Both are gradients with respect to states, so K does
    not depend on the scale of inputs or parameters. A sample counts only at lags inside the batch, and in each
    sequence only since its last reset. See `smallest_chunk_size`. K stays between `min_chunk_size` and
    `max_chunk_size`.

    seed: seed of the drawn timesteps, which are the same in every process.
    """

    def __init__(
        self,
        delta: float,
        *,
        lags: int = 100,
        every_n_batches: int = 10,
        num_samples: int = 20,
        min_chunk_size: int = 2,
        max_chunk_size: int = 100,
        seed: int = 0,
    ):
        between(0, float("inf"), delta=delta, open_low=True, remedy="it is the relative bias allowed, such as 0.1")
        at_least(2, lags=lags)
        at_least(1, every_n_batches=every_n_batches, num_samples=num_samples, min_chunk_size=min_chunk_size)
        at_least(min_chunk_size, max_chunk_size=max_chunk_size)
        valid_seed(seed=seed)
        self.delta = delta
        self.lags = lags
        self.every_n_batches = every_n_batches
        self.num_samples = num_samples
        self.min_chunk_size = min_chunk_size
        self.max_chunk_size = max_chunk_size
        self.chunk_size = max_chunk_size
        self.batches = 0
        self.generator = torch.Generator().manual_seed(seed)

    def check(self, model: SequenceModel, batch_size: int, length: int) -> None:
        super().check(model, batch_size, length)
        model.require_repeatable("adaptive truncation")

    def updates(
        self, model: SequenceModel, loss: Loss, batch: Batch, state: State, backward: Backward = Tensor.backward
    ) -> Iterator[Update]:
        if self.batches % self.every_n_batches == 0:
            self.chunk_size = self.choose(model, loss, batch, state)
        self.batches += 1
        return Sliding(self.chunk_size, 2 * self.chunk_size - 1).updates(model, loss, batch, state, backward)

    def drawing_anew(self) -> "Adaptive":
        anew = copy.copy(self)
        anew.every_n_batches = 1
        return anew

    def scalars(self) -> Mapping[str, float]:
        return {"chunk_size": float(self.chunk_size)}

    def state_dict(self) -> dict[str, Any]:
        return {"chunk_size": self.chunk_size, "batches": self.batches, "generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.chunk_size, self.batches = state_dict["chunk_size"], state_dict["batches"]
        self.generator.set_state(state_dict["generator"])

    def choose(self, model: SequenceModel, loss: Loss, batch: Batch, state: State) -> int:
        """Choose K from one batch, or keep it if the batch has no loss on any process.

        Gradients, random generators and buffers of training stay unchanged.
        """
        lags, device = min(self.lags, batch.num_timesteps), batch.inputs.device
        # Columns by lag: number of samples, ‖∂L_s/∂h_{s−k}‖, and the gradient itself. One tensor, so that one
        # all_reduce suffices.
        # In float64, because squares of float32 gradients overflow above 1.8e19 and underflow below 1e-23.
        sums = torch.zeros(lags, 2 + sum(leaf[0].numel() for leaf in leaves(state)), device=device, dtype=torch.float64)
        forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with forked, kept_buffers(model), torch.no_grad():
            at, state = 0, detach(state)
            for s in self.draw(batch):
                begin = max(0, s + 1 - lags)
                if begin > at:
                    passed = batch.between(at, begin)
                    at, state = begin, model.advance_in_blocks(passed.inputs, state, passed.resets)
                window = batch.between(begin, s + 1)
                gradients = gradients_by_lag(model, loss, window, state).double()
                norms = gradients.norm(dim=2, keepdim=True)
                sums[: len(gradients)] += torch.cat([reached(window, norms), norms, gradients], dim=2).mean(1)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums)  # so that every process chooses the same chunk size
        sums = sums[sums[:, 0] > 0]
        if not len(sums):
            return self.chunk_size
        phi, means = (sums[:, 1:] / sums[:, :1]).split([1, sums.shape[1] - 2], dim=1)
        chosen = smallest_chunk_size(phi.flatten(), means.cumsum(0).norm(dim=1), delta=self.delta)
        return min(max(chosen or self.max_chunk_size, self.min_chunk_size), self.max_chunk_size)

    def draw(self, batch: Batch) -> list[int]:
        """Draw timesteps with a loss, sorted. Every process consumes the same random numbers, whatever its mask."""
        places = (
            torch.tensor(batch.weights(), dtype=torch.bool).nonzero().flatten()
        )  # a tensor: a list takes 40 bytes an entry
        shares = torch.rand(self.num_samples, dtype=torch.float64, generator=self.generator)
        drawn: list[int] = places[(shares.sort().values * len(places)).long()].tolist() if len(places) else []
        return drawn


def smallest_chunk_size(phi: Float[Tensor, " K"], norms: Float[Tensor, " K"], *, delta: float) -> int | None:
    """The smallest K with bias(K) / ĝ_low < δ, or None if there is none.

    phi: φ_k for lags 0 … K − 1. norms: ‖gradient of lags 0 … k‖ for each of these k.
    bias(K) = Σ_{k ≥ K} φ_k. Lags beyond the last one are added as a geometric tail φ β / (1 − β), where log β is the
    least-squares slope of log φ_k against k; the tail is infinite if φ does not decay or is not finite.
    ĝ_low = max_k (‖gradient of k lags‖ − bias(k)).
    """
    if not phi.isfinite().all():  # gradients that overflow
        return None
    rate = decay_rate(phi)
    if math.isnan(rate):
        return 1
    tail = float(phi[-1]) * rate / (1 - rate) if rate < 1 else math.inf
    biases = [float(phi[k:].sum()) + tail for k in range(1, len(phi) + 1)]
    lower = max(norm - bias for norm, bias in zip(norms.tolist(), biases))
    if lower <= 0:
        return None
    return next((k for k, bias in enumerate(biases, start=1) if bias / lower < delta), None)


def gradients_by_lag(model: SequenceModel, loss: Loss, window: Batch, state: State) -> Float[Tensor, "K B N"]:
    """∂L_s/∂(state at s − k) by lag k, for the loss L_s of each sequence at the window's end; N counts all states."""
    _, _, records = model.forward(
        window.inputs, state, window.resets
    )  # not a call, which would run the hooks of measures
    last = window.num_timesteps - 1
    outputs = model.top(records)
    seed = torch.zeros_like(outputs)
    with torch.enable_grad():
        top = outputs[last:].detach().requires_grad_()
        (seed[last:],) = torch.autograd.grad(loss(model.readout(top), window.between(last, last + 1)), top)
    states = [leaf for layer in model.gradients(records, seed) for leaf in leaves(layer.states.states)]
    return torch.cat([leaf.reshape(*seed.shape[:2], -1) for leaf in states], dim=2).flip(0) * window.batch_size


def reached(window: Batch, norms: Float[Tensor, "K B 1"]) -> Float[Tensor, "K B 1"]:
    """B/n at the lags between which and the window's end a sequence does not begin again, for the n with a loss there.

    Else 0. The gradients of these n sequences have the same factor, as L_s is their mean.
    """
    if window.resets is None:
        return torch.ones_like(norms)
    later = torch.zeros_like(window.resets, dtype=torch.long)
    later[:-1] = window.resets[1:].flip(0).cumsum(0).flip(0)
    begun = (later == 0).flip(0).unsqueeze(-1).to(norms.dtype)
    if window.mask is None:
        return begun
    at_end = window.mask[-1].unsqueeze(-1).to(norms.dtype)
    return begun * at_end / at_end.mean()
