"""RTRL that carries only the influence that can differ from 0, credit across layers, and what SnAp's mask loses."""

import copy
from typing import Any

import pytest
import torch
from support import oracles
from support.fixed_batches import random_batch
from support.masked_batches import loss
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bptt.estimators import RTRL, EProp, Estimator, Full, SnAp, sparse_influence
from bptt.estimators.sparse_influence import Sparse, dependence
from bptt.estimators.transition import Linearised, Transition
from bptt.layers import GRU, LRU, LSTM, Elman, MinGRU
from bptt.model import SequenceModel
from bptt.shapes import leaves
from bptt.tasks import Batch

pytestmark = pytest.mark.usefixtures("float64")
T, B = 8, 2


def make(layer: Any, num_layers: int, *, learnt: bool = False, **options: Any) -> SequenceModel:
    sizes: dict[str, Any] = {"input_size": 2, "output_size": 2, "hidden_size": 4, "num_layers": num_layers}
    model = SequenceModel(layer, **sizes, learnt_initial_state=learnt, **options)
    for parameter in model.initial or ():
        nn.init.normal_(parameter)
    return model


def estimated(estimator: Estimator, model: SequenceModel, batch: Batch) -> dict[str, Tensor]:
    model.zero_grad()
    list(estimator.updates(model, loss, batch, model.initial_state(B)))
    return oracles.grads(model)


@pytest.mark.parametrize(("layer", "numbers"), [(MinGRU, 1), (LRU, 2)])
@pytest.mark.parametrize("learnt", [False, True])
def test_one_diagonal_layer(layer: Any, numbers: int, learnt: bool) -> None:
    """Full BPTT's gradient, from one number a sequence and parameter, or two for a complex unit."""
    model, batch = make(layer, 1, learnt=learnt), random_batch(T, B)
    exact = estimated(Full(), model, batch)
    for across_layers in ("exact", "spatial"):
        estimator = RTRL(3, update="sequence", across_layers=across_layers)
        assert oracles.relative_error(estimated(estimator, model, batch), exact) < 1e-10
    transition = Transition(model, model.initial_state(B))
    influence = RTRL(3).begin(transition, transition.initial)
    assert isinstance(influence, Sparse)
    carried = sum(values.numel() for values in influence.values)
    of_layer = sum(parameter.numel() for parameter in model.get_submodule("layers.0").parameters())
    of_initial = sum(parameter.numel() for parameter in model.initial or ())
    assert carried == numbers * B * (of_layer + of_initial)
    assert transition.num_parameters == of_layer + of_initial


class LargestTensor(TorchDispatchMode):
    """Counts the numbers of the largest tensor that is computed."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            self.numel = max(self.numel, each.numel() if isinstance(each, Tensor) else 0)
        return result


@pytest.mark.parametrize("layer", [MinGRU, LRU])
@pytest.mark.parametrize(("num_layers", "across_layers"), [(1, "exact"), (2, "spatial")])
def test_no_jacobian_of_all_states(layer: Any, num_layers: int, across_layers: Any) -> None:
    """No tensor grows with S² or S·P: for 60 units the largest has at most 4 P numbers a sequence."""
    model = SequenceModel(layer, input_size=1, output_size=1, hidden_size=60, num_layers=num_layers)
    model.readout.requires_grad_(False)
    batch = random_batch(4, B, input_size=1, output_size=1)
    estimator = RTRL(4, update="sequence", across_layers=across_layers)
    transition = Transition(model, model.initial_state(B))
    influence = estimator.begin(transition, transition.initial)
    features = transition.features(batch.inputs)
    with torch.no_grad(), LargestTensor() as largest:
        theta = transition.theta()
        before, after = transition.run(theta, features, transition.initial, None)
        steps = Linearised(transition, theta, features, before)
        estimator.accumulate(steps, after, influence, torch.ones_like(after))
    assert 0 < largest.numel <= 4 * B * transition.num_parameters


@pytest.mark.parametrize("layer", [MinGRU, LRU])
def test_an_update_after_every_stride(layer: Any) -> None:
    """Parameters that change between strides: the influence keeps those that each timestep was computed with."""
    model, batch = make(layer, 1, learnt=True), random_batch(T, B)
    updates = RTRL(3).updates(model, loss, batch, model.initial_state(B))
    twins: list[SequenceModel] = []
    state: Any = None
    for start in range(0, T, 3):
        part = batch.between(start, min(start + 3, T))
        twins.append(copy.deepcopy(model))
        predictions, state, _ = twins[-1](part.inputs, twins[0].initial_state(B) if state is None else state)
        next(updates)
        found = [oracles.gradients(loss(predictions, part), twin) for twin in twins]
        expected = {name: torch.stack([each[name] for each in found]).sum(0) for name in found[0]}
        assert oracles.relative_error(oracles.grads(model), expected) < 1e-10
        oracles.step_by_hand(model, oracles.grads(model), 0.1)
        model.zero_grad()


@pytest.mark.parametrize("layer", [MinGRU, LRU, GRU, LSTM])
@pytest.mark.parametrize(
    ("block", "width"), [("none", None), ("glu", 3), ("mlp", 3), ("norm", None), ("residual", None)]
)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_several_layers_and_blocks(layer: Any, block: Any, width: int | None, num_layers: int) -> None:
    model = make(layer, num_layers, block=block, embedding_size=width, learnt=True)
    batch = random_batch(T, B)
    estimator = RTRL(3, update="sequence")
    assert oracles.relative_error(estimated(estimator, model, batch), estimated(Full(), model, batch)) < 1e-10


@pytest.mark.parametrize("estimator", [SnAp(1), EProp(1), RTRL(1), RTRL(1, across_layers="spatial")])
@pytest.mark.parametrize("block", ["glu", "mlp", "residual"])
def test_one_timestep_with_blocks_is_exact(estimator: Estimator, block: Any) -> None:
    """From a constant state nothing passes in time, so that every credit is within the timestep."""
    model, batch = make(Elman, 2, block=block), random_batch(1, B)
    assert oracles.relative_error(estimated(estimator, model, batch), estimated(Full(), model, batch)) < 1e-10


@pytest.mark.parametrize("layer", [MinGRU, LRU, GRU])
@pytest.mark.parametrize("block", ["none", "glu", "norm_residual", "norm"])
def test_spatial_credit(layer: Any, block: Any) -> None:
    """By autograd: in the layers above a parameter's own, the state before each timestep is a constant; for parameters
    of the encoder and of blocks in all layers.
    """
    model, batch = make(layer, 3, block=block, embedding_size=3 if block == "glu" else None), random_batch(T, B)

    def gradient(own: int) -> dict[str, Tensor]:
        states, predictions = list(model.initial_state(B)), []
        for input in batch.inputs:
            hidden = model.encode(input.unsqueeze(0)).squeeze(0)
            for level, cell in enumerate(model.levels):
                before = states[level].detach() if level > own else states[level]
                below = model.layer_inputs(level, hidden)
                states[level] = cell.step(below, before)
                hidden = model.stream_above(level, hidden, below, leaves(states[level])[0])
            predictions.append(model.readout(hidden))
        return oracles.gradients(loss(torch.stack(predictions), batch), model)

    by_level = {own: gradient(own) for own in range(-1, 3)}
    expected = {
        name: by_level[int(name.split(".")[1]) if name.startswith("layers.") else -1][name] for name in by_level[0]
    }
    found = estimated(RTRL(3, update="sequence", across_layers="spatial"), model, batch)
    assert oracles.relative_error(found, expected) < 1e-10
    assert oracles.relative_error(found, by_level[2]) > 1e-4  # a bias that is more than rounding


@pytest.mark.parametrize("layer", [Elman, GRU, LSTM])
def test_snap_with_a_diagonal_recurrent_matrix(layer: Any) -> None:
    """Exact but for the output gate of the LSTM, the last of its four blocks of rows, which loses some percent."""
    model, batch = make(layer, 1), random_batch(T, B)
    weight = model.get_parameter("layers.0.kernel.weight_hh_l0")
    with torch.no_grad():
        weight.mul_(torch.eye(4).repeat(len(weight) // 4, 1))
    exact, found = estimated(Full(), model, batch), estimated(SnAp(3, update="sequence"), model, batch)
    errors = []
    for name in exact:
        if "weight_ih" in name or "bias" in name:
            pairs = zip(found[name].split(4), exact[name].split(4))
            errors.append([float((one - other).norm() / other.norm()) for one, other in pairs])
    gates = torch.tensor(errors[:3]).max(0).values  # of W_ih, b_ih and b_hh
    if layer is LSTM:
        assert 0.005 < gates[3] < 0.3
        gates = gates[:3]
    assert gates.max() < 1e-10


def test_unknown_credit_is_refused() -> None:
    word: Any = "temporal"
    with pytest.raises(ValueError, match="across_layers must be exact or spatial, got 'temporal'"):
        RTRL(4, across_layers=word)


@pytest.mark.parametrize("estimator", [SnAp(2), EProp(2), RTRL(2), RTRL(2, across_layers="spatial")])
def test_a_pattern_is_looked_for_once(estimator: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[Transition] = []

    def counted(transition: Transition) -> Any:
        searches.append(transition)
        return dependence(transition)

    monkeypatch.setattr(sparse_influence, "dependence", counted)
    model = make(MinGRU, 2)
    for _ in range(3):
        estimated(estimator, model, random_batch(T, B))
    assert len(searches) == 1


def test_all_parameters_act_on_a_state_in_half_precision() -> None:
    """Lightning's bf16-true makes bfloat16 the default, whose random numbers are exactly 0 once in 256."""
    model = SequenceModel(MinGRU, input_size=300, output_size=2, hidden_size=4).bfloat16()
    transition = Transition(model, model.initial_state(1))
    torch.set_default_dtype(torch.bfloat16)
    acting = torch.cat(list(dependence(transition))).unique()
    torch.set_default_dtype(torch.float64)
    assert len(acting) == transition.num_parameters


def test_a_pattern_follows_weights_that_are_not_trained() -> None:
    """Layer 1 acts on layer 2 only through weights that are 0 at first."""
    model, batch = make(Elman, 2), random_batch(T, B)
    (weight,) = (each for name, each in model.named_parameters() if "layers.1" in name and "weight_ih" in name)
    weight.requires_grad_(False)
    with torch.no_grad():
        weight.zero_()
    estimated(SnAp(1), model, batch)
    with torch.no_grad():
        weight.fill_(0.3)
    found = estimated(SnAp(1), model, batch)
    assert oracles.relative_error(found, estimated(SnAp(1), copy.deepcopy(model), batch)) < 1e-12
