"""Influences that hold only what a sparsity pattern allows, stored in blocks.

Longer than 200 lines: one data structure, its pattern and its products.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from math import ceil
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bptt.estimators.transition import Linearised, Transition
from bptt.layers.diagonal import DiagonalLayer
from bptt.layers.full_precision import promoted
from bptt.layers.reset import select_rows
from bptt.model import SequenceModel
from bptt.shapes import leaves


class Block(NamedTuple):
    """G groups of M parameters; each group acts on its own N states and no others.

    passes: 1 for states whose influence is passed on in time, 0 for others. None: all pass it on.
    """

    states: Int[Tensor, "G N"]
    parameters: Int[Tensor, "G M"]
    passes: Float[Tensor, "G N"] | None = None


class Pattern(NamedTuple):
    """Sparsity pattern of ∂s_t/∂θ_direct.

    rows: assigns each state to one of C rows so that no two states of a row depend on the same parameter. The gradient
        of the sum of a row then contains the gradients of all its states.
    sums: the cotangent of each row's sum.
    within_layers: parameters count for the states of their own layer alone.
    carried: the parameters whose influence is passed on in time; None: all.
    """

    blocks: list[Block]
    rows: Int[Tensor, " S"]
    sums: Float[Tensor, "C S"]
    within_layers: bool = False
    carried: Bool[Tensor, " P"] | None = None

    @property
    def num_rows(self) -> int:
        """Numbers that a sequence needs for a parameter: of the influence on average, or of the direct term if more."""
        parameters = sum(block.parameters.numel() for block in self.blocks)
        numbers = sum(block.states.numel() * block.parameters.shape[1] for block in self.blocks)
        return max(len(self.sums), ceil(numbers / max(1, parameters)))


class Sparse(NamedTuple):
    """The influence of each block's parameters on its states; all other influence is taken as 0."""

    pattern: Pattern
    values: list[Float[Tensor, "B G N M"]]

    def restarted(self, chosen: Bool[Tensor, " B"], begun: "Sparse") -> "Sparse":
        """The influence `begun` for the chosen sequences."""
        pairs = zip(begun.values, self.values, strict=True)
        return Sparse(self.pattern, [select_rows(chosen, new, kept) for new, kept in pairs])

    def gradient(self, direct: Float[Tensor, "B S"]) -> Float[Tensor, " P"]:
        """(∂L/∂s_t) ∂s_t/∂θ, summed over sequences."""
        gradient = direct.new_zeros(sum(block.parameters.numel() for block in self.pattern.blocks))
        for block, influence in zip(self.pattern.blocks, self.values):
            gradient[block.parameters] = torch.einsum("bgn,bgnm->gm", direct[:, block.states], influence)
        return gradient


def begin(transition: Transition, initial: Float[Tensor, "B S"], pattern: Pattern) -> Sparse:
    """The influence of the parameters on an initial state."""
    direct = transition.initial_vjp(initial, pattern.sums.expand(transition.batch_size, -1, -1))
    return Sparse(pattern, [entries(direct, block, pattern) for block in pattern.blocks])


def advance(steps: Linearised, influence: Sparse) -> Iterator[Sparse]:
    """J_t = M ∘ [(∂s_t/∂s_{t−1}) J_{t−1}] + (∂s_t/∂θ)_direct at every timestep, with the pattern M."""
    pattern, values = influence
    for group in steps.groups(len(pattern.sums)):
        sums = pattern.sums.expand(*group.before.shape[:2], -1, -1)
        for direct, jacobian in zip(group.vjp(sums), group.jacobian()):
            values = [
                entries(direct, block, pattern) + within(jacobian, block) @ passed_on(block, before)
                for block, before in zip(pattern.blocks, values)
            ]
            yield Sparse(pattern, values)


def passed_on(block: Block, values: Float[Tensor, "B G N M"]) -> Float[Tensor, "B G N M"]:
    """The influence on those states of a block that pass it on, 0 for the others."""
    return values if block.passes is None else block.passes.unsqueeze(-1) * values


def entries(direct: Float[Tensor, "B C P"], block: Block, pattern: Pattern) -> Float[Tensor, "B G N M"]:
    """The direct derivatives of a block's states with respect to its parameters."""
    return direct[:, pattern.rows[block.states].unsqueeze(2), block.parameters.unsqueeze(1)]


def within(jacobian: Float[Tensor, "B S S"], block: Block) -> Float[Tensor, "B G N N"]:
    """The Jacobian of each group's states with respect to the same states before."""
    return jacobian[:, block.states.unsqueeze(2), block.states.unsqueeze(1)]


# Which parameters act on which states follows from a model's equations and fixed weights, so it is looked for once.
PATTERNS: WeakKeyDictionary[SequenceModel, dict[tuple[Any, ...], tuple[Any, Pattern]]] = WeakKeyDictionary()


def find_pattern(transition: Transition, search: Callable[..., Pattern], **options: Any) -> Pattern:
    """The pattern that `search`, `pattern_in_time` or `pattern_of_layers`, finds for a model with these options.

    `carried` is always that of the encoder and blocks, so that it matters whether it is given alone.
    """
    chosen = [(name, name == "carried" or value) for name, value in options.items() if value is not None]
    initial = transition.initial
    learnt = transition.begun.requires_grad
    key = (search, *chosen, transition.equations, *transition.trained, learnt, initial.device, initial.dtype)
    model, known = transition.model, PATTERNS.setdefault(transition.model, {})
    frozen = (each for name, each in model.named_parameters() if name in transition.fixed and name[:8] != "readout.")
    fixed = [each._version for each in (*frozen, *model.buffers())]  # changes with their values
    found = known.get(key)
    if found is None or found[0] != fixed:
        known[key] = found = fixed, search(transition, **options)
    return found[1]


def pattern_in_time(
    transition: Transition,
    *,
    reach: Literal["timestep", "layers", "units"] = "timestep",
    spatial: bool = False,
    carried: Bool[Tensor, " P"] | None = None,
) -> Pattern:
    """Pattern of all parameters that act on a state.

    reach: `timestep`: a parameter counts for the states that it acts on within one timestep. `layers`, `units`: also
        for those that can be reached from these, see `reachable_states`, so that the pattern holds all of its
        influence.
    spatial: only states of a parameter's own layer pass its influence on in time. That is the lowest layer on which it
        acts.
    carried: the parameters whose influence is passed on in time at all; None: all.
    """
    acting = list(dependence(transition))
    if reach != "timestep":
        acting = united(acting, reachable_states(transition, within_units=reach == "units"))
    pattern = grouped(transition, acting, carried)
    if not spatial:
        return pattern
    own, lowest = level_of_states(transition), lowest_layer(transition, acting)
    if carried is not None:
        lowest[~carried] = len(own)
    passes = [own[block.states] == lowest[block.parameters[:, :1]] for block in pattern.blocks]
    blocks = [block._replace(passes=each.to(pattern.sums)) for block, each in zip(pattern.blocks, passes)]
    return pattern._replace(blocks=blocks, carried=carried)


def pattern_of_layers(transition: Transition, *, carried: Bool[Tensor, " P"] | None) -> Pattern:
    """Pattern of diagonal layers: parameters count for the states of their own layer alone, if they are `carried`."""
    own, units = level_of_states(transition), unit_of_states(transition)
    same_unit = (own.unsqueeze(1) == own) & (units.unsqueeze(1) == units)
    acting = united(list(dependence(transition)), same_unit)  # the parts of a complex unit pass influence to each other
    if carried is not None:
        lowest = lowest_layer(transition, acting)
        lowest[~carried] = len(acting)
        acting = [parameters[lowest[parameters] == level] for parameters, level in zip(acting, own.tolist())]
    return grouped(transition, acting)._replace(within_layers=True, carried=carried)


def united(acting: list[Int[Tensor, " _"]], reachable: Bool[Tensor, "S S"]) -> list[Int[Tensor, " _"]]:
    """For each state (row), the parameters that act on a state from which it can be reached."""
    rows = [tuple(row.nonzero().flatten().tolist()) for row in reachable]
    unions = {row: torch.cat([acting[state] for state in row]).unique() for row in set(rows)}  # most rows are equal
    return [unions[row] for row in rows]


def lowest_layer(transition: Transition, acting: list[Int[Tensor, " _"]]) -> Int[Tensor, " P"]:
    """The lowest layer on which each parameter acts; S if none."""
    own = level_of_states(transition)
    lowest = torch.full((transition.num_parameters,), len(own), device=own.device)
    for state in reversed(range(len(acting))):
        lowest[acting[state]] = own[state]
    return lowest


def grouped(
    transition: Transition, acting: list[Int[Tensor, " _"]], carried: Bool[Tensor, " P"] | None = None
) -> Pattern:
    """Group parameters that act on the same states, and stack groups of equal size in a block.

    acting: for each state, the parameters that act on it. carried: those of a group are all carried, or none is.
    """
    device = transition.initial.device
    labels = torch.zeros(transition.num_parameters, dtype=torch.float64, device=device)
    if carried is not None:
        labels[carried] = 1.0
    draws = torch.rand(len(acting), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for parameters, draw in zip(acting, draws.tolist()):
        labels[parameters] += draw  # a sum of random numbers identifies a set of states
    groups = labels.unique(return_inverse=True)[1]
    sizes = groups.bincount().tolist()
    acts = torch.zeros(len(acting), len(sizes), dtype=torch.bool, device=device)
    for state, parameters in enumerate(acting):
        acts[state, groups[parameters]] = True

    blocks = defaultdict(list)
    for group, parameters in enumerate(groups.argsort(stable=True).split(sizes)):
        states = acts[:, group].nonzero().flatten()
        blocks[len(states), len(parameters)].append((states, parameters))
    rows: list[int] = []
    taken: list[Tensor] = []  # for each row, the groups that act on its states
    for on_state in acts:
        row = next((row for row, others in enumerate(taken) if not (others & on_state).any()), len(taken))
        taken[row:] = [on_state | taken[row], *taken[row + 1 :]] if row < len(taken) else [on_state]
        rows.append(row)
    sums = torch.eye(len(taken), device=device)[:, rows].to(promoted(transition.initial))
    stacked = [Block(*map(torch.stack, zip(*members))) for members in blocks.values()]
    return Pattern(stacked, torch.tensor(rows, device=device), sums)


def level_of_states(transition: Transition) -> Int[Tensor, " S"]:
    """The layer, counted from the input, that each number of the joined state belongs to."""
    sizes = [sum(leaf[0].numel() for leaf in leaves(state)) for state in transition.given]
    return torch.repeat_interleave(torch.tensor(sizes)).to(transition.initial.device)


def unit_of_states(transition: Transition) -> Int[Tensor, " S"]:
    """The unit within its layer that each number of the joined state belongs to."""
    units = []
    for layer, state in zip(transition.model.levels, transition.given):
        pairs = isinstance(layer, DiagonalLayer) and layer.complex_units
        units += [torch.arange(leaf[0].numel()) // (2 if pairs else 1) for leaf in leaves(state)]
    return torch.cat(units).to(transition.initial.device)


def reachable_states(transition: Transition, *, within_units: bool = False) -> Bool[Tensor, "S S"]:
    """True where the state of the row can be reached from that of the column, now or later.

    From a state of a diagonal layer: its own unit; of another layer: the whole layer; and all layers above.

    within_units: from a state of any layer its own unit, and all layers above.
    """
    levels, units = level_of_states(transition), unit_of_states(transition)
    diagonal = torch.tensor([within_units or isinstance(layer, DiagonalLayer) for layer in transition.model.levels])
    same_layer, same_unit = levels.unsqueeze(1) == levels, units.unsqueeze(1) == units
    return (levels.unsqueeze(1) > levels) | same_layer & (same_unit | ~diagonal.to(levels.device)[levels])


def dependence(transition: Transition) -> Iterator[Int[Tensor, " N"]]:
    """Yield, for each state, the parameters that it depends on within one timestep or through a learnt initial state.

    A parameter counts if the derivative is not 0 at any of three points: random parameters, small positive ones, and
    small negative ones. At small parameters no unit is inactive or saturated, whatever the depth.
    """
    draws = torch.Generator().manual_seed(0)
    sizes = (transition.num_parameters, transition.model.input_size, transition.num_states)
    units = transition.units()
    # Not in the default dtype: in bfloat16 a number is exactly 0 once in 256, and its parameters would act on no state.
    kind: dict[str, Any] = {"dtype": torch.float32, "generator": draws}
    theta, input, state = (torch.rand(1, size, **kind).to(units) for size in sizes)
    small = theta / (sizes[1] + sizes[2])
    normal = torch.randn(theta.shape, **kind).to(units)
    steps = [
        Linearised(transition, point[0], input.unsqueeze(0), state.unsqueeze(0)) for point in (normal, small, -small)
    ]
    with torch.enable_grad():
        begun = transition.begun[:1]  # all sequences begin alike
    for first in range(0, transition.num_states, 16):
        block = units[:, first : first + 16]
        touched = torch.stack([step.vjp(block[None, :1])[0, 0] != 0 for step in steps]).any(0)
        touched |= (transition.initial_vjp(begun, block[:1]) != 0).any(0)
        for row in touched:
            yield row.nonzero().flatten()
