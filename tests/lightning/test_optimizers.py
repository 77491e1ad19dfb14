"""The fused kernel is taken where torch has it, and computes the same steps."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from bptt.configuration.build import build_module
from bptt.configuration.compose import compose_config
from bptt.layers import LRU, LSTM
from bptt.lightning.learning_rates import decay_after
from bptt.lightning.optimizers import fused_where_possible, kinds, parameter_groups
from bptt.model import SequenceModel


@pytest.mark.parametrize(
    ("make", "scaled", "fused"),
    [
        (partial(Adam, lr=0.1), False, True),
        (partial(AdamW, lr=0.1), False, True),
        (partial(SGD, lr=0.1, momentum=0.9), False, True),
        (partial(Adam, lr=0.1), True, None),
        (partial(Adam, lr=0.1, fused=False), False, False),
        (partial(Adam, lr=0.1, foreach=True), False, None),
    ],
)
def test_fused_kernel_is_used_if_possible(make: Any, scaled: bool, fused: bool | None) -> None:
    optimizer = fused_where_possible(make, nn.Linear(2, 2).parameters(), scaled=scaled)
    assert optimizer.param_groups[0]["fused"] is fused


def test_others_are_made_as_they_are() -> None:
    made = fused_where_possible(partial(RMSprop, lr=0.1), nn.Linear(2, 2).parameters(), scaled=False)
    assert isinstance(made, RMSprop)
    assert "fused" not in made.param_groups[0]


@pytest.mark.parametrize("make", [partial(Adam, lr=0.1), partial(AdamW, lr=0.1), partial(SGD, lr=0.1, momentum=0.9)])
def test_the_same_steps_but_for_rounding(make: Any) -> None:
    torch.manual_seed(1)
    fused, plain = (nn.Linear(30, 20, dtype=torch.float64) for _ in range(2))
    plain.load_state_dict(fused.state_dict())
    optimizers = (fused_where_possible(make, fused.parameters(), scaled=False), make(plain.parameters()))
    for _ in range(5):
        inputs = torch.randn(7, 30, dtype=torch.float64)
        for layer, optimizer in zip((fused, plain), optimizers):
            optimizer.zero_grad()
            layer(inputs).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(fused.weight, plain.weight, rtol=1e-12, atol=1e-12)


def small_model(layer: Any = LSTM, **options: Any) -> SequenceModel:
    return SequenceModel(layer, input_size=3, output_size=2, hidden_size=4, **options)


def test_every_parameter_is_of_one_kind() -> None:
    model = small_model(num_layers=2, embedding_size=5, learnt_initial_state=True)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(parameter)]: kind for parameter, kind in kinds(model)}
    assert list(found) == [name for name, _ in model.named_parameters()]
    assert found["layers.1.kernel.weight_hh_l0"] == "recurrent"
    assert found["layers.0.kernel.weight_ih_l0"] == found["initial.0"] == "others"
    assert {kind for name, kind in found.items() if "bias" in name} == {"biases"}
    assert (found["encoder.weight"], found["readout.weight"]) == ("encoder", "readout")
    lru = dict(zip((name for name, _ in small_model(LRU).named_parameters()), kinds(small_model(LRU))))
    assert lru["layers.0.log_nu"][1] == "recurrent", "a vector, but no bias"


@pytest.mark.parametrize("make", [partial(SGD, lr=0.1), partial(AdamW, lr=0.1, weight_decay=0.3)])
def test_groups_have_settings_of_their_own(make: Any) -> None:
    """Groups behave like separate optimizers with these settings. A schedule multiplies each group's learning rate."""
    own = {"recurrent": {"lr": 0.02}, "biases": {"weight_decay": 0.0}}
    torch.manual_seed(1)
    model, apart = small_model(), small_model()
    apart.load_state_dict(model.state_dict())
    optimizer = fused_where_possible(make, parameter_groups(model, own), scaled=False)
    separate = [
        fused_where_possible(
            partial(make.func, **{**make.keywords, **own.get(wanted, {})}),
            [parameter for parameter, kind in kinds(apart) if (kind if kind in own else "others") == wanted],
            scaled=False,
        )
        for wanted in ("others", *own)
    ]
    schedule = decay_after(optimizer, factor=0.5, start=2)
    schedules = [decay_after(each, factor=0.5, start=2) for each in separate]
    for _ in range(4):
        inputs = torch.randn(6, 2, 3)
        for each in (model, apart):
            each.zero_grad()
            each(inputs, each.initial_state(2))[0].square().sum().backward()
        for each_optimizer in (optimizer, *separate):
            each_optimizer.step()
        for each_schedule in (schedule, *schedules):
            each_schedule.step()
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.02 * 0.5**3)
    for (name, one), other in zip(model.named_parameters(), apart.parameters()):
        assert torch.equal(one, other), name


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("biases={decay: 0}", r"each setting in optimizer\.groups\.biases must be .* or weight_decay, got 'decay'"),
        ("biases={lr: fast}", r"optimizer\.groups\.biases\.lr must be a number in \[0, inf\), got 'fast'"),
        ("biases={weight_decay: -1}", r"optimizer\.groups\.biases\.weight_decay must be a number in \[0, inf\)"),
        ("encoder={lr: 1}", r"optimizer\.groups\.encoder must be left out for a model without"),
        ("biases=3", r"optimizer\.groups\.biases must be settings such as"),
    ],
)
def test_settings_that_make_no_groups(word: str, message: str) -> None:
    config = compose_config(["task=copy_memory", "model.hidden_size=4", f"optimizer.groups.{word}"])
    with pytest.raises(ValueError, match=message) as refused:
        build_module(config)
    assert len(str(refused.value).splitlines()) == 1


def test_groups_of_a_configuration() -> None:
    words = ("task=copy_memory", "model.hidden_size=4", "optimizer=adamw")
    config = compose_config([*words, "optimizer.groups.biases={weight_decay: 0}"])
    optimizer = build_module(config).configure_optimizers()["optimizer"]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0]
    assert len(build_module(compose_config(words)).configure_optimizers()["optimizer"].param_groups) == 1
    with pytest.raises(ValueError, match=r"each name in optimizer\.groups must be recurrent or biases or"):
        parameter_groups(small_model(), {"weights": {"lr": 1.0}})
