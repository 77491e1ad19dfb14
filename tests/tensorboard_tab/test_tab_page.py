"""The tab's page in a headless Chromium, with requests answered from made-up curves, so that they can also fail."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect
from sample_runs import bias, by_timestep, decaying, looks_of, spectrum
from support.browser import browser, faults_of, needs_browser
from tensorboard.data.provider import TensorDatum

from bptt import tensorboard_tab
from bptt.tensorboard_tab.curve import Curve, to_bytes
from bptt.tensorboard_tab.series import plain
from bptt.tensorboard_tab.thinning import thinned

ASSETS = Path(tensorboard_tab.__file__).parent / "assets"
(PLOTLY,) = (Path(file.locate()) for file in files("plotly") or [] if file.name == "plotly.min.js")
ADDRESS = "http://127.0.0.1:9/"  # no request leaves the browser
PAGE = """<!doctype html><title>tab</title>
<script type="module">
import { render } from "./index.js";
window.started = render().then((tab) => { window.tab = tab; });
</script>"""
BY_LAG, BY_TIMESTEP = "layer1/h/by_lag", "layer1/h/by_timestep"

pytestmark = needs_browser

Looks = Mapping[int, Mapping[str, Curve]]  # curves by tag, by step


class Tab:
    """The tab over runs, which a test may change between two polls.

    refused: requests that fail, such as "runs", or "looks a" for those of the run a.
    """

    def __init__(self, page: Page):
        self.page = page
        self.faults = faults_of(page)
        page.route(f"{ADDRESS}**", self.answer)

    def open(
        self,
        runs: Mapping[str, Looks],
        hparams: Mapping[str, Mapping[str, float | str]] | None = None,
        refused: set[str] | None = None,
        **state: Any,
    ) -> None:
        """state: that of the tab, in its link."""
        self.runs = dict(runs)
        self.hparams = hparams or {}
        self.refused = refused or set()
        self.page.goto("about:blank")
        self.faults.clear()
        link = "&".join(f"p.gradient_flow.{key}={json.dumps(value)}" for key, value in state.items())
        self.page.goto(f"{ADDRESS}#gradient_flow&{link}")
        self.page.evaluate("started")

    def answer(self, route: Route) -> None:
        parts = urlsplit(route.request.url)
        name = parts.path.strip("/")
        query = parse_qs(parts.query)
        if self.refused & {name, *(f"{name} {run}" for run in query.get("run", []))}:
            route.abort()
        elif name == "plotly.js":
            route.fulfill(path=PLOTLY)
        elif (ASSETS / name).is_file():
            route.fulfill(path=ASSETS / name)
        elif name == "runs":
            listed = [
                {"name": run, "tags": self.newest(run), "hparams": self.hparams.get(run, {})} for run in self.runs
            ]
            route.fulfill(json={"runs": listed, "without": []})
        elif name == "look":
            (tag,), points = query["tag"], int(query["points"][0])
            route.fulfill(json={"curves": {run: self.looks(run, tag, points)[-1] for run in query["run"]}})
        elif name == "looks":
            (run,), (tag,) = query["run"], query["tag"]
            route.fulfill(json={"looks": self.looks(run, tag, int(query["points"][0]))})
        else:
            route.fulfill(body=PAGE, content_type="text/html")

    def newest(self, run: str) -> dict[str, int]:
        return {tag: step for step, curves in self.runs[run].items() for tag in curves}

    def looks(self, run: str, tag: str, points: int) -> list[dict[str, Any]]:
        data = ((step, curves[tag]) for step, curves in self.runs[run].items() if tag in curves)
        coded = ((step, np.array(to_bytes(curve), dtype=object)) for step, curve in data)
        return [plain(TensorDatum(step=step, wall_time=0.0, numpy=each), points) for step, each in coded]

    def poll(self) -> None:
        self.page.evaluate("tab.poll()")

    def set(self, **state: Any) -> None:
        self.page.evaluate("state => tab.controls.set(state)", state)
        self.wait()

    def wait(self) -> None:
        expect(self.page.locator("#chart")).to_have_attribute("aria-busy", "false")

    def figure(self, part: str) -> Any:
        """A part of the figure drawn by plotly, as a JavaScript expression over `data` and `layout`."""
        return self.page.evaluate(f"(({{ data, layout }}) => {part})(document.getElementById('chart'))")

    def csv(self) -> list[dict[str, str]]:
        text = self.page.evaluate("import('./csv.js').then(({ toCsv }) => toCsv(tab.figure.table()))")
        return list(csv.DictReader(io.StringIO(text)))

    def range(self) -> tuple[float, float]:
        """Ends of the first panel's logarithmic y-axis."""
        low, high = self.figure("layout.yaxis.range")
        return 10**low, 10**high

    def says(self, part: str) -> str:
        return self.page.locator(part).inner_text()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as context:
        yield Tab(context.pages[0])


@pytest.fixture
def tab(opened: Tab) -> Iterator[Tab]:
    """Whatever the browser complained of fails the test, but for requests that the test refused."""
    yield opened
    assert [fault for fault in opened.faults if "net::ERR_FAILED" not in fault] == []


def long_curve(rate: float, num_lags: int = 2000) -> Curve:
    """exp(−k / rate), thinned as the callback does."""
    whole = decaying(num_lags, decay=float(np.exp(-1 / rate)), epsilon=0.01)
    horizon = whole.facts["horizon"]
    assert isinstance(horizon, int)
    return whole.at(thinned(whole.columns["median"][None], axis="log", keep=[horizon]))


@pytest.mark.parametrize("num_runs", [1, 5, 20], ids=["256 points", "128 points", "64 points"])
def test_horizon_of_a_thinned_curve_at_another_epsilon_is_near_and_said_to_be_so(tab: Tab, num_runs: int) -> None:
    curve = long_curve(300)
    tab.open({f"run{number}": {1: {BY_LAG: curve}} for number in range(num_runs)})
    for epsilon in (0.5, 0.2, 0.1, 0.05, 0.02):
        tab.set(epsilon=epsilon)
        rows = tab.csv()
        assert {row["horizon_exact"] for row in rows} == {"0"}
        (horizon,) = {int(row["horizon"]) for row in rows}
        assert horizon == pytest.approx(300 * np.log(1 / epsilon), abs=2, rel=0.003)
        assert "≈" in tab.says("#note")
        mark = tab.figure("data.at(-1)")
        assert set(mark["customdata"]) == {"≈ "}
        np.testing.assert_allclose(mark["y"], epsilon, rtol=0.01)  # on the curve
    tab.set(view="training")
    assert {row["horizon_exact"] for row in tab.csv()} == {"0"}


@pytest.mark.parametrize("num_runs", [1, 20])
def test_logged_horizon_is_exact_and_marked_on_the_curve(tab: Tab, num_runs: int) -> None:
    curve = long_curve(300)
    tab.open({f"run{number}": {1: {BY_LAG: curve}} for number in range(num_runs)})
    assert {(row["horizon"], row["horizon_exact"]) for row in tab.csv()} == {(str(curve.facts["horizon"]), "1")}
    assert "≈" not in tab.says("#note")
    mark = tab.figure("data.at(-1)")
    assert set(mark["x"]) == {curve.facts["horizon"]} == {1381}
    np.testing.assert_allclose(mark["y"], np.exp(-1381 / 300), rtol=3e-3)


def test_bias_of_many_looks(tab: Tab) -> None:
    """More values than a function call has room for arguments."""
    looks = {step: {"truncation_bias": bias(17, strength=1)} for step in range(1000)}
    tab.open({f"run{number}": looks for number in range(9)}, view="bias")
    tab.wait()
    assert len({row["run"] for row in tab.csv()}) == 9
    assert tab.says("#problem") == ""


@pytest.mark.parametrize("view", ["lag", "timestep"])
def test_axis_shows_the_whole_band_if_it_is_drawn(tab: Tab, view: str) -> None:
    flow = decaying(10, decay=0.98)
    wide = Curve(flow.places, {**flow.columns, "low": np.full(10, 0.1), "high": np.full(10, 10.0)}, flow.facts)
    tab.open({"wide": {1: {BY_LAG: wide, BY_TIMESTEP: by_timestep(wide, start=0, borders=[])}}}, view=view)
    low, high = tab.range()
    assert low < 0.1
    assert high > 10
    tab.set(band=False)
    low, high = tab.range()
    assert low > 0.5
    assert high < 2


def test_small_multiples_have_a_panel_for_every_value(tab: Tab) -> None:
    sizes = [2**power for power in range(8)]
    curves = {**looks_of("elman", 30, 1, [1], layers=2)[1]}
    hparams = {f"run{size}": {"model.hidden_size": size} for size in sizes}
    tab.open({f"run{size}": {1: curves} for size in sizes}, hparams, split="model.hidden_size")
    for view, num_rows in (("lag", 2), ("timestep", 2), ("bias", 2)):
        tab.set(view=view)
        assert {row["run"] for row in tab.csv()} == set(hparams)
        titles = tab.figure("layout.annotations.map(each => each.text)")
        assert {title.partition(" · ")[0] for title in titles} == {f"hidden_size = {size}" for size in sizes}
        axes = tab.figure("Object.keys(layout).filter(key => key.startsWith('yaxis')).map(key => layout[key].domain)")
        assert len(axes) == 8 * num_rows
        assert len(set(map(tuple, axes))) == 2 * num_rows  # two blocks of four


def test_failed_request_is_tried_again(tab: Tab) -> None:
    runs = {"a": {step: {BY_LAG: decaying(5, decay=0.5)} for step in (100, 200)}}
    tab.open(runs)
    tab.runs["a"] = {**runs["a"], 300: {BY_LAG: decaying(5, decay=0.9)}}
    tab.refused = {"look", "looks"}
    tab.poll()
    assert tab.says("#problem") == "TensorBoard did not answer: Failed to fetch"
    tab.refused = {"runs"}
    tab.poll()
    tab.refused = set()
    tab.poll()
    assert tab.says("#problem") == ""
    assert {row["timesteps_trained"] for row in tab.csv()} == {"300"}
    assert tab.page.evaluate("tab.allSteps") == [100, 200, 300]


def test_page_opens_although_the_first_request_fails(tab: Tab) -> None:
    tab.open({"a": {1: {BY_LAG: decaying(5, decay=0.5)}}}, refused={"runs"})
    assert tab.says("#problem") == "TensorBoard did not answer: Failed to fetch"
    assert tab.says("#empty") == ""
    tab.set(relative=False)
    tab.refused = set()
    tab.poll()
    assert tab.says("#problem") == ""
    assert len(tab.csv()) == 5


def test_plotly_is_loaded_again(tab: Tab) -> None:
    tab.open({"a": {1: {BY_LAG: decaying(5, decay=0.5)}}}, refused={"plotly.js"})
    tab.wait()
    assert "plotly's script could not be loaded" in tab.says("#problem")
    tab.refused = set()
    tab.poll()
    expect(tab.page.locator("#problem")).to_be_hidden()
    assert tab.figure("data.length") > 0


def test_looks_of_one_run_that_fail_do_not_stop_the_others(tab: Tab) -> None:
    runs = {name: {step: {BY_LAG: decaying(5, decay=0.5)} for step in (1, 2)} for name in "abcdefgh"}
    tab.open(runs, refused={"looks b"}, step=1)
    assert "did not answer" in tab.says("#problem")
    expect(tab.page.locator("#progress")).to_be_hidden()
    shown = {row["run"]: row["timesteps_trained"] for row in tab.csv()}
    assert shown == {**dict.fromkeys("abcdefgh", "1"), "b": "2"}
    tab.refused = set()
    tab.poll()
    assert {row["timesteps_trained"] for row in tab.csv()} == {"1"}


def test_growing_run_keeps_its_earlier_looks_until_all_are_read(tab: Tab) -> None:
    looks = {step: {BY_LAG: decaying(5, decay=0.5)} for step in (100, 200, 300)}
    tab.open({"a": looks}, step=100)
    tab.runs["a"] = {**looks, 400: {BY_LAG: decaying(5, decay=0.9)}}
    tab.refused = {"looks"}
    tab.poll()
    assert {row["timesteps_trained"] for row in tab.csv()} == {"100"}
    assert tab.page.evaluate("tab.allSteps") == [100, 200, 300, 400]


def test_all_borders_are_drawn_and_exported(tab: Tab) -> None:
    """Also with so many runs that most timesteps of the curve are left out."""
    borders = list(range(4, 1000, 4))
    curve = by_timestep(decaying(1000, decay=0.99), start=0, borders=borders)
    tab.open({f"run{number}": {1: {BY_TIMESTEP: curve}} for number in range(20)}, view="timestep")
    paths = tab.figure("layout.shapes.map(shape => shape.path)")
    assert [float(x) + 0.5 for x in re.findall(r"M([\d.]+),", "".join(paths))] == borders
    rows = [row for row in tab.csv() if row["run"] == "run7"]
    assert [int(row["timestep"]) for row in rows if row["border"] == "1"] == borders
    assert sorted({int(row["timestep"]) for row in rows}) == [int(row["timestep"]) for row in rows]
    assert sum(row["median"] != "" for row in rows) <= 64


def wide_layer(num_lags: int) -> Curve:
    """Frobenius norms, as of layers with more units than singular values are computed for."""
    norms = np.geomspace(1, 0.1, num_lags)
    return Curve(np.arange(num_lags), {"frobenius_norm": norms}, {"update": 1, "lyapunov": -0.1})


@pytest.mark.parametrize(
    ("shown", "title", "note"),
    [
        (["wide"], "Frobenius norm", "Frobenius norm of the Jacobian product along one sequence. "),
        (
            ["narrow"],
            "singular values",
            "Singular values of the Jacobian product along one sequence; thick: the largest.",
        ),
        (["narrow", "wide"], "singular values or Frobenius norm", "Singular values or Frobenius norm of the Jacobian "),
        (
            ["narrow"] * 5,
            "largest singular value",
            "Largest singular value of the Jacobian product along one sequence. ",
        ),
    ],
)
def test_spectrum_is_called_what_it_is(tab: Tab, shown: list[str], title: str, note: str) -> None:
    curves = {"wide": wide_layer(10), "narrow": spectrum(10, growth=0.9)}
    runs = {f"{name}{number}": {1: {"layer1/jacobian": curves[name]}} for number, name in enumerate(shown)}
    tab.open(runs, view="spectrum")
    assert tab.figure("layout.yaxis.title.text") == f"{title} of ∂h<sub>T</sub>/∂h<sub>t</sub>"
    assert tab.says("#note").startswith(note)


def test_heat_map_of_the_cell_state_and_of_exploding_gradients(tab: Tab) -> None:
    runs = {"a": {step: {"layer1/c/by_lag": decaying(9, decay=1.3)} for step in (1, 2)}}
    tab.open(runs, view="training", tensor="c")
    assert "∂cₛ₋ₖ" in tab.figure("data[0].colorbar.title.text")
    assert tab.figure("layout.yaxis101.range[1]") > 1.3
    ticks = tab.page.locator("#chart .y101tick")
    assert {"0", "0.5", "1"} <= set(ticks.all_text_contents())


def test_narrow_axis_has_ticks(tab: Tab) -> None:
    values = np.linspace(1.15e-3, 1.2e-3, 9)
    columns = {"median": values, "low": values, "high": values, "reach": values / values.max()}
    tab.open({"a": {1: {BY_LAG: Curve(np.arange(9), columns, {"epsilon": 0.01, "horizon": 8})}}}, relative=False)
    assert tab.page.locator("#chart .yaxislayer-above .ytick").count() >= 2


def test_empty_view_says_which_choice_leaves_nothing(tab: Tab) -> None:
    runs = {model: looks_of(model, 30, 1, [1], layers=layers) for model, layers in (("gru", 1), ("lstm", 2))}
    tab.open(runs, filter="gru", tensor="c")
    for view in ("lag", "timestep", "training"):
        tab.set(view=view, tensor="c", layers=None)
        assert "None of the chosen runs has the state tensor c." in tab.says("#empty")
        tab.set(tensor="h", layers=[2])
        assert "None of the chosen runs has layer 2." in tab.says("#empty")
    tab.set(view="spectrum")
    assert "None of the chosen runs has layer 2." in tab.says("#empty")
    tab.set(view="bias", layers=None)
    assert tab.csv()


def test_over_training_takes_the_first_runs_with_the_state_tensor(tab: Tab) -> None:
    names = {f"gru{number}": looks_of("gru", 9, 1, [1, 2]) for number in range(4)} | {
        "lstm": looks_of("lstm", 9, 1, [1])
    }
    tab.open(names, view="training", tensor="c")
    assert {row["run"] for row in tab.csv()} == {"lstm"}


def test_panels_of_many_layers_have_room(tab: Tab) -> None:
    """Side by side, and below each other."""
    curves = looks_of("elman", 9, 1, [1], layers=26)[1]
    tab.open({name: {1: curves} for name in "ab"}, view="training")
    for view, axis in (("training", "xaxis"), ("lag", "yaxis")):
        tab.set(view=view)
        axes = tab.figure(f"Object.keys(layout).filter(key => key.startsWith('{axis}')).map(key => layout[key].domain)")
        domains = {tuple(domain) for domain in axes if domain}
        assert len(domains) == 26
        assert all(-1e-9 < low < high < 1 + 1e-9 for low, high in domains)


def test_name_is_not_a_template(tab: Tab) -> None:
    name = "100%{x} <b>"
    tab.open({name: {1: {BY_LAG: decaying(5, decay=0.5)}}})
    number = tab.figure("data.findIndex(trace => trace.name)")
    tab.page.evaluate(f"Plotly.Fx.hover('chart', [{{ curveNumber: {number}, pointNumber: 3 }}])")
    label = tab.page.locator("#chart .hoverlayer")
    expect(label).to_contain_text(name)
    expect(label).to_contain_text("lag 3: 0.125")
