"""Curves in the run folder and in the event file: those of autograd, and of a run that was not interrupted."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from test_gradient_flow import LENGTH, loss_terms, train

from bptt.estimators import Chunked
from bptt.layers import Elman
from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.gradient_flow import GradientFlow
from bptt.lightning.callbacks.jacobian_spectrum import JacobianSpectrum
from bptt.lightning.callbacks.truncation_bias import TruncationBias
from bptt.run_folder import RunFolder
from bptt.tensorboard_tab.curve import Curve, from_bytes
from bptt.tensorboard_tab.history import CurveHistory
from bptt.tensorboard_tab.summary import PLUGIN


def logged(folder: Path) -> dict[str, dict[int, Curve]]:
    """Curves in the event files of a run, by tag and step."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    found = {}
    for tag in events.Tags()["tensors"]:
        if events.SummaryMetadata(tag).plugin_data.plugin_name == PLUGIN:
            looks = {event.step: make_ndarray(event.tensor_proto).item() for event in events.Tensors(tag)}
            found[tag] = {step: from_bytes(data) for step, data in looks.items()}
    return found


def test_curves_are_those_of_autograd_in_file_and_events(tmp_path: Path) -> None:
    run = train(tmp_path / "run", [GradientFlow(every_n_updates=1, num_sequences=3, num_losses=1)])
    beginning = train(tmp_path / "beginning", [], logged=False, max_steps=0)
    unrolled, terms = loss_terms(beginning)
    events = logged(run.folder)
    assert len(events) == 2 * 2 * 2  # layers, tensors h and c, by lag and by timestep
    with np.load(RunFolder(run.folder).curves("gradient_flow")) as file:
        for layer in (1, 2):
            for place, tensor in enumerate("hc"):
                states = [state[place] for state in unrolled.states[layer - 1]]
                alone = torch.autograd.grad(terms[-1].sum(), states, retain_graph=True, materialize_grads=True)
                norms = torch.stack(alone).norm(dim=-1).flip(0)[:, :3]
                expected = {"median": norms.median(1).values.numpy(), "low": np.quantile(norms, 0.05, axis=1)}
                tag = f"layer{layer}/{tensor}/by_lag"
                first = events[tag][LENGTH]
                assert file[f"{tag}/step"].tolist() == list(events[tag]) == [LENGTH, 2 * LENGTH, 3 * LENGTH]
                assert first.places.tolist() == file[f"{tag}/places"][0].tolist() == list(range(LENGTH))
                for name, values in expected.items():
                    np.testing.assert_allclose(file[f"{tag}/{name}"][0], values, rtol=1e-3, atol=1e-9)
                    np.testing.assert_allclose(first.columns[name], values, rtol=4e-3, atol=1e-9)
                median = expected["median"]
                shares = (norms / norms.amax(0)).numpy()
                far = max(k for k in range(LENGTH) if (shares[k] >= 0.01).sum() >= 2)  # of three sequences
                assert first.facts["horizon"] == file[f"{tag}/fact/horizon"][0] == far
                assert first.facts["reference"] == pytest.approx(median.max(), rel=1e-3)
                np.testing.assert_allclose(first.columns["reach"], np.sort(shares)[:, 1], rtol=4e-3, atol=1e-9)
                assert first.facts["epsilon"] == 0.01
                assert first.facts["cut"] is None
        every = torch.autograd.grad(terms.mean() * 4, [state[0] for state in unrolled.states[0]])
        by_timestep = torch.stack(every).norm(dim=-1)[:, :3].median(1).values
        np.testing.assert_allclose(file["layer1/h/by_timestep/median"][0], by_timestep, rtol=1e-3)


def test_cuts_and_borders(tmp_path: Path) -> None:
    """Chunks of 8, one update for each: gradient is cut at the start of all but the first."""
    flow = GradientFlow(every_n_updates=1)
    looks = logged(train(tmp_path, [flow], estimator=Chunked(8), batches=1, num_layers=1).folder)
    assert [look.facts["cut"] for look in looks["layer1/h/by_lag"].values()][1:] == [8, 8, 6]
    borders = {step: look.facts["borders"] for step, look in looks["layer1/h/by_timestep"].items()}
    assert borders == {8: [], 16: [8], 24: [16], 30: [24]}
    starts = [look.places[0] for look in looks["layer1/h/by_timestep"].values()]
    assert starts == [0, 8, 16, 24]


def test_borders_within_one_update(tmp_path: Path) -> None:
    flow = GradientFlow(every_n_updates=1)
    looks = logged(train(tmp_path, [flow], estimator=Chunked(8, update="sequence"), batches=1, num_layers=1).folder)
    (look,) = looks["layer1/h/by_timestep"].values()
    assert len(look.places) == LENGTH
    borders = look.facts["borders"]
    assert isinstance(borders, list)
    assert borders == sorted(set(borders))
    assert len(borders) == 3


def test_file_of_a_resumed_run_is_that_of_one_that_was_not_interrupted(tmp_path: Path) -> None:
    """Looks beyond the checkpoint, which the interrupted run wrote too, are taken again."""

    def callbacks() -> list[Any]:
        watching = [
            GradientFlow(every_n_updates=1),
            JacobianSpectrum(every_n_updates=1),
            TruncationBias(every_n_batches=1),
        ]
        return [*watching, Checkpoint()]

    options: dict[str, Any] = {"limit_val_batches": 1.0, "num_layers": 1, "layer": partial(Elman, nonlinearity="tanh")}
    train(tmp_path / "whole", callbacks(), max_epochs=2, **options)
    train(tmp_path / "parts", callbacks(), **options)
    path = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    train(tmp_path / "parts", callbacks(), ckpt_path=path, max_epochs=2, **options)
    for name, steps in (("gradient_flow", 6), ("jacobian_spectrum", 6), ("truncation_bias", 6)):
        files = [RunFolder(tmp_path / part).curves(name) for part in ("whole", "parts")]
        with np.load(files[0]) as whole, np.load(files[1]) as parts:
            assert set(whole.files) == set(parts.files)
            assert len(whole[next(each for each in whole.files if each.endswith("/step"))]) == steps
            for each in whole.files:
                np.testing.assert_array_equal(parts[each], whole[each], err_msg=each)
    events = [logged(tmp_path / part) for part in ("whole", "parts")]
    assert {tag: list(looks) for tag, looks in events[0].items()} == {
        tag: list(looks) for tag, looks in events[1].items()
    }


def test_a_restarted_run_discards_the_file_of_the_previous_one(tmp_path: Path) -> None:
    for batches in (3, 1):
        train(tmp_path, [GradientFlow(every_n_updates=1)], batches=batches, logged=False, num_layers=1)
    history = CurveHistory.load(RunFolder(tmp_path).curves("gradient_flow"), until=10**9)
    assert list(history.looks["layer1/h/by_lag"]) == [LENGTH]


def test_spectrum_has_ranks_up_to_the_size_of_the_layer(tmp_path: Path) -> None:
    run = train(tmp_path, [JacobianSpectrum(every_n_updates=1)], batches=1, num_layers=1)
    (look,) = logged(run.folder)["layer1/jacobian"].values()
    assert list(look.columns) == [f"singular_value_{rank}" for rank in (1, 2, 4, 8)]
    assert look.columns["singular_value_1"][0] == pytest.approx(1, rel=2e-3)  # ∂h_T/∂h_T
    assert (look.columns["singular_value_8"] <= look.columns["singular_value_1"]).all()
    assert look.facts["lyapunov"] == pytest.approx(run.curve("jacobian/layer1/lyapunov")[0][1])


@pytest.mark.parametrize("content", [b"", b"rubbish" * 99, None], ids=["empty", "rubbish", "cut off"])
def test_a_damaged_file_begins_anew(tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    looks = partial(GradientFlow, every_n_updates=1, num_sequences=3)
    run = train(tmp_path, [looks(), Checkpoint()], batches=2)
    path = RunFolder(run.folder).curves("gradient_flow")
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    last = RunFolder(run.folder).last_checkpoint
    train(tmp_path, [looks(), Checkpoint()], batches=2, max_epochs=2, ckpt_path=last)
    assert capsys.readouterr().err.startswith(
        f"skipped, so that its curves begin anew: {path} must be a whole file of curves, got "
    )
    with np.load(path) as file:
        assert file["layer1/h/by_lag/step"].tolist() == [3 * LENGTH, 4 * LENGTH]
