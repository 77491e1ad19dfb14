"""The tab in a real TensorBoard over a real sweep, as a person uses it, in a headless Chromium."""

import csv
import io
import re
import shutil
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Frame, Locator, Page, expect
from sample_runs import looks_of as looks_of_model
from sample_runs import write_run
from support.browser import browser, faults_of, needs_browser, served
from support.script_runner import in_a_process

from bptt.configuration.compose import compose_config
from bptt.configuration.containers import resolved
from bptt.configuration.flat_settings import hyperparameters
from bptt.layers import LSTM
from bptt.measures import exact_flows
from bptt.measures.horizon import band
from bptt.model import SequenceModel
from bptt.run_folder import RunFolder
from bptt.tasks.copy_memory import CopyMemory
from bptt.tensorboard_tab.curve import Curve
from bptt.tensorboard_tab.history import CurveHistory

HTML = "<img src=x onerror=alert(1)> & <b>bold"
LENGTH, B = 30, 4
TASK = [
    "task=copy_memory",
    "task.delay=10",
    f"task.batch_size={B}",
    "task.train_batches=4",
    "task.validation_batches=1",
    "model.hidden_size=8",
    "trainer.val_check_interval=1.0",
    "callbacks=bias",
    "callbacks.truncation_bias.every_n_batches=2",
    "callbacks.gradient_flow.every_n_updates=1",
    "callbacks.jacobian_spectrum.every_n_updates=2",
]
TRAINED = {  # the others of the sweep have made-up curves, because training takes time
    "gru_15_1": ["model=gru", "estimator.chunk_size=15", "seed=1"],
    "lstm_30_2": ["model=lstm", "estimator.chunk_size=30", "seed=2"],
    # It does not learn, so that its weights are known.
    "still": ["model=lstm", "model.num_layers=2", "estimator=full", "optimizer=sgd", "optimizer.lr=1e-30"],
}

pytestmark = needs_browser


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 models × 3 chunk sizes × 2 seeds, of which two are trained; one run that does not learn, and an old one."""
    folder = tmp_path_factory.mktemp("logs")
    for model in ("elman", "gru", "lstm"):
        values = hyperparameters(resolved(compose_config([*TASK, f"model={model}"])))
        for chunk, seed in product((6, 15, 30), (1, 2)):
            name = f"{model}_{chunk}_{seed}"
            if name not in TRAINED:
                own = {**values, "estimator.chunk_size": chunk, "seed": seed}
                write_run(folder / name, looks_of_model(model, chunk, seed, (30, 60, 90, 120)), own)
    for name, words in TRAINED.items():
        done = in_a_process("train.py", *TASK, *words, f"hydra.run.dir={folder / name}", cwd=folder)
        assert done.returncode == 0, done.stderr
    # A run folder with a name that no shell would let pass, and one that an earlier version has written.
    named = folder / HTML
    named.mkdir()
    for path in RunFolder(folder / "still").events:
        shutil.copy(path, named)
    (folder / "old").mkdir()
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "old")) as writer:
        writer.add_scalar("train/loss", 1.0, 1)
    return folder


@pytest.fixture(scope="module")
def address(logs: Path) -> Iterator[str]:
    with served(logs, logs.parent / f"{logs.name}_server.txt") as found:
        yield found


class Tab:
    """The tab in the open browser page, with the errors that the browser reported."""

    def __init__(self, page: Page, address: str):
        self.page, self.address = page, address
        self.faults = faults_of(page)

    def open(self, link: str = "#gradient_flow") -> None:
        """Open all of TensorBoard the first time, later only the tab's frame, which is much faster."""
        if self.page.url.startswith(self.address):
            self.frame.evaluate(
                """link => {
                    window.stale = true;
                    // after the last link that the tab writes
                    window.onpagehide = () => parent.history.replaceState(null, "", link);
                    location.reload();
                }""",
                link,
            )
            self.frame.wait_for_function("!window.stale && document.getElementById('tab')")
        else:
            self.page.goto(f"{self.address}/{link}")
        self.part("#chart .main-svg, #empty:not([hidden])").first.wait_for()
        self.wait()

    def wait(self) -> None:
        """Wait until everything is loaded and drawn."""
        expect(self.part("#chart")).to_have_attribute("aria-busy", "false")

    def part(self, selector: str) -> Locator:
        return self.page.frame_locator("iframe").locator(selector)

    @property
    def frame(self) -> Frame:
        (frame,) = [frame for frame in self.page.frames if "plugin_entry" in frame.url]
        return frame

    def show(self, view: str) -> None:
        self.part(f"button[data-view={view}]").click()
        self.wait()

    def layout(self, part: str) -> Any:
        """A part of the chart's layout for plotly, as a JavaScript expression."""
        self.wait()
        return self.frame.evaluate(f"document.getElementById('chart').layout.{part}")

    def traces(self) -> list[dict[str, Any]]:
        """Traces drawn by plotly."""
        self.wait()
        traces: list[dict[str, Any]] = self.frame.evaluate(
            "JSON.parse(JSON.stringify(document.getElementById('chart').data))"
        )
        return traces

    def curves(self) -> dict[str, dict[str, Any]]:
        """Lines by the label of their run."""
        return {trace["name"]: trace for trace in self.traces() if trace.get("name") and len(trace["x"]) > 2}

    def choose(self, pattern: str, count: int) -> None:
        self.part("#filter").fill(pattern)
        expect(self.part("#count")).to_contain_text(f"{count} of")
        self.wait()

    def step(self, index: int) -> None:
        self.frame.evaluate(
            """index => {
                const slider = document.getElementById("step");
                slider.value = index;
                slider.dispatchEvent(new Event("input"));
            }""",
            index,
        )

    def csv(self) -> list[dict[str, str]]:
        self.wait()
        with self.page.expect_download() as download:
            self.part("#download-csv").click()
        return list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def browser_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as context:
        yield context.pages[0]


@pytest.fixture(scope="module")
def opened(browser_page: Page, address: str) -> Tab:
    return Tab(browser_page, address)


@pytest.fixture
def tab(opened: Tab) -> Iterator[Tab]:
    """The tab with all runs; whatever the browser complained of fails the test."""
    opened.open()
    yield opened
    assert opened.faults == []


def number(look: Curve, fact: str) -> float:
    value = look.facts[fact]
    assert isinstance(value, int | float)
    return value


def looks_of(logs: Path, run: str, name: str = "gradient_flow") -> CurveHistory:
    return CurveHistory.load(RunFolder(logs / run).curves(name), until=10**9)


def test_curves_by_lag_are_those_of_the_run_folder_and_exact(tab: Tab, logs: Path) -> None:
    """Two runs over each other: one of the sweep, and one whose weights never changed, against manual BPTT."""
    other = "gru_15_1"
    tab.choose(f"^({re.escape(other)}|still)$", 2)
    tab.part("#relative").uncheck()
    medians: dict[tuple[str, str], list[float]] = {}
    for row in tab.csv():
        medians.setdefault((row["run"], row["layer"]), []).append(float(row["median"]))
    assert {run for run, _ in medians} == {other, "still"}
    looks = looks_of(logs, other).looks["layer1/h/by_lag"]
    newest = looks[max(looks)]
    np.testing.assert_allclose(medians[other, "1"], newest.columns["median"], rtol=3e-3)
    flows = exact(logs / "still", batch=3)
    for layer, flow in enumerate(flows, start=1):
        np.testing.assert_allclose(medians["still", str(layer)], band(flow.by_lag["h"]).median, rtol=5e-3, atol=1e-12)


def exact(folder: Path, *, batch: int) -> list[Any]:
    """Gradient flow on a training batch at the weights of a run that did not change them."""
    task = CopyMemory(delay=10, batch_size=B, seed=1, train_batches=4, validation_batches=1, test_batches=1)
    model = SequenceModel(LSTM, input_size=10, output_size=9, hidden_size=8, num_layers=2)
    weights = torch.load(RunFolder(folder).last_checkpoint, weights_only=True)["state_dict"]
    model.load_state_dict(
        {name.removeprefix("model."): value for name, value in weights.items() if name.startswith("model.")}
    )
    return exact_flows(model, task.loss, task.batch("train", batch), model.initial_state(B), num_sequences=B)


def test_slider_shows_the_look_of_the_step(tab: Tab, logs: Path) -> None:
    run = "lstm_30_2"
    tab.choose(f"^{re.escape(run)}$", 1)
    looks = looks_of(logs, run).looks["layer1/h/by_lag"]
    steps = list(looks)
    assert steps == [30, 60, 90, 120]
    for index in (0, 2, 3):
        tab.step(index)
        expect(tab.part("#step-label")).to_contain_text(f"{steps[index]} timesteps trained")
        (trace,) = tab.curves().values()
        look = looks[steps[index]]
        assert trace["x"] == look.places.tolist()
        relative = look.columns["median"] / look.columns["median"].max()
        np.testing.assert_allclose(trace["y"], relative, rtol=6e-3)
    tab.part("#play").click()
    expect(tab.part("#step-label")).to_contain_text("newest")
    tab.part("#play").wait_for()


def test_horizon_follows_epsilon(tab: Tab, logs: Path) -> None:
    run = "lstm_30_2"
    tab.choose(f"^{re.escape(run)}$", 1)
    looks = looks_of(logs, run).looks["layer1/h/by_lag"]
    newest = looks[max(looks)]
    for epsilon in (None, 0.5, 0.1, 1e-4):
        tab.part("#epsilon").fill("" if epsilon is None else str(epsilon))
        (mark,) = [trace for trace in tab.traces() if trace.get("marker", {}).get("symbol") == "diamond"]
        far = [lag for lag, reach in zip(newest.places, newest.columns["reach"]) if reach >= (epsilon or 0.01)]
        assert mark["x"] == [max(far)], epsilon
        assert epsilon is not None or max(far) == newest.facts["horizon"]
    assert {row["epsilon"] for row in tab.csv()} == {"0.0001"}


def test_borders_by_timestep(tab: Tab, logs: Path) -> None:
    run = "gru_15_1"
    tab.choose(f"^{re.escape(run)}$", 1)
    tab.show("timestep")
    looks = looks_of(logs, run).looks["layer1/h/by_timestep"]
    newest = looks[max(looks)]
    (trace,) = tab.curves().values()
    assert trace["x"] == newest.places.tolist()
    np.testing.assert_allclose(trace["y"], newest.columns["median"], rtol=3e-3)
    assert tab.layout("shapes.map(shape => shape.path)") == ["M14.5,0V1"]
    assert newest.facts["borders"] == [15]


def test_heat_map_over_training_with_the_horizon_over_it(tab: Tab, logs: Path) -> None:
    run = "lstm_30_2"
    tab.choose(f"^{re.escape(run)}$", 1)
    tab.show("training")
    looks = looks_of(logs, run).looks["layer1/h/by_lag"]
    heat, _, horizons, rates = tab.traces()
    assert heat["type"] == "heatmap"
    assert heat["x"] == list(looks)
    for column, look in enumerate(looks.values()):
        median = look.columns["median"]
        shown = [row[column] for row in heat["z"]]
        np.testing.assert_allclose(shown, np.maximum(np.log10(median / median.max()), -8), atol=5e-3)
    assert horizons["y"] == [look.facts["horizon"] for look in looks.values()]
    np.testing.assert_allclose(rates["y"], [number(look, "decay_rate") for look in looks.values()], rtol=1e-6)


def test_runs_of_one_layer_beside_those_of_two_over_training(tab: Tab) -> None:
    """An empty panel of a layer that a run lacks had made-up axes, and plotly complained."""
    tab.choose("^(still|gru_15_1)$", 2)
    tab.show("training")
    assert [trace["type"] for trace in tab.traces()].count("heatmap") == 3
    titles = tab.layout("annotations.map(each => each.text)")
    assert sorted(title[-7:] for title in titles if "layer" in title) == ["layer 1", "layer 1", "layer 2"]


def test_truncation_bias_by_chunk_size(tab: Tab, logs: Path) -> None:
    run = "gru_15_1"
    tab.choose(f"^{re.escape(run)}$", 1)
    tab.show("bias")
    looks = looks_of(logs, run, "truncation_bias").looks["truncation_bias"]
    newest = looks[max(looks)]
    assert 15 in newest.places
    relative, used, cosine, _ = tab.traces()
    assert relative["x"] == cosine["x"] == newest.places.tolist()
    expected = newest.columns["relative"]
    floor = 10 ** tab.layout("yaxis.range")[0]
    assert min(expected) < floor  # one chunk for the whole sequence
    np.testing.assert_allclose(relative["y"], np.where(expected > 1e-6, expected, 1.15 * floor), rtol=0.15)
    np.testing.assert_allclose(relative["customdata"], expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(cosine["y"], newest.columns["cosine"], atol=1e-4)
    assert used["x"] == [15]


def test_spectrum(tab: Tab, logs: Path) -> None:
    run = "gru_15_1"
    tab.choose(f"^{re.escape(run)}$", 1)
    tab.show("spectrum")
    looks = looks_of(logs, run, "jacobian_spectrum").looks["layer1/jacobian"]
    newest = looks[max(looks)]
    traces = tab.traces()
    assert len(traces) == 4 + 2  # ranks 1, 2, 4 and 8; the exponent, and where it is now
    np.testing.assert_allclose(traces[0]["y"], newest.columns["singular_value_1"], rtol=3e-3)
    np.testing.assert_allclose(traces[4]["y"], [number(look, "lyapunov") for look in looks.values()], rtol=1e-4)


def test_runs_are_chosen_by_name_and_by_swept_value_and_set_apart(tab: Tab) -> None:
    expect(tab.part("#count")).to_have_text("20 of 20")
    tab.part("#swept .chip").filter(has_text="gru").click()
    expect(tab.part("#count")).to_have_text("14 of 20")
    tab.part("#runs input").first.uncheck()
    expect(tab.part("#count")).to_have_text("13 of 20")
    tab.part("#filter").fill("_1$")
    expect(tab.part("#count")).to_have_text("5 of 20")
    tab.part("#filter").fill("(")
    expect(tab.part("#filter-problem")).to_be_visible()
    tab.part("#filter").fill("nothing is called so")
    expect(tab.part("#empty")).to_contain_text("No run is chosen")
    tab.part("#run-section button.link").first.click()
    expect(tab.part("#count")).to_have_text("20 of 20")
    tab.part("#split").select_option(label="model")
    titles = tab.layout("annotations.map(each => each.text)")
    assert [title for title in titles if "layer 1" in title] == [
        f"model = {name} · layer 1" for name in ("elman", "gru", "lstm")
    ]
    tab.part("#tensor").select_option("c")
    assert {row["run"] for row in tab.csv() if "lstm" not in row["run"]} == {"still", HTML}


def test_a_link_opens_the_same_view(tab: Tab) -> None:
    tab.choose("lstm", 6)
    tab.part("#epsilon").fill("0.2")
    tab.part("#logLag").check()
    tab.step(0)
    tab.show("timestep")
    expect(tab.page).to_have_url(re.compile("p.gradient_flow.view=%22timestep%22"))
    tab.show("lag")
    expect(tab.page).not_to_have_url(re.compile("p.gradient_flow.view"))
    expect(tab.page).to_have_url(re.compile("p.gradient_flow.filter=%22lstm%22"))
    before, link = tab.traces(), tab.page.url.partition("/#")[2]
    tab.open(f"#{link}")
    expect(tab.part("#filter")).to_have_value("lstm")
    expect(tab.part("#epsilon")).to_have_value("0.2")
    deadline = time.monotonic() + 30
    while tab.traces() != before and time.monotonic() < deadline:  # curves of several requests arrive one by one
        time.sleep(0.1)
    assert tab.traces() == before


@pytest.mark.parametrize(("kind", "beginning"), [("png", b"\x89PNG\r\n\x1a\n"), ("svg", b"<svg ")])
def test_pictures_are_downloaded(tab: Tab, kind: str, beginning: bytes) -> None:
    with tab.page.expect_download() as download:
        tab.part(f"#download-{kind}").click()
    assert download.value.suggested_filename == f"gradient_flow_lag.{kind}"
    content = Path(download.value.path()).read_bytes()
    assert content.startswith(beginning)
    assert len(content) > 10_000


def test_names_with_html_stay_text(tab: Tab) -> None:
    """HTML is escaped in the list, in titles of the chart and in its hover labels."""
    assert tab.part("#runs li").filter(has_text=HTML).count() == 1
    tab.choose("img|still", 2)
    for view in ("lag", "timestep", "training", "bias", "spectrum"):
        tab.show(view)
        inside = tab.part("#chart").inner_html()
        assert "<img" not in inside
        assert "onerror=alert(1)&gt;" in inside or view != "training"
    assert any(row["run"] == HTML for row in tab.csv())


def test_runs_without_curves_are_counted(tab: Tab) -> None:
    expect(tab.part("#without")).to_have_text("1 more run holds no curves.")


def test_runs_of_an_earlier_version_are_said_to_hold_no_curves(browser_page: Page, logs: Path, tmp_path: Path) -> None:
    with served(logs / "old", tmp_path / "output.txt") as address:
        tab = Tab(browser_page.context.new_page(), address)
        tab.open()
        expect(tab.part("#empty")).to_contain_text("The run here holds no curves. Train with callbacks=default")
        assert tab.faults == []
        tab.page.close()


def test_dark_theme_is_followed(tab: Tab) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = tab.frame.evaluate(colour)
    tab.page.evaluate("document.body.classList.toggle('dark-mode')")
    tab.frame.wait_for_function(f"{colour} !== '{light}'")
    tab.frame.wait_for_function("document.getElementById('chart').layout.paper_bgcolor === '#22262b'")
    tab.page.evaluate("document.body.classList.toggle('dark-mode')")
