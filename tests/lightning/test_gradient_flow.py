"""The gradient at every timestep in a real training run: what is shown, and that showing it changes nothing."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision
from support import oracles
from support.fixed_batches import FixedBatches, random_batch
from support.training import fit, make_module
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import Tensor

from bptt.estimators import Chunked, Full
from bptt.estimators.base import Estimator
from bptt.layers import GRU, LSTM, Elman
from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.gradient_flow import GradientFlow
from bptt.lightning.callbacks.gradient_flow_charts import curves
from bptt.lightning.callbacks.heat_map import MAX_COLUMNS, HeatMap
from bptt.lightning.callbacks.jacobian_spectrum import JacobianSpectrum
from bptt.lightning.callbacks.parameter_norms import ParameterNorms
from bptt.lightning.clipping import Clipping
from bptt.lightning.data import TaskData
from bptt.lightning.loggers import EventLogger
from bptt.lightning.module import BPTTModule
from bptt.measures import LayerFlow
from bptt.model import SequenceModel
from bptt.tasks.copy_memory import CopyMemory

LENGTH, B = 30, 4


class Run(NamedTuple):
    folder: Path
    module: BPTTModule
    trainer: Trainer

    @property
    def events(self) -> EventAccumulator:
        everything = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}
        return EventAccumulator(str(self.folder), size_guidance=everything).Reload()

    def curve(self, tag: str) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in self.events.Scalars(tag)]


def train(
    folder: Path,
    callbacks: Sequence[Callback],
    *,
    estimator: Estimator | None = None,
    batches: int = 3,
    delay: int = LENGTH - 20,
    layer: Any = LSTM,
    num_layers: int = 2,
    dropout: float = 0.0,
    clipping: Clipping | None = None,
    logged: bool = True,
    begin: Any = lambda model: None,
    ckpt_path: Path | None = None,
    **options: Any,
) -> Run:
    """Copy memory over delay + 20 timesteps, B = 4. begin: changes the weights before training."""
    torch.manual_seed(2)
    task = CopyMemory(delay=delay, batch_size=B, seed=1, train_batches=batches, validation_batches=1, test_batches=1)
    model = SequenceModel(layer, input_size=10, output_size=9, hidden_size=8, num_layers=num_layers, dropout=dropout)
    begin(model)
    module = BPTTModule(
        task=task,
        model=model,
        estimator=estimator or Full(),
        optimizer=partial(torch.optim.Adam, lr=0.01),
        clipping=clipping,
    )
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=EventLogger(folder) if logged else False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **({"max_epochs": 1, "limit_val_batches": 0} | options),
    )
    trainer.fit(module, datamodule=TaskData(module), ckpt_path=ckpt_path)
    return Run(folder, module, trainer)


def loss_terms(run: Run, index: int = 0) -> tuple[oracles.Unrolled, Tensor]:
    """The unrolled graph of a batch on a run's weights, and −log of each target's share of exp y_t, (T, B)."""
    batch = run.module.task.batch("train", index)
    unrolled = oracles.run_model("lstm", run.module.model, oracles.one_hot(batch.inputs, 10))
    shares = unrolled.predictions.exp() / unrolled.predictions.exp().sum(-1, keepdim=True)
    return unrolled, -shares.gather(-1, batch.targets.long().unsqueeze(-1)).squeeze(-1).log()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A run of three updates that is looked at, and the weights it began with."""
    flow = GradientFlow(every_n_updates=1, num_sequences=2, num_losses=1, lags=[1, 5, 29, 30])
    run = train(tmp_path_factory.mktemp("run"), [flow])
    return run, train(tmp_path_factory.mktemp("beginning"), [], logged=False, max_steps=0)


@pytest.mark.parametrize("layer", [1, 2])
def test_scalars_are_those_of_autograd(first: tuple[Run, Run], layer: int) -> None:
    """By lag, gradients of the last loss itself: the mean over 30 timesteps and four sequences is undone."""
    run, beginning = first
    unrolled, terms = loss_terms(beginning)
    outputs = [state[0] for state in unrolled.states[layer - 1]]
    norms = torch.stack(torch.autograd.grad(terms[-1].sum(), outputs, retain_graph=True)).norm(dim=-1)
    by_lag = norms.flip(0)[:, :2].mean(1).numpy()
    found = {name: run.curve(f"gradient_flow/layer{layer}/{name}")[0] for name in ("lag_1", "lag_5", "lag_29")}
    assert all(step == LENGTH for step, _ in found.values())
    expected = {f"lag_{k}": by_lag[k] for k in (1, 5, 29)}
    assert {name: value for name, (_, value) in found.items()} == pytest.approx(expected, rel=1e-3)
    assert f"gradient_flow/layer{layer}/lag_30" not in run.events.Tags()["scalars"]  # beyond the first timestep
    reach = norms.flip(0)[:, :2] >= 0.01 * norms[:, :2].amax(0)
    horizon = max(k for k in range(LENGTH) if reach[k].double().mean() >= 0.5)
    assert run.curve(f"gradient_flow/layer{layer}/horizon")[0][1] == horizon
    slope, _ = np.polyfit(np.arange(LENGTH), np.log(by_lag), 1)
    assert run.curve(f"gradient_flow/layer{layer}/decay_rate")[0][1] == pytest.approx(math.exp(slope), rel=1e-4)
    slopes = 1 - torch.stack(outputs)[:, :2].detach().square()
    assert run.curve(f"gradient_flow/layer{layer}/saturation")[0][1] == pytest.approx(float(slopes.mean()), rel=1e-5)
    assert 0 < run.curve(f"gradient_flow/layer{layer}/transport")[0][1] < 1


@pytest.mark.parametrize("layer", [1, 2])
def test_histogram_is_of_every_timestep_and_sequence(first: tuple[Run, Run], layer: int) -> None:
    run, beginning = first
    unrolled, terms = loss_terms(beginning)
    outputs = [state[0] for state in unrolled.states[layer - 1]]
    norms = torch.stack(torch.autograd.grad(terms.mean() * B, outputs)).norm(dim=-1)[:, :2].log10()
    at_first = run.events.Histograms(f"gradient_flow/layer{layer}")[0]
    values = at_first.histogram_value
    assert at_first.step == LENGTH
    assert values.num == 2 * LENGTH
    assert [values.min, values.max] == pytest.approx([float(norms.min()), float(norms.max())], abs=1e-3)
    assert values.sum == pytest.approx(float(norms.sum()), rel=1e-3)


def test_last_figure_and_layout_are_left(first: tuple[Run, Run]) -> None:
    run, _ = first
    assert (run.folder / "gradient_flow.png").read_bytes()[:4] == b"\x89PNG"
    assert [image.step for image in run.events.Images("gradient_flow/figure/by_lag")] == [3 * LENGTH + 1]
    (event,) = run.events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    (category,) = layout.category
    titles = [chart.title for chart in category.chart]
    assert titles == [
        "layer1 at lag",
        "layer2 at lag",
        "horizon",
        "decay_rate",
        "transport",
        "saturation",
        "loss",
    ]


@pytest.mark.parametrize(("estimator", "batches"), [(Chunked(6), 10), (Full(11), 40)], ids=["chunked", "full"])
def test_weights_are_the_same_to_the_bit_with_and_without_watching(
    tmp_path: Path, estimator: Estimator, batches: int
) -> None:
    """After 40 updates with dropout; of the two ways to look at Jacobians the one by random probes.

    The callbacks begin in the middle, so that they draw one figure now and then none for long: that is what takes time.
    """
    flow = GradientFlow(every_n_updates=1, num_sequences=2)
    flow.load_state_dict({"looks": 127, "progress": [], "history": {}, "latest": {}})
    spectrum = JacobianSpectrum(every_n_updates=1, max_hidden_size=4, max_timesteps=3)
    spectrum.load_state_dict({"looks": 63})
    options: dict[str, Any] = {"estimator": estimator, "batches": batches, "delay": 1, "dropout": 0.3}
    options["clipping"] = Clipping("norm")
    unwatched = train(tmp_path / "without", [], **options)
    random = torch.get_rng_state()
    watched = train(tmp_path / "with", [flow, spectrum, ParameterNorms(every_n_updates=1)], **options)
    assert watched.module.counters.updates == 40
    assert (flow.looks, spectrum.looks) == (167, 103)
    weights = [run.module.model.state_dict() for run in (watched, unwatched)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    moments = [run.trainer.optimizers[0].state_dict()["state"] for run in (watched, unwatched)]
    for index, slots in moments[1].items():
        assert all(torch.equal(moments[0][index][name], value) for name, value in slots.items())
    assert torch.equal(torch.get_rng_state(), random)
    assert watched.curve("train/loss") == unwatched.curve("train/loss")


def at_first_update(folder: Path, **options: Any) -> dict[str, float]:
    """Scalars of the first update, before any step could make a difference."""
    flow = GradientFlow(every_n_updates=1, num_sequences=2, lags=[1, 5, 29, 30])
    train(folder, [flow], batches=1, logged=False, num_layers=1, **options)
    assert flow.latest is not None
    return flow.scalars()


def test_gradients_are_those_before_clipping(tmp_path: Path) -> None:
    """Gradients equal those of a run without clipping, to the bit."""
    assert at_first_update(tmp_path, clipping=Clipping("norm", 1e-6)) == at_first_update(tmp_path)


def test_gradients_in_bfloat16(tmp_path: Path) -> None:
    exact, found = at_first_update(tmp_path), at_first_update(tmp_path, precision="bf16-mixed")
    assert found.keys() == exact.keys()
    for tag, value in exact.items():
        assert found[tag] == pytest.approx(value, rel=0.1, abs=1 if "horizon" in tag else 1e-4), tag


def test_gradients_are_unscaled_in_float16(tmp_path: Path) -> None:
    """Training multiplies the loss by 2¹⁴ here; what is shown is off by the rounding to half precision alone.

    On the CPU torch has float16 kernels for GRU, not for LSTM.
    """
    exact = at_first_update(tmp_path, layer=GRU)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**14))
    found = at_first_update(tmp_path, layer=GRU, estimator=Full(7), plugins=[plugin])
    assert found.keys() == exact.keys()
    for tag, value in exact.items():
        assert found[tag] == pytest.approx(value, rel=0.03, abs=1 if "horizon" in tag else 1e-7), tag


def test_looks_at_the_updates_that_are_due(tmp_path: Path) -> None:
    """Updates 1, 2, 4, 5 and 10 of the twelve that three batches have, the last chunk of each a shorter one."""
    flow = GradientFlow(every_n_updates=5, drawn=False)
    flow.load_state_dict({"looks": 5, "progress": [], "history": {}, "latest": {}})
    run = train(tmp_path, [flow], estimator=Chunked(8), num_layers=1)
    assert run.module.counters.updates == 12
    steps = [8, 16, 30, 38, 76]
    assert [step for step, _ in run.curve("gradient_flow/layer1/horizon")] == steps
    assert flow.heat_map.progress == steps
    assert [len(column) for column in flow.heat_map.history["layer1"]] == [8, 8, 6, 8, 8]
    assert flow.looks == 5 + 5
    assert [image.step for image in run.events.Images("gradient_flow/figure/by_lag")] == [
        30,
        91,
    ]  # look 8, and one step after the end


def test_timesteps_after_the_last_loss_are_shown(tmp_path: Path) -> None:
    """As many as the batch has, whatever the segments of the estimator; at most `max_timesteps`."""
    mask = torch.zeros(12, 3, dtype=torch.bool)
    mask[4] = True
    for size, at_most, expected in ((1, 2000, 12), (4, 2000, 12), (100, 2000, 12), (1, 7, 7)):
        flow = GradientFlow(every_n_updates=1, max_timesteps=at_most)
        module = make_module(FixedBatches([random_batch(12, 3, mask=mask)]), estimator=Full(size))
        fit(module, callbacks=[flow], default_root_dir=tmp_path, limit_val_batches=0)
        assert flow.latest is not None
        norms = flow.latest["layer1"].by_timestep["h"]
        assert norms.any(1).tolist() == [True] * 5 + [False] * (expected - 5)


def test_nothing_due_leaves_nothing(tmp_path: Path) -> None:
    flow = GradientFlow(every_n_updates=1000, log_spaced=False)
    run = train(tmp_path, [flow])
    assert flow.latest is None
    assert not (tmp_path / "gradient_flow.png").exists()
    assert not any(tag.startswith("gradient_flow") for tag in run.events.Tags()["scalars"])


def test_works_without_a_logger(tmp_path: Path) -> None:
    flow = GradientFlow(every_n_updates=1)
    train(tmp_path, [flow], logged=False, batches=1)
    assert flow.looks == 1
    assert (tmp_path / "gradient_flow.png").exists()


def silent(model: SequenceModel) -> None:
    """A readout of zeros, a common way to begin: no gradient reaches the layers at first."""
    torch.nn.init.zeros_(model.get_parameter("readout.weight"))


def diverged(model: SequenceModel) -> None:
    torch.nn.init.constant_(model.get_parameter("readout.weight"), math.nan)


def exploded(model: SequenceModel) -> None:
    """Jacobian products beyond the largest number."""
    torch.nn.init.constant_(model.get_parameter("layers.0.kernel.weight_hh_l0"), 1e30)


@pytest.mark.parametrize(
    ("begin", "layer"), [(silent, LSTM), (diverged, GRU), (exploded, partial(Elman, nonlinearity="relu"))]
)
def test_training_continues_without_a_gradient_to_measure(tmp_path: Path, begin: Any, layer: Any) -> None:
    """A measuring callback must not end a run that diverges."""
    callbacks = [
        GradientFlow(every_n_updates=1),
        JacobianSpectrum(every_n_updates=1),
        ParameterNorms(every_n_updates=1),
    ]
    run = train(tmp_path, callbacks, begin=begin, layer=layer, batches=1, num_layers=1)
    assert run.module.counters.updates == 1
    for tag in run.events.Tags()["scalars"]:
        if tag.startswith(("gradient_flow", "jacobian")):
            assert all(math.isfinite(value) for _, value in run.curve(tag))


def test_frozen_layer_is_shown_as_one_without_gradient(tmp_path: Path) -> None:
    def frozen(model: SequenceModel) -> None:
        model.layers[0].requires_grad_(False)

    flow = GradientFlow(every_n_updates=1)
    train(tmp_path, [flow], begin=frozen, estimator=Chunked(100), batches=1, logged=False)
    assert flow.latest is not None
    assert not flow.latest["layer1"].by_timestep["h"].any()
    assert flow.latest["layer2"].by_timestep["h"].all()


def a_flow(length: int) -> dict[str, LayerFlow]:
    norms = {"h": 0.5 ** torch.arange(float(length)).flip(0).unsqueeze(1).expand(-1, 3)}
    return {"layer1": LayerFlow(norms, norms, 0.5, 0.5, 0, ())}


def test_history_is_thinned_when_it_is_full() -> None:
    """The heat map has at most MAX_COLUMNS columns at equal strides, from the first look to nearly the last."""
    heat_map = HeatMap()
    for look in range(1, 1001):
        heat_map.add(curves(a_flow(3 + look % 2)), look=look - 1, step=10 * look)
        assert len(heat_map.progress) == len(heat_map.history["layer1"]) <= MAX_COLUMNS
    assert heat_map.progress[0] == 10
    assert heat_map.progress[-1] > 9000
    assert len(heat_map.progress) > MAX_COLUMNS // 2 - 1
    assert len({after - before for before, after in pairwise(heat_map.progress)}) == 1
    for step, column in zip(heat_map.progress, heat_map.history["layer1"]):
        assert len(column) == 3 + (step // 10) % 2  # columns have stayed with their steps


def test_history_holds_logarithms_of_means_and_is_padded_in_the_figure() -> None:
    flow = GradientFlow()
    flow.latest = a_flow(5)
    flow.heat_map.add(curves(a_flow(3)), look=0, step=10)
    flow.heat_map.add(curves(a_flow(5)), look=1, step=20)
    torch.testing.assert_close(flow.heat_map.history["layer1"][0], torch.log10(torch.tensor([0.25, 0.5, 1.0])))
    (mesh,) = flow.figure().axes[2].collections
    array = mesh.get_array()
    assert array is not None
    shown = torch.tensor(np.ma.filled(array, math.nan))
    assert shown.shape == (5, 2)
    assert shown.isnan().tolist() == [[False, False]] * 3 + [[True, False]] * 2


def test_history_survives_a_checkpoint(tmp_path: Path) -> None:
    """Read back as plain containers and tensors, without running any code that a file may hold."""
    flow = GradientFlow(every_n_updates=1)
    options: dict[str, Any] = {"limit_val_batches": 1.0, "logged": False, "num_layers": 1}
    train(tmp_path, [flow, Checkpoint()], **options)
    path = tmp_path / "checkpoints" / "last.ckpt"
    stored = torch.load(path, weights_only=True)["callbacks"]
    (state,) = [state for name, state in stored.items() if "GradientFlow" in name]
    again = GradientFlow()
    again.load_state_dict(state)
    assert again.heat_map.progress == flow.heat_map.progress == [30, 60, 90]
    assert again.looks == 3
    assert all(map(torch.equal, again.heat_map.history["layer1"], flow.heat_map.history["layer1"]))
    resumed = GradientFlow(every_n_updates=1)
    train(tmp_path, [resumed, Checkpoint()], ckpt_path=path, max_epochs=2, **options)
    assert resumed.heat_map.progress == [30, 60, 90, 120, 150, 180]
    assert all(map(torch.equal, resumed.heat_map.history["layer1"], flow.heat_map.history["layer1"]))


@pytest.mark.parametrize(
    "wrong",
    [{"num_sequences": 0}, {"max_timesteps": 0}, {"epsilon": 0.0}, {"epsilon": 1.0}, {"lags": [5, 0]}, {"lags": [1.5]}],
    ids=str,
)
def test_refusals(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        GradientFlow(**wrong)
