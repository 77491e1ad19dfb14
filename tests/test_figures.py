"""Figures are drawn for every curve that training can bring, without a window."""

import math
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import Collection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bptt import figures
from bptt.figures import Panel
from bptt.measures import LayerFlow

T, K, n = 12, 6, 5


TITLE = "CopyMemory · 2 × LSTM(128) · Chunked 60 · update 1,024"


def flow(
    scale: float = 1.0,
    *,
    length: int = T,
    lags: int = K,
    memory: bool = False,
    start: int = 0,
    borders: tuple[int, ...] = (),
) -> LayerFlow:
    """Curves that decay into the past."""
    names = ["h", "c"] if memory else ["h"]
    back = 0.8 ** torch.arange(float(length)).flip(0).unsqueeze(1)
    return LayerFlow(
        by_timestep={name: scale * back * (1 + torch.rand(length, n)) for name in names},
        by_lag={
            name: scale * 0.5 ** torch.arange(float(lags)).unsqueeze(1) * (1 + torch.rand(lags, n)) for name in names
        },
        transport=0.5,
        saturation=0.5,
        start=start,
        borders=borders,
    )


def x_values(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_xdata())


def array_of(mesh: Collection, empty: float) -> np.ndarray:
    """The values that a heat map shows, with `empty` where it shows none."""
    array = mesh.get_array()
    assert array is not None
    return np.ma.filled(array, empty)


def one_layer() -> Figure:
    """Flow of a one-layer model in double precision."""
    each = flow()
    by_timestep, by_lag = ({"h": values["h"].double()} for values in (each.by_timestep, each.by_lag))
    double = each._replace(by_timestep=by_timestep, by_lag=by_lag)
    return figures.gradient_flow({"layer1": double}, title="before training")


def many_layers() -> Figure:
    """More than there are colours."""
    return figures.gradient_flow({f"layer{number}": flow(memory=True) for number in range(1, 9)})


def one_timestep() -> Figure:
    return figures.gradient_flow({"layer1": flow(length=1, lags=1)}, {"layer1": torch.zeros(1, 1)}, [5])


def all_zero() -> Figure:
    nothing = torch.full((T, 2), -math.inf)
    return figures.gradient_flow(
        {"layer1": flow(0.0), "layer2": flow()}, {"layer1": nothing, "layer2": nothing}, [5, 9]
    )


def at_the_edge_of_single_precision() -> Figure:
    flows = {"layer1": flow(1e-38), "layer2": flow(1e37)}
    return figures.gradient_flow(flows, {"layer1": torch.full((T, 3), -38.0)}, [5, 6, 7])


def diverged() -> Figure:
    """Flow of a network with exploded gradients."""
    return figures.gradient_flow(
        {"layer1": flow(math.nan), "layer2": flow(math.inf)},
        {"layer1": torch.full((T, 1), math.nan), "layer2": torch.full((T, 1), math.inf)},
        [5],
    )


def history_with_ragged_columns() -> Figure:
    names = ("layer1", "layer2", "layer3")
    values = torch.randn(T, 130) - 3
    values[8:, 20:40] = math.nan
    return figures.gradient_flow({name: flow() for name in names}, dict.fromkeys(names, values), range(0, 1300, 10))


def image_by_lag() -> Figure:
    return figures.gradient_by_lag([flow(memory=True), flow()], title=TITLE)


def image_by_timestep() -> Figure:
    return figures.gradient_by_timestep([flow(memory=True, borders=(4, 8)), flow()], title=TITLE)


def image_over_training() -> Figure:
    values = torch.randn(T, 9) - 3
    values[8:, 2:4], values[:2, 5:] = math.nan, -math.inf
    return figures.gradient_over_training(values, range(0, 90, 10), title=TITLE)


def image_of_a_spectrum() -> Figure:
    return figures.singular_values(torch.rand(T, 5).sort(descending=True).values, title=TITLE)


def image_of_the_bias() -> Figure:
    looks = [{2**power: (0.9, 0.5**power, 0.8) for power in range(5)}] * 3
    return figures.bias_by_chunk_size(looks, [0, 10, 20], "relative", in_use=8, title=TITLE)


IMAGES = (image_by_lag, image_by_timestep, image_over_training, image_of_a_spectrum, image_of_the_bias)


def spectra() -> Figure:
    """Spectra of many timesteps and of one, as singular values and as a norm, and of zeros."""
    values = (0.7 ** torch.arange(float(T)).flip(0)).unsqueeze(1) * torch.rand(T, 5).sort(descending=True).values
    each = {"layer1": values, "layer2": values[:, :1], "layer3": torch.zeros(T, 3), "layer4": torch.ones(1, 3)}
    return figures.spectrum(each, title="at the start")


def spectra_diverged() -> Figure:
    return figures.spectrum({"layer1": torch.full((T, 1), math.nan), "layer2": torch.full((T, 1), math.inf)})


def predicted_rows() -> Figure:
    """Rows of two series, with dates that begin again, and a target that is missing."""
    rows = [1, 2, 3, 11, 12, 20]
    days = [date(2024, 1, day) for day in (1, 2, 3, 1, 2, 9)]
    values = [1.0, 2.0, None, 4.0, 5.0, 6.0]
    figure = figures.predictions({"row": rows, "day": days, "a predicted": [1.0] * 6, "a": values}, title="$run")
    assert figure is not None
    assert [len(x_values(line)) for line in figure.axes[0].lines] == [3, 3, 2, 2, 1, 1]
    assert figure.axes[0].get_xlabel() == "row of the table"
    return figure


def predicted_series() -> Figure:
    """Rows of two series, which alternate in the file."""
    columns: dict[str, Sequence[Any]] = {
        "id": ["a", "a", "a", "b", "b"],
        "row": [1, 3, 5, 2, 4],
        "x predicted": [1.0] * 5,
        "x": [2.0] * 5,
    }
    figure = figures.predictions(columns)
    assert figure is not None
    assert [len(x_values(line)) for line in figure.axes[0].lines] == [3, 3, 2, 2]
    return figure


def predicted_over_time() -> Figure:
    days = [date(2024, month, 1) for month in range(1, 7)]
    figure = figures.predictions({"row": [*range(6)], "day": days, "a predicted": [1.0] * 6, "a": [2.0] * 6})
    assert figure is not None
    assert figure.axes[0].get_xlabel() == "day"
    return figure


def predicted_classes() -> Figure:
    """Class 10 is never predicted, one target is not known."""
    columns: dict[str, Sequence[Any]] = {"y predicted": [2, 3, 2, 2], "y probability": [0.5] * 4, "y": [2, 3, 10, None]}
    figure = figures.predictions(columns)
    assert figure is not None
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["2", "3", "10"]
    assert [text.get_text() for text in axis.texts] == ["1", "0", "0", "0", "1", "0", "1", "0", "0"]
    return figure


def many_classes() -> Figure:
    return figures.confusion_matrix(torch.randint(9, (50, 50)), [f"class {n}" for n in range(50)], title=TITLE)


DRAWINGS = (
    predicted_rows,
    predicted_series,
    predicted_over_time,
    predicted_classes,
    many_classes,
    one_layer,
    many_layers,
    one_timestep,
    all_zero,
    at_the_edge_of_single_precision,
    diverged,
    history_with_ragged_columns,
    spectra,
    spectra_diverged,
)


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.__name__)
def test_draws(drawing: Callable[[], Figure]) -> None:
    figure = drawing()
    shown = figures.pixels(figure)
    width, height = figure.get_size_inches() * figure.dpi
    assert shown.dtype == torch.uint8
    assert shown.shape == (round(height), round(width), 3)
    assert 0.005 < float((shown < 250).any(-1).float().mean()) < 0.9  # ink on white paper


@pytest.mark.parametrize("drawing", IMAGES, ids=lambda drawing: drawing.__name__)
def test_images_are_small_and_nothing_in_them_collides(drawing: Callable[[], Figure]) -> None:
    """TensorBoard shows an image half as wide; the legend lies under the axes, the title above them."""
    figure = drawing()
    assert figures.pixels(figure).shape[1] <= 900
    axis = figure.axes[0]
    heading, title = figure.texts
    assert title.get_text() == TITLE
    inside = axis.get_tightbbox()
    assert inside is not None
    boxes = [each.get_window_extent() for each in (heading, title, *figure.legends)] + [inside]
    for index, one in enumerate(boxes):
        assert figure.bbox.x0 <= one.x0 < one.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= one.y0 < one.y1 <= figure.bbox.y1
        assert not any(one.overlaps(other) for other in boxes[index + 1 :])


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_legends_name_what_is_drawn() -> None:
    capped = flow()._replace(by_lag={"h": torch.ones(30, n)})
    assert set(legend(figures.gradient_by_lag([capped], epsilon=0.05))) == {
        "layer1, horizon ≥ 29",
        "5th to 95th percentile",
        "horizon, ε = 5 % of the peak",
        "gradient cut here, or start",
    }
    assert "chunk border: gradient cut" in legend(image_by_timestep())
    assert "no gradient: update was shorter, or it is not finite" in legend(image_over_training())
    assert "chunk size in use: 8" in legend(image_of_the_bias())


@pytest.mark.parametrize("name", ["_old", "$x_a \\frac$", "a$", "$$", "{\\bf $}"])
def test_names_are_shown_as_they_are_written(name: str) -> None:
    """matplotlib would read what is between two $ as mathematics, and end with an error."""
    panel = Panel("x", "y", {name: {1: (1.0, 0.0), 2: (2.0, 0.0)}}, title=name, references={name: 1.5})
    shown = figures.panels([panel])
    assert figures.pixels(shown).numel()
    legend = shown.axes[0].get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text().replace("\\$", "$").strip() == name
    assert figures.pixels(figures.gradient_flow({name: flow()}, title=name)).numel()
    assert figures.pixels(figures.spectrum({"layer1": torch.ones(3, 2)}, title=name)).numel()


def test_flows_in_a_list_are_layers() -> None:
    flows = [flow(), flow(0.5)]
    shown, expected = figures.gradient_by_lag(flows), figures.gradient_by_lag({"layer1": flows[0], "layer2": flows[1]})
    assert torch.equal(figures.pixels(shown), figures.pixels(expected))


def test_lag_axis_shows_where_the_action_is() -> None:
    """Cropped where rounding begins; logarithmic if a long tail would leave no room for the horizon."""
    lags = torch.arange(2000.0).unsqueeze(1)
    fast, tail = (flow()._replace(by_lag={"h": values.expand(-1, n)}) for values in (0.8**lags, (1 + lags) ** -2.0))
    cropped = figures.gradient_by_lag([fast]).axes[0]
    assert cropped.get_xscale() == "linear"
    assert 123 <= cropped.get_xlim()[1] < 150  # 0.8¹²³ is 10⁻¹²
    whole = figures.gradient_by_lag([fast, tail]).axes[0]
    assert whole.get_xscale() == "symlog"
    assert whole.get_xlim()[1] >= 1999
    late = flow()._replace(by_timestep={"h": 0.8 ** lags.flip(0).expand(-1, n)})
    assert figures.gradient_by_timestep([late]).axes[0].get_xlim()[0] > 1850


def test_a_heat_map_has_no_holes_where_the_gradient_is_0() -> None:
    values = torch.tensor([[-1.0, -math.inf, math.nan], [-2.0, -3.0, 0.0]])
    (mesh,) = figures.gradient_over_training(values, [1, 2, 3]).axes[0].collections[:1]
    assert array_of(mesh, 9).tolist() == [[-1, -3, 9], [-2, -3, 0]]


def test_saves_a_png(tmp_path: Path) -> None:
    figure = figures.spectrum({"layer1": torch.rand(T, 3)})
    figures.save(figure, tmp_path / "spectrum.png")
    content = (tmp_path / "spectrum.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(content[16:20], "big") == round(figure.get_size_inches()[0] * 200)  # of printing quality


def lines(figure: Figure, axis: int, label: str) -> Any:
    (line,) = [line for line in figure.axes[axis].lines if line.get_label() == label]
    return line


def test_curves_are_medians_in_their_place_with_the_band_around_them() -> None:
    each = flow(start=40, borders=(44,))
    figure = figures.gradient_flow({"layer1": each})
    by_lag, by_timestep = lines(figure, 0, "layer1, horizon ≥ 5"), lines(figure, 1, "layer1")
    torch.testing.assert_close(torch.tensor(by_lag.get_ydata()), each.by_lag["h"].median(1).values)
    torch.testing.assert_close(torch.tensor(by_timestep.get_ydata()), each.by_timestep["h"].median(1).values)
    assert list(by_timestep.get_xdata()) == list(range(T))
    assert "begins at 40 of the batch" in figure.axes[1].get_xlabel()
    low, high = (each.by_timestep["h"].quantile(share, dim=1) for share in (0.05, 0.95))
    corners = np.asarray(figure.axes[1].collections[0].get_paths()[0].vertices)
    for index in range(T):
        heights = [y for x, y in corners if x == index]
        assert min(heights) == pytest.approx(float(low[index]), rel=1e-5)
        assert max(heights) == pytest.approx(float(high[index]), rel=1e-5)
    borders = [x_values(line) for line in figure.axes[1].lines if line.get_linestyle() == "--"]
    assert [places[0] for places in borders if len(places)] == [3.5]


def test_horizon_is_marked() -> None:
    """At 0.5ᵏ the last lag above a tenth of the beginning is 3."""
    each = flow()._replace(by_lag={"h": 0.5 ** torch.arange(6.0).unsqueeze(1).expand(-1, n)})
    figure = figures.gradient_flow({"layer1": each}, epsilon=0.1)
    assert lines(figure, 0, "layer1, horizon 3")
    (mark, _) = (line for line in figure.axes[0].lines if line.get_linestyle() == ":")
    assert x_values(mark)[0] == 3


def test_layers_have_colours_of_their_own() -> None:
    figure = figures.gradient_flow({f"layer{number}": flow() for number in range(1, 5)})
    assert len({to_hex(lines(figure, 1, f"layer{number}").get_color()) for number in range(1, 5)}) == 4


def test_curves_end_where_rounding_begins() -> None:
    """A gradient that is 10⁻¹² of the largest says nothing, and must not stretch the axis."""
    norms = torch.cat([torch.full((1, n), 1e-30), torch.ones(5, n)])
    figure = figures.gradient_flow({"layer1": flow()._replace(by_timestep={"h": norms})})
    assert figure.axes[1].get_yscale() == "log"
    assert figure.axes[1].get_ylim()[0] == pytest.approx(1e-12)


@pytest.mark.parametrize(("rounding", "shown"), [(False, True), (True, False)])
def test_a_loss_that_diverges_is_shown_whole(rounding: bool, shown: bool) -> None:
    """Small losses are not rounding errors, unlike small gradients."""
    curve = {place: (10.0**place, 0.0) for place in range(38)}
    figure = figures.panels([figures.Panel("x", "y", {"loss": curve}, log_y=True, rounding=rounding)])
    low, high = figure.axes[0].get_ylim()
    assert high > 1e37
    assert (low < 1) == shown


def test_known_values_stand_at_the_right_beside_their_line() -> None:
    """Inside the picture, whatever its name's length; they take no colour from the curves."""
    curve = {place: (1.0 / place, 0.0) for place in range(1, 9)}
    known = {"nothing learnt, and a name of some length": 0.5, "all": 0.2}
    figure = figures.panels([figures.Panel("x", "y", {"loss": curve}, references=known)])
    figures.pixels(figure)
    (axis,) = figure.axes
    names = {text.get_text(): text for text in axis.texts}
    for name, value in known.items():
        box = names[name].get_window_extent()
        assert box.x0 > axis.bbox.x1
        assert box.x1 < figure.bbox.x1
        assert axis.transData.inverted().transform((0, (box.y0 + box.y1) / 2))[1] == pytest.approx(value, abs=0.02)
    assert [np.asarray(line.get_ydata())[0] for line in axis.lines[1:]] == [0.5, 0.2]
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["loss"]


@pytest.mark.parametrize(("count", "ticks"), [(4, [1, 2, 4, 8]), (30, None)])
def test_places_are_ticks_as_long_as_they_are_few(count: int, ticks: list[int] | None) -> None:
    figure = figures.panels([figures.Panel("x", "y", {"loss": {2**n: (1.0, 0.0) for n in range(count)}}, log_x=2)])
    found = list(figure.axes[0].get_xticks())
    assert found == ticks or (ticks is None and len(found) < count)


def test_heat_map_shows_every_column() -> None:
    values = torch.randn(T, 4) - 3
    values[5:, 1] = math.nan
    figure = figures.gradient_flow({"layer1": flow()}, {"layer1": values}, [100, 2000, 30_000, 400_000])
    (mesh,) = figure.axes[2].collections
    torch.testing.assert_close(torch.tensor(array_of(mesh, math.nan)), values, equal_nan=True)
    assert isinstance(mesh, QuadMesh)
    corners = np.asarray(mesh.get_coordinates())
    assert corners[0, :, 0].tolist() == [0, 100, 2000, 30_000, 400_000], "where in training each was seen"
    assert corners[:, 0, 1].tolist() == [row - 0.5 for row in range(T + 1)]


def test_spectrum_runs_from_lag_zero() -> None:
    values = torch.rand(T, 3).sort(descending=True).values
    figure = figures.spectrum({"layer1": values})
    line = lines(figure, 0, "largest")
    torch.testing.assert_close(torch.tensor(line.get_ydata()), values[:, 0].flip(0))


def test_eigenvalues_lie_where_they_are() -> None:
    values = torch.tensor([[0.5 + 0.5j, -0.9 + 0j], [0.1 + 0j, 0.2 - 0.3j]])
    figure = figures.ring({"layer1": values})
    (points,) = figure.axes[0].collections
    expected = torch.view_as_real(values).flatten(0, 1).double()
    torch.testing.assert_close(torch.tensor(np.ma.filled(points.get_offsets(), math.nan)), expected)


def test_no_window_system_is_asked_for() -> None:
    """Pyplot, which would choose a window system and keep every figure for ever, has no part in it."""
    before = matplotlib.get_backend(auto_select=False)
    figures.pixels(figures.spectrum({"layer1": torch.rand(T, 3)}))
    assert matplotlib.get_backend(auto_select=False) == before
    assert plt.get_fignums() == []
    assert "pyplot" not in Path(figures.__file__).read_text(encoding="utf-8")
