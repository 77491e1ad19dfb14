"""Costs of chunk sizes and the recommendation: hand-computed rules, and measurements from the carried state."""

import math
import time
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from support.fixed_batches import FixedBatches, random_batch
from support.masked_batches import make_model

from bptt.chunk_size import (
    Cost,
    Moment,
    advice,
    candidate,
    duration,
    measure,
    measure_training,
    measurement,
    memory,
    recommend,
)
from bptt.chunk_size.measurement import batches_with_state, moments
from bptt.configuration.compose import CONF
from bptt.contracts import plain_name
from bptt.estimators import RFLO, RTRL, Chunked, Estimator, Full, Randomized, Sliding
from bptt.measures import Horizon, bias, estimated_gradient
from bptt.measures.segments import Segment
from bptt.shapes import detach, leaves

pytestmark = pytest.mark.usefixtures("float64")
FULL = Cost("full", "estimator=full", None, 0.0, 0.0, 0.0, 1.0, 20.0, 2.0)


def cost(size: int, bias: float, name: str = "chunked") -> Cost:
    return Cost(name, f"estimator={name} estimator.chunk_size={size}", size, bias, 0.0, 0.0, 1.0, 10.0, 0.05)


def moment(biases: dict[int, float], updates: int = 0, horizon: int = 9, batch_noise: float = 0.0) -> Moment:
    rows = [*(cost(*each) for each in biases.items()), cost(1, 0.0, "sliding"), FULL]
    return Moment(updates, rows, Horizon(horizon, horizon, horizon, False), batch_noise)


@pytest.mark.parametrize(
    ("biases", "expected"),
    [
        ([{1: 0.5, 2: 0.05, 4: 0.01}], 2),
        ([{1: 0.05, 2: 0.5, 4: 0.01}], 4),  # that a smaller one is below is chance
        ([{1: 0.5, 2: 0.5, 4: 0.2}], None),
        ([{1: math.nan, 2: math.nan}], None),
        ([{1: 0.05, 2: 0.05, 4: 0.05}, {1: 0.5, 2: 0.5, 4: 0.05}, {1: 0.05, 2: 0.05, 4: 0.05}], 4),  # at all moments
        ([{1: 0.05, 2: math.nan, 4: 0.05}, {1: 0.05, 2: 0.05, 4: 0.05}], 4),
    ],
)
def test_recommendation(biases: list[dict[int, float]], expected: int | None) -> None:
    """The smallest below delta, with all larger ones below it too; other estimators do not count."""
    best = recommend([moment(each) for each in biases], delta=0.1)
    assert (best and best.size) == expected


def test_the_time_of_a_timestep_is_the_median_of_three_runs_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 90.0, 100.0, 150.0, 200.0, 210.0, 300.0, 330.0])  # runs of 90 (the warm-up), 50, 10 and 30 s
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    batch = random_batch(10, 2)
    model = make_model("elman")
    segment = Segment(batch, model.initial_state(2), 0)
    seconds, megabytes = measurement.cost(model, FixedBatches([batch]), segment, candidate(Chunked(5)), lambda _: None)
    assert seconds == 3.0
    assert megabytes > 0
    assert next(clock, None) is None


def test_advice_gives_its_reasons() -> None:
    measured = [
        moment({8: 0.01, 16: 0.001, 32: 0.0}, 0, 9),
        moment({8: 0.3, 16: 0.09, 32: 0.02}, 100, 48),
        moment({8: 0.2, 16: 0.04, 32: 0.01}, 500, 40, batch_noise=0.4),
    ]
    sentences = advice(measured, delta=0.1)
    assert sentences.startswith("Recommended: estimator=chunked estimator.chunk_size=16, the smallest chunk")
    for words in (
        "Its bias is 0.04 now, and 0.09 at its worst, after 100 updates.",
        "the noise of one batch's gradient, 0.4: 10% of it",
        "the next smaller size, 8, has bias 0.2",
        "the next larger size, 32, has bias 0.01",
        "estimator=full, which has no bias, takes 2 MB (not 50 kB) and 20 µs per timestep (not 10 µs per timestep)",
        "measured 9 at 0, 48 at 100, 40 at 500 updates",
    ):
        assert words in sentences
    assert "untrained" not in sentences


def test_advice_compares_with_plain_chunks_of_other_sizes() -> None:
    own = cost(8, 0.2)._replace(overrides="estimator=chunked estimator.chunk_size=8 estimator.burn_in=4")
    measured = moment({4: 0.5, 8: 0.05, 16: 0.01})
    text = advice([measured._replace(costs=[own, *measured.costs])], delta=0.1)
    assert "the next smaller size, 4," in text
    assert "the next larger size, 16," in text


def test_a_chunk_as_long_as_the_batch_is_not_compared_with_its_equals() -> None:
    whole = [cost(size, 0.0)._replace(megabytes=2.0) for size in (25, 64)]
    measured = moment({8: 0.3})
    sentences = advice([measured._replace(costs=[*whole, *measured.costs])], delta=0.1)
    for name in ("the next larger size, 64,", "estimator=full, which has no bias,"):
        assert f"{name} does the same here: both see the whole sequence." in sentences


def test_advice_without_a_chunk_that_would_do() -> None:
    sentences = advice([moment({8: 0.3})], delta=0.1, untrained=True)
    assert sentences.startswith("Recommended: estimator=full. No chunk size has a relative bias below 0.1")
    assert "It has no bias, and takes 2 MB and 20 µs per timestep." in sentences
    assert "Warning: these weights are untrained" in sentences


def test_words_and_units() -> None:
    assert candidate(Sliding(3, 6)).overrides == "estimator=sliding estimator.stride=3 estimator.window=6"
    assert candidate(Chunked(5, update="sequence")).overrides == "estimator=chunked estimator.chunk_size=5"
    assert (
        candidate(Randomized(8, block=2)).overrides == "estimator=randomized estimator.mean_length=8 estimator.block=2"
    )
    assert candidate(Full()).overrides == "estimator=full"
    assert memory(FULL._replace(megabytes=2500.0)) == "2.5 GB"
    assert duration(FULL._replace(microseconds=1500.0)) == "1.5 ms per timestep"
    assert moments(500) == [7, 31, 125, 500]
    assert moments(3) == [1, 3]


def stream(num_batches: int = 6) -> FixedBatches:
    """Two sequences that go on from batch to batch; the second one begins again with the fourth batch."""
    begins = [[True, True], [False, False], [False, False], [False, True], [False, False], [False, False]]
    return FixedBatches([random_batch(7, 2, reset=torch.tensor(begins[n])) for n in range(num_batches)])


def test_carried_state_is_that_of_one_long_pass() -> None:
    model, task = make_model("gru", 2), stream()
    batches = list(batches_with_state(model, task, 3))
    assert len(batches) == 3
    with torch.no_grad():
        state = model.initial_state(2)
        for index in range(5):
            state = model.advance(task.batch("train", index).inputs, state)
        begun = model.advance(
            torch.cat([task.batch("train", index).inputs for index in (3, 4)]), model.initial_state(2)
        )
    batch, found = batches[-1]
    assert torch.equal(batch.inputs, task.batch("train", 5).inputs)
    for got, carried, again in zip(leaves(found), leaves(state), leaves(begun)):
        torch.testing.assert_close(got[0], carried[0])
        torch.testing.assert_close(got[1], again[1])


class LastWindow(Chunked):
    """An estimator of a user, in a module of another name."""


def test_own_estimators_have_the_name_of_their_class() -> None:
    assert candidate(LastWindow(3)).overrides == "estimator=last_window estimator.chunk_size=3"
    for path in (CONF / "estimator").glob("*.yaml"):
        assert plain_name(str(OmegaConf.select(OmegaConf.load(path), "_target_"))) == path.stem


@pytest.mark.parametrize("own", [RTRL(3), RFLO(3)])
def test_forward_mode_is_measured_but_for_its_memory(own: Estimator) -> None:
    costs = measure(make_model("elman"), stream(), num_batches=1, own=own).costs
    assert costs[-1].name == type(own).__name__.lower()
    assert costs[-1].microseconds > 0
    assert math.isnan(costs[-1].megabytes)
    assert memory(costs[-1]) == "–"
    assert not any(math.isnan(each.megabytes) for each in costs[:-1])


@pytest.mark.parametrize(("weight", "got"), [(math.nan, "nan"), (0.0, "0")])
def test_weights_without_a_gradient_are_refused(weight: float, got: str) -> None:
    model = make_model("elman")
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, weight)
    task = stream()
    if not weight:
        task.batches["train"] = [replace(batch, targets=0 * batch.targets) for batch in task.batches["train"]]
    with pytest.raises(ValueError, match=f"norm of the exact gradient must be .*, got {got} in batch 1 after 0 up"):
        measure(model, task, num_batches=2)


def test_biases_are_those_from_the_carried_state_and_nothing_is_left_behind() -> None:
    model, task = make_model("gru"), stream()
    weights, draws = [each.clone() for each in model.parameters()], torch.get_rng_state()
    found = {each.overrides: each for each in measure(model, task, num_batches=3, own=Chunked(5)).costs}
    assert all(map(torch.equal, weights, model.parameters()))
    assert torch.equal(torch.get_rng_state(), draws)
    expected = []
    for batch, state in batches_with_state(model, task, 3):
        exact = estimated_gradient(Full(), model, task.loss, batch, state)
        expected.append(bias(estimated_gradient(Chunked(2), model, task.loss, batch, state), exact).relative)
    two = found["estimator=chunked estimator.chunk_size=2"]
    assert two.bias == pytest.approx(sum(expected) / 3)
    assert two.spread == pytest.approx(float(torch.tensor(expected).std()))
    assert "estimator=chunked estimator.chunk_size=5" in found
    assert found["estimator=full"].bias == 0
    randomized = next(each for each in found.values() if each.name == "randomized")
    assert randomized.noise > 3 * randomized.bias, "its bias is 0, and single draws are far from the exact gradient"


def test_measuring_over_training_is_training_with_the_exact_gradient() -> None:
    task = stream()
    weights = []
    for looked in (True, False):
        torch.manual_seed(3)
        model = make_model("gru")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if looked:
            found = measure_training(model, task, optimizer, num_updates=4, num_batches=2)
            assert [each.updates for each in found] == [0, 1, 4]
            assert math.isnan(found[0].costs[0].microseconds)
            assert found[-1].costs[0].microseconds > 0
        else:
            state = model.initial_state(2)
            for index in range(4):
                batch = task.batch("train", index)
                assert batch.reset is not None
                begins = batch.reset[:, None]
                state = tuple(torch.where(begins, *pair) for pair in zip(model.initial_state(2), state))
                optimizer.zero_grad()
                predictions, state, _ = model(batch.inputs, state)
                task.loss(predictions, batch).backward()
                optimizer.step()
                state = detach(state)
        weights.append([each.detach().clone() for each in model.parameters()])
    for looked, alone in zip(*weights):
        torch.testing.assert_close(looked, alone)


def test_batches_that_no_chunk_cuts_do_not_count() -> None:
    """Sequences of several lengths: short ones have no bias in longer chunks, and would hide that of the long ones."""
    torch.manual_seed(0)
    model, long = make_model("elman"), random_batch(24, 2)
    short = [random_batch(3, 2) for _ in range(3)]
    own = Sliding(4, 8)
    alone, mixed = (
        {
            each.overrides: each
            for each in measure(model, FixedBatches(batches), own=own, num_batches=len(batches)).costs
        }
        for batches in ([long], [*short, long])
    )
    (sliding,) = (word for word in alone if "sliding" in word and "4" in word)
    assert mixed[sliding].bias == pytest.approx(alone[sliding].bias) != 0
    for size in (4, 8, 16):
        word = f"estimator=chunked estimator.chunk_size={size}"
        assert mixed[word].bias == pytest.approx(alone[word].bias) != 0
        assert mixed[word].megabytes == alone[word].megabytes
    assert mixed["estimator=full"].megabytes == alone["estimator=full"].megabytes
    assert mixed["estimator=full"].bias == 0
