"""Runs of bidirectional models: whole sequences, each read from its own end; all else is refused in one line."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_runs import trained
from support.small_tasks import small_overrides
from torch import Tensor, nn

import bptt
from bptt.configuration.build import build_module
from bptt.configuration.compose import compose_config
from bptt.estimators import Chunked, Full, Randomized
from bptt.initial_state import state_at_start
from bptt.layers import LSTM, Bidirectional
from bptt.model import SequenceModel
from bptt.run_folder import RunFolder
from bptt.runs.evaluation import evaluate
from bptt.runs.export import step_program
from bptt.runs.prediction import predict
from bptt.runs.training import preflight
from bptt.tasks import Batch
from bptt.tasks.sequences import Sequences

WORDS = ("model=lstm", "model.bidirectional=true", "model.hidden_size=6", "estimator=full")


def own_words(folder: Path, *more: str) -> list[str]:
    """Sequences of 3 to 9 timesteps."""
    return [*small_overrides("sequences", folder), *WORDS, *more]


def run_to(epochs: int, folder: Path, data: Path, *more: str) -> Path:
    """Train a run with the default callbacks, or go on with it."""
    limits = (
        "trainer.enable_progress_bar=false",
        "trainer.log_every_n_steps=1",
        "trainer.limit_train_batches=2",
        f"trainer.max_epochs={epochs}",
    )
    return trained(compose_config(own_words(data, *limits, *more)), folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bidirectional")
    return run_to(2, root / "run", root)


def of_torch(model: SequenceModel) -> nn.LSTM:
    (layer,) = model.layers
    assert isinstance(layer, Bidirectional)
    module = nn.LSTM(layer.input_size, layer.hidden_size, bidirectional=True)
    module.load_state_dict(layer.torch_state_dict())
    return module


@pytest.mark.parametrize("every_step", [True, False])
def test_each_sequence_is_read_from_its_own_end(every_step: bool, tmp_path: Path) -> None:
    """Predictions, the loss and its gradient of a padded batch are those of each sequence alone in torch's LSTM."""
    module = build_module(
        compose_config(own_words(tmp_path, f"task.every_step={str(every_step).lower()}", "task.batch_size=12"))
    )
    model, task = module.model.double(), module.task
    assert isinstance(task, Sequences)
    batch = task.batch("train", 0)
    assert batch.mask is not None
    assert len(set(batch.mask.long().cumsum(0).argmax(0).tolist())) > 1, "of different lengths"
    lstm = of_torch(model).double()
    losses = []
    for column in range(task.batch_size):
        size = int(batch.mask[:, column].nonzero().max()) + 1
        outputs, (last, _) = lstm(batch.inputs[:size, column].double())
        top = outputs if every_step else last.flatten().unsqueeze(0)  # the final states of both directions
        targets = batch.targets[batch.mask[:, column], column]
        losses.append(nn.functional.cross_entropy(model.readout(top), targets, reduction="none"))
    expected = torch.cat(losses).mean()
    wanted = torch.autograd.grad(expected, list(lstm.parameters()))
    (update,) = module.estimator.updates(model, task.loss, batch, model.initial_state(task.batch_size))
    assert update.passes == ((0, batch.num_timesteps),)
    torch.testing.assert_close(update.loss, expected.detach(), rtol=1e-10, atol=1e-12)
    found = [
        weight.grad for layer in model.levels for direction in layer.directions for weight in direction.parameters()
    ]
    for own, value in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, value, rtol=1e-10, atol=1e-12)


def test_a_run_says_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_to(1, tmp_path / "run", tmp_path, "callbacks=[default,bias]")
    lines = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    names = "GradientFlow, JacobianSpectrum, TruncationBias"
    assert lines == [f"left out for a bidirectional model, because they measure one direction of time: {names}"]
    run = RunFolder(tmp_path / "run")
    assert not run.gradient_flow.exists()
    assert not run.curves("gradient_flow").exists()


def test_a_resumed_run_is_the_run_that_would_have_been(finished: Path, tmp_path: Path) -> None:
    data = finished.parent
    run_to(1, tmp_path / "run", data)
    run_to(2, tmp_path / "run", data, "resume=auto")
    one, other = (torch.load(RunFolder(each).last_checkpoint)["state_dict"] for each in (finished, tmp_path / "run"))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_finished_run_is_evaluated_loaded_and_used(finished: Path, tmp_path: Path) -> None:
    """Another file with the same sequences in another order, so in other batches, has the same predictions."""
    model = bptt.load(finished, checkpoint="last")
    assert next(iter(model.levels)).label == "bidirectional LSTM(6)"
    lstm, inputs = of_torch(model), torch.randn(5, 1, model.input_size)
    with torch.no_grad():
        _, (last, _) = lstm(inputs)
        predictions = model(inputs, model.initial_state(1))[0]
        torch.testing.assert_close(predictions[-1], model.readout(last.movedim(0, 1).flatten(1)))
    scores = evaluate(finished, split="validation", checkpoint="last")
    assert scores == pytest.approx(
        {name: value for name, value in RunFolder(finished).read_summary()["metrics"].items() if name in scores}
    )
    assert "validation/accuracy" in scores
    whole = finished.parent / "sequences" / "sequences.csv"
    header, *lines = whole.read_text(encoding="utf-8").splitlines()
    first = [line for line in lines if line.startswith(("s7,", "s8,"))]
    (tmp_path / "two.csv").write_text("\n".join([header, *first]) + "\n", encoding="utf-8")
    few = predict(finished, tmp_path / "few.csv", input=tmp_path / "two.csv", checkpoint="last")
    predict(finished, tmp_path / "all.csv", input=whole, checkpoint="last")
    with (tmp_path / "all.csv").open(encoding="utf-8") as file:
        rows = {row["sequence"]: row for row in csv.DictReader(file)}
    for name, probability in zip(few["sequence"], few["class probability"], strict=True):
        assert float(rows[name]["class probability"]) == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["estimator=chunked"], "estimator must be full with model.bidirectional=true.*say estimator=full or model"),
        (["estimator=rtrl"], "estimator must be full with model.bidirectional=true"),
        (["estimator.segment_size=3"], "estimator.segment_size must be null with model.bidirectional=true"),
        (["regulariser=omega"], "regulariser=omega must run on a model of one direction"),
    ],
)
def test_what_needs_one_direction_is_refused(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        preflight(compose_config(own_words(tmp_path, *words)), tmp_path / "run")
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", ["text", "series"])
def test_a_carried_state_is_refused(task: str, tmp_path: Path) -> None:
    config = compose_config([*small_overrides(task, tmp_path), *WORDS])
    with pytest.raises(ValueError, match="must be false for a task that carries the state, because"):
        build_module(config)


def test_tasks_without_padding(tmp_path: Path) -> None:
    """Those that predict once a sequence are known to; others have an output at each timestep."""
    for task, summary in {"adding": True, "temporal_order": True, "digits": True, "copy_memory": False}.items():
        module = build_module(compose_config([*small_overrides(task, tmp_path), *WORDS]))
        (layer,) = module.model.layers
        assert isinstance(layer, Bidirectional)
        assert layer.summary == summary
        batch = module.task.batch("train", 0)
        assert summary == (batch.mask is not None and int(batch.mask.sum()) == batch.batch_size)


def test_without_a_configuration() -> None:
    """Estimators and measures refuse the model themselves."""
    model = SequenceModel(LSTM, input_size=2, output_size=1, hidden_size=3, bidirectional=True)
    batch = Batch(torch.randn(6, 2, 2), torch.randn(6, 2, 1))
    state = model.initial_state(2)

    def loss(predictions: Tensor, batch: Batch) -> Tensor:
        return (predictions - batch.targets).square().mean()

    refused: list[Any] = [
        lambda: list(Chunked(3).updates(model, loss, batch, state)),
        lambda: list(Randomized(3).updates(model, loss, batch, state)),
        lambda: list(Full(3).updates(model, loss, batch, state)),
        lambda: state_at_start(model, Batch(batch.inputs, batch.targets, reset=torch.tensor([True, False])), state),
        lambda: step_program(model),
    ]
    for call in refused:
        with pytest.raises(ValueError, match="must run on a model of one direction, got a bidirectional one"):
            call()
    (update,) = Full(memory_mb=1e-6).updates(model, loss, batch, state)
    assert update.passes == ((0, 6),)
