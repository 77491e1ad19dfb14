"""RTRL of diagonal recurrences, a stride at a time by scans, without a Jacobian of all states."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import vjp, vmap

from bptt.estimators.sparse_influence import Sparse, entries, level_of_states, unit_of_states
from bptt.estimators.transition import Joined, Linearised, Theta, Transition
from bptt.layers.diagonal import DiagonalLayer, factors
from bptt.shapes import Features, Hidden, Outputs

States = Float[Tensor, "T B S"]


class Level(NamedTuple):
    """One layer h_t = a_t ∘ h_{t−1} + b_t over a stride.

    below: the output of the level below; for the lowest layer, the inputs of the encoder.
    """

    transition: Transition
    theta: Theta
    position: int
    layer: DiagonalLayer
    below: Features
    before: Outputs
    after: Outputs
    a: Tensor

    def gradient(self, signal: Outputs) -> tuple[Theta, Hidden]:
        """dL/dθ through this layer with the state before the stride fixed, and dL/d(that state)."""
        states = self.layer.backward_scan(self.a, signal, None)
        at_a = self.layer.gradient_at_a(states.hidden, self.before, self.a)
        pull = vjp(lambda theta: self.transition.coefficients(theta, self.position, self.below), self.theta)[1]
        return pull((at_a, states.hidden))[0], states.initial

    def within_timestep(self, signal: Outputs) -> tuple[Theta, Features]:
        """dL/dθ and the gradient at `below`, of ∂L_t/∂h_t within the same timestep."""
        at_a = self.layer.gradient_at_a(signal, self.before, self.a)
        pull = vjp(
            lambda theta, below: self.transition.coefficients(theta, self.position, below), self.theta, self.below
        )[1]
        return pull((at_a, signal))

    def through_block(self, at_output: Float[Tensor, "T B W"]) -> tuple[Theta, Features, Outputs]:
        """dL/dθ and the gradients at `below` and at the layer's outputs, of that at the level's output."""
        pull = vjp(
            lambda theta, below, outputs: self.transition.stream_above(theta, self.position, below, outputs),
            *(self.theta, self.below, self.after),
        )[1]
        return pull(at_output)

    def influence(self, final: Float[Tensor, " H"]) -> tuple[Float[Tensor, "B P"], Hidden]:
        """vᵀ ∂h_T/∂θ with the state h_0 before the stride fixed, and vᵀ ∂h_T/∂h_0, for v = `final`."""
        batch_size, constant = self.after.shape[1], self.a.dim() == 1
        width = 1 if constant else batch_size  # with a constant a, all sequences have the same products
        states = self.layer.backward_scan(self.a, torch.zeros_like(self.after[:, :width]), final.expand(width, -1))
        at_b = states.hidden.expand(-1, batch_size, -1)
        at_a = self.layer.gradient_at_a(at_b, self.before, self.a.expand_as(at_b))
        at_a = at_a.sum(0) if constant else at_a.unsqueeze(2)  # the sequences apart, each as a batch of one

        def pulled_back(below: Tensor, at_a: Tensor, at_b: Tensor) -> Theta:
            return vjp(lambda theta: self.transition.coefficients(theta, self.position, below), self.theta)[1](
                (at_a, at_b)
            )[0]

        arguments = self.below.unsqueeze(2), at_a, at_b.unsqueeze(2)
        influences = vmap(pulled_back, (1, 0 if constant else 1, 1))(*arguments)
        return influences, states.initial.expand(batch_size, -1)


def accumulate(
    steps: Linearised, after: States, influence: Sparse, direct: States | None, *, last: bool = False
) -> tuple[Theta, Sparse]:
    """The gradient of a stride of T timesteps and the influence after it, for layers h_t = a_t ∘ h_{t−1} + b_t.

    From the influence J_0 of each unit's parameters on the unit's state before the stride,
        dL/dθ = Σ_t [λ_t ∘ conj(h_{t−1}) ∂a_t/∂θ + λ_t ∂b_t/∂θ] + conj(a_1) λ_1 J_0
        J_T   = Σ_t (a_T ⋯ a_{t+1}) (h_{t−1} ∂a_t/∂θ + ∂b_t/∂θ) + (a_T ⋯ a_1) J_0
    with λ_t = g_t + conj(a_{t+1}) ∘ λ_{t+1} inside the stride, and the coefficients of all timesteps at once. These are
    RTRL's sums in another order.

    direct: ∂L_t/∂s_t with all other states fixed; None without a loss. A layer below another one has as g_t in addition
        what it receives from there within the timestep.
    last: leave the influence as it is, since it is not needed after these timesteps.
    """
    transition = steps.transition
    levels = levels_of(steps, after)
    gradient = torch.zeros_like(steps.theta)
    if direct is not None:
        gradient, at_initial = within_stride(levels, direct.split(transition.widths, -1), influence.pattern.carried)
        gradient += influence.gradient(at_initial)

    if last:
        return gradient, influence
    rows, products = [], []
    for row in influence.pattern.sums:
        influences = [level.influence(final) for level, final in zip(levels, row.split(transition.widths))]
        rows.append(torch.stack([one for one, _ in influences]).sum(0))
        products.append(torch.cat([product for _, product in influences], -1))
    return gradient, moved(influence, torch.stack(rows, 1), torch.stack(products, 1), transition)


def within_stride(
    levels: list[Level], direct: Sequence[Outputs], carried: Bool[Tensor, " P"] | None
) -> tuple[Theta, Joined]:
    """dL/dθ with the states before the stride fixed, and the gradient at these states.

    carried: parameters that λ_t is for; the others are credited within the timestep alone.
    """
    gradient, at_initial = torch.zeros_like(levels[0].theta), []
    blocks = levels[0].transition.model.blocks is not None
    above: Tensor | None = None  # the gradient at the level's output through the layers above
    for level in reversed(levels):
        signal = direct[level.position]
        beside: Tensor | None = None
        if above is not None and blocks:
            at_theta, beside, at_outputs = level.through_block(above)
            gradient += at_theta
            signal = signal + at_outputs
        elif above is not None:
            signal = signal + above
        own, initial = level.gradient(signal)
        at_initial.append(initial)
        if level.position or carried is not None:
            at_theta, above = level.within_timestep(signal)
            above = above if beside is None else above + beside
            own = own if carried is None else torch.where(carried, own, at_theta)
        gradient += own
    return gradient, torch.cat(at_initial[::-1], -1)


def levels_of(steps: Linearised, after: States) -> list[Level]:
    transition, theta, below = steps.transition, steps.theta, steps.features
    levels: list[Level] = []
    parts = zip(transition.model.levels, steps.before.split(transition.widths, -1), after.split(transition.widths, -1))
    for index, (layer, before, outputs) in enumerate(parts):
        assert isinstance(layer, DiagonalLayer)
        if index:
            below = transition.stream_above(theta, index - 1, below, levels[-1].after)
        a = factors(partial(transition.coefficients, theta, index), below)
        levels.append(Level(transition, theta, index, layer, below, before, outputs, a))
    return levels


def moved(
    influence: Sparse, direct: Float[Tensor, "B C P"], products: Float[Tensor, "B C S"], transition: Transition
) -> Sparse:
    """The influence after a stride, from the sum of each row of the pattern, and the products a_T ⋯ a_1."""
    pattern, layer, unit = influence.pattern, level_of_states(transition), unit_of_states(transition)
    values = []
    for block, before in zip(pattern.blocks, influence.values):
        of, by = block.states.unsqueeze(2), block.states.unsqueeze(1)
        product = products[:, pattern.rows[of], by] * ((layer[of] == layer[by]) & (unit[of] == unit[by]))
        values.append(entries(direct, block, pattern) + product @ before)
    return Sparse(pattern, values)
