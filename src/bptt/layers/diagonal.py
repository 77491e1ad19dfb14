"""Linear recurrences with a diagonal transition, whose BPTT is a scan backwards in time."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bptt.contracts import between
from bptt.layers.base import Layer, node_of, vjp
from bptt.layers.full_precision import (
    full_precision_no_grad,
    in_full_precision,
    promoted,
    with_graph,
    without_subnormals,
)
from bptt.layers.record import LayerGradients, Record, StateGradients, num_losses, previous_hidden
from bptt.layers.reset import Reset
from bptt.layers.scan import scan, scan_
from bptt.shapes import Features, Hidden, Input, Mask, Outputs, State

SMALLEST = 1e-15  # float32 holds its square times the smallest number that torch.rand draws
LARGEST = 1 - 2**-22  # a sum of float32 numbers below it does not round to 1


class DiagonalLayer(Layer):
    """h_t = a_t ∘ h_{t−1} + b_t, where a_t and b_t depend on the input x_t alone; state h (B, H).

    A subclass only implements `coefficients`. The forward pass is a scan, and so is the backward pass, in
    reversed time: λ_t = g_t + conj(a_{t+1}) ∘ λ_{t+1},  dL/db_t = λ_t,  dL/da_t = λ_t ∘ conj(h_{t−1}). Autograd only
    differentiates the coefficients, which are computed for all timesteps at once.

    complex_units: the H numbers of h, a and b are H/2 complex numbers, as pairs (Re, Im) side by side. So states,
        gradients and checkpoints are real, norms are those of the complex vectors, and each complex eigenvalue is a
        2 × 2 block of the Jacobian. A linear map of h, such as the readout, is y = Re(C h) for a complex matrix C.
    """

    complex_units = False

    @abstractmethod
    def coefficients(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """a and b (…, H) for inputs (…, D), in at least float32; a (H,) if it is constant in time."""

    def initial_state(self, batch_size: int) -> Hidden:
        return next(self.parameters()).new_zeros(batch_size, self.hidden_size)

    def step(self, input: Input, state: Hidden) -> Hidden:
        a, b = self.coefficients(input)
        if not self.complex_units:
            return (a * state + b).to(state.dtype)
        (a_re, a_im), (h_re, h_im) = (pairs.unflatten(-1, (-1, 2)).unbind(-1) for pairs in (a, state))
        product = torch.stack([a_re * h_re - a_im * h_im, a_re * h_im + a_im * h_re], -1)
        return (product.flatten(-2) + b).to(state.dtype)

    def step_within_units(self, input: Input, state: Hidden) -> Hidden:
        """`step`: no unit acts on another one."""
        return self.step(input, state)

    def forward(self, inputs: Features, state: State) -> tuple[Outputs, State]:
        assert isinstance(state, Tensor)
        a, b = self.coefficients(inputs)
        outputs, final = ScanBPTT.apply(self, a, b, state.to(b.dtype), None)
        return outputs.to(state.dtype), final.to(state.dtype)

    def forward_with_resets(self, inputs: Features, state: State, reset: Reset) -> tuple[Outputs, State]:
        """The same scan, with a_t = 0 and a_t ∘ (state that sequences begin with) + b_t at resets."""
        assert isinstance(state, Tensor)
        a, b = self.coefficients(inputs)
        again = reset.mask.unsqueeze(-1)
        if reset.state.requires_grad or reset.state.any():
            b = torch.where(again, b + self._real(self._units(a) * self._units(reset.state.to(a.dtype))).to(b.dtype), b)
        a, mask = (a, reset.mask) if a.dim() == 1 else (torch.where(again, 0, a), None)
        outputs, final = ScanBPTT.apply(self, a, b, state.to(b.dtype), mask)
        return outputs.to(state.dtype), final.to(state.dtype)

    def adjoint(self, record: Record, seed: Outputs, final: State | None = None) -> StateGradients:
        with full_precision_no_grad(record.outputs):
            a = factors(in_full_precision(self).coefficients, promoted(record.inputs))
            return self.backward_scan(a, promoted(seed), final, record.reset)

    def gradients(
        self, record: Record, seed: Outputs, final: State | None = None, *, parameters: bool = True
    ) -> LayerGradients:
        if (times := num_losses(record, seed)) > 1:
            assert not parameters, "the gradients of several losses would be added up"
            record = record.repeated(times)
        layer = in_full_precision(self)
        with full_precision_no_grad(record.outputs):
            inputs = promoted(record.inputs).requires_grad_()
            with with_graph():
                a, b = layer.coefficients(inputs)
            states = self.backward_scan(a.detach(), promoted(seed), final, record.reset)
            at_a = self.gradient_at_a(states.hidden, promoted(previous_hidden(record)), a)
            named = dict(layer.named_parameters()) if parameters else {}
            at_inputs, *rest = vjp([a, b], [inputs, *named.values()], [at_a, states.hidden])
        return LayerGradients(states, at_inputs, dict(zip(named, rest)))

    def on_adjoint(self, outputs: Outputs, callback: Callable[[StateGradients], None]) -> None:
        node = node_of(outputs)
        if getattr(node, "layer", None) is self:  # of `ScanBPTT`
            node.adjoint_callbacks.append(callback)

    def slope(self, record: Record) -> Outputs:
        """1, since the recurrence is linear and no unit saturates."""
        return torch.ones_like(promoted(record.outputs))

    def scan(self, a: Tensor, b: Tensor, initial: Hidden, again: Mask | None) -> Outputs:
        """h_1 … h_T."""
        return self._real(scan(self._units(a), self._units(b), self._units(initial), again=again))

    def backward_scan(self, a: Tensor, seed: Outputs, final: Any, reset: Reset | None = None) -> StateGradients:
        """λ_t = g_t + conj(a_{t+1}) ∘ λ_{t+1}, and conj(a_1) ∘ λ_1, for m losses side by side, (T, m·B, H).

        A sequence that begins again at t + 1 has λ_t = g_t; conj(a_{t+1}) ∘ λ_{t+1} goes to the state it begins with.
        """
        losses = seed.shape[1] // (reset.mask if reset is not None else a if a.dim() > 1 else seed).shape[1]
        factors = self._units(a).conj().resolve_conj()
        totals = self._units(seed.clone()).unflatten(1, (losses, -1))
        if final is not None:
            totals[-1] += self._units(promoted(final)).unflatten(0, (losses, -1))
        again = None if reset is None else reset.mask.unsqueeze(1).expand(-1, losses, -1)
        if a.dim() > 1:
            factors = factors.unsqueeze(1)
            passed = factors if again is None else torch.where(again.unsqueeze(-1), 0, factors)
            scan_(passed[1:], totals[:-1], totals[-1], reverse=True)
        else:
            scan_(factors, totals[:-1], totals[-1], reverse=True, again=None if again is None else again[1:])
        at_initial = (factors if a.dim() == 1 else factors[0]).to(totals.dtype) * totals[0]
        at_resets = None
        if again is not None:
            chosen = again.nonzero(as_tuple=True)
            through = factors if a.dim() == 1 else factors.expand_as(totals)[chosen]
            at_initial[again[0]] = 0
            sent = through.to(totals.dtype) * totals[chosen]
            at_resets = torch.zeros_like(at_initial).index_put_(chosen[1:], sent, accumulate=True)
            at_resets = self._real(at_resets.flatten(0, 1))
        return StateGradients(self._real(totals.flatten(1, 2)), self._real(at_initial.flatten(0, 1)), at_resets)

    def gradient_at_a(self, totals: Outputs, before: Outputs, a: Tensor, *, by_sequence: bool = False) -> Tensor:
        """dL/da_t = λ_t ∘ conj(h_{t−1}); summed over timesteps if a is constant, and sequences unless `by_sequence`."""
        products = self._units(before).conj() * self._units(totals)
        summed = products.sum(0 if by_sequence else (0, 1)) if a.dim() == 1 else products
        return self._real(summed).to(a.dtype)

    def _units(self, real: Tensor) -> Tensor:
        """Numbers of the recurrence: (…, H), or (…, H/2) complex."""
        return torch.view_as_complex(real.unflatten(-1, (-1, 2)).contiguous()) if self.complex_units else real

    def _real(self, units: Tensor) -> Tensor:
        return torch.view_as_real(units.resolve_conj()).flatten(-2) if self.complex_units else units


class ScanBPTT(torch.autograd.Function):
    """The recurrence as a scan, with manual BPTT as its backward pass, which calls `adjoint_callbacks`."""

    @staticmethod
    def forward(
        ctx: Any, layer: DiagonalLayer, a: Tensor, b: Tensor, initial: Hidden, again: Mask | None
    ) -> tuple[Tensor, Tensor]:
        outputs = layer.scan(a, b, initial, again)
        ctx.layer = layer
        ctx.reset = None if again is None else Reset(again, (), torch.zeros_like(initial))
        ctx.adjoint_callbacks = []
        ctx.save_for_backward(a, initial, outputs)
        return outputs, outputs[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, seed: Outputs, final: Hidden) -> tuple[Tensor | None, ...]:
        a, initial, outputs = ctx.saved_tensors
        with without_subnormals():
            states, at_a = ctx.layer.backward_scan(a, seed, final, ctx.reset), None
            for callback in ctx.adjoint_callbacks:
                callback(states)
            if ctx.needs_input_grad[1]:
                record = Record(outputs, initial, outputs, None, reset=ctx.reset)
                at_a = ctx.layer.gradient_at_a(states.hidden, previous_hidden(record), a)
        return None, at_a, states.hidden, states.initial, None


def check_radii(smallest: float, *, min_radius: float, max_radius: float) -> None:
    """ValueError unless smallest <= min_radius <= max_radius, and float32 tells max_radius from 0 and both from 1."""
    remedy = "float32 tells numbers from 1e-15 to 0.9999997 from 0 and 1"
    between(smallest, LARGEST, max_radius=max_radius, min_radius=min_radius, remedy=remedy)
    between(max(min_radius, SMALLEST), LARGEST, max_radius=max_radius, remedy=remedy)


def factors(coefficients: Callable[[Tensor], tuple[Tensor, Tensor]], inputs: Tensor) -> Tensor:
    """a_1 … a_T alone; (H,) if it is constant, for which one timestep of the inputs is enough."""
    a, _ = coefficients(inputs[:1])
    return a if a.dim() == 1 else coefficients(inputs)[0]


def affine(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x + b, in at least float32: factors near 1 need more digits than half precision has."""
    kind = torch.promote_types(inputs.dtype, weight.dtype)
    product = nn.functional.linear(inputs.to(kind), weight.to(kind), None if bias is None else bias.to(kind))
    return in_at_least_float32(product)


def in_at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
