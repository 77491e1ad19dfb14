"""The benchmark at its smallest sizes; how long anything takes is not judged here."""

import importlib.util
import json
import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from support.script_runner import SCRIPTS, refusal

from bptt.benchmarks import (
    cells,
    exact,
    linear,
    measure,
    memory,
    report,
    sequences,
    startup,
    step,
    sweep,
    training,
    watch,
)
from bptt.benchmarks.report import REMARKS
from bptt.configuration.compose import ROOT
from bptt.layers import GRU, LSTM
from bptt.lightning.callbacks.heat_map import HeatMap

SMALLEST = step.Size(length=8, batch_size=2, embedding_size=4, hidden_size=3, chunk_size=4, num_batches=3)


def titles(found: measure.Found) -> list[str]:
    """Titles of the rows; checks that each has a measured ratio."""
    rows = [each for each in found if isinstance(each, measure.Row)]
    assert all(0 < each.low <= each.ratio <= each.high for each in rows)
    return [each.title for each in rows]


def test_command_writes_numbers_page_and_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the script sets it; put back afterwards
    monkeypatch.setattr(exact, "TARGETS", {LSTM: 1.0})
    monkeypatch.setattr(exact, "LENGTHS", (100, 1000))
    monkeypatch.setattr(exact, "WIDTHS", (4, 8))
    monkeypatch.setattr(exact, "CHUNKS", (10, 100))
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "exact", "repetitions=1", "threads=1"])
    runpy.run_path(str(SCRIPTS / "benchmark.py"), run_name="__main__")
    folder = tmp_path / "outputs" / "benchmarks"
    assert {path.name for path in folder.iterdir()} == {"benchmark.json", "benchmark.md", "benchmark.png"}
    written = json.loads((folder / "benchmark.json").read_text())
    page = (folder / "benchmark.md").read_text()
    assert "`python scripts/benchmark.py exact repetitions=1 threads=1`" in page
    section = written["sections"]["exact"]
    assert all(f"| {each['title']} |" in page for each in (*section["rows"], *section["curves"]))
    assert all(f"- {name}: {value}\n" in page for name, value in report.machine().items())
    saved = {each["title"]: each for each in section["rows"] if each["target"] == 0.06}
    assert list(saved) == ["exact, LSTM: segments / plain, saved"]
    assert all(each["ratio"] <= 0.06 for each in saved.values()), "memory does not vary"
    costs = {(each["title"], each["unit"]): each["exponent"] for each in section["curves"]}
    assert costs[("cost of the exact gradient, plain", "MB")] == pytest.approx(1, abs=0.1)
    assert costs[("cost of the exact gradient, segments", "MB")] == pytest.approx(0.5, abs=0.2)


def test_a_page_does_not_lose_sections_that_were_measured_elsewhere(tmp_path: Path) -> None:
    page = tmp_path / "BENCHMARKS.md"
    page.write_text(
        "# Benchmarks\n\n| | ratio |\n|---|---|\n| step, small, gru: a / b | 1 |\n| startup: --help / 1 s | 1 |\n"
    )
    report.check_complete(("step", "startup"), tmp_path, page)
    report.check_complete(("step",), tmp_path, tmp_path / "new.md")
    message = (
        "publish must be false, unless all of the page's sections are measured, got 'startup on the page and not in"
    )
    with pytest.raises(ValueError, match=message):
        report.check_complete(("step",), tmp_path, page)
    earlier = {"machine": report.machine(), "sections": {"startup": {}}}
    (tmp_path / "benchmark.json").write_text(json.dumps(earlier))
    report.check_complete(("step",), tmp_path, page)


# Lightning compares three batches with the ten updates between two points of a curve; ignite uses torch.jit.
@pytest.mark.filterwarnings("ignore:The number of training batches", "ignore:`torch.jit")
def test_step_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "SIZES", {"smallest": SMALLEST})
    others = ["bare loop", "bare loop with fused optimizer"]
    others += ["ignite"] if importlib.util.find_spec("ignite") else []
    expected = [f"step, smallest, {model}: Lightning / {other}" for model in training.MODELS for other in others]
    assert titles(step.rows(1)) == expected


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_watch_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MODELS", {"lstm": training.MODELS["lstm"]})
    monkeypatch.setattr(watch, "LENGTH", 8)
    monkeypatch.setattr(watch, "SIZES", SMALLEST._replace(chunk_size=8).words)
    for name in ("EVERY_UPDATE", "DEFAULT"):
        monkeypatch.setattr(watch, name, {"pairs": 1, "updates": 2, "warm_up": 1})
    found = ["every update / off", "every update / cells with retain_grad", "default schedule / off"]
    assert titles(watch.rows(1)) == [f"watch, lstm: {each}" for each in found]


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_blocks_are_watched_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    add = HeatMap.add

    def recorded_add(self: HeatMap, curves: Any, look: int, step: int) -> None:
        looks.append(step)
        add(self, curves, look=look, step=step)

    monkeypatch.setattr(HeatMap, "add", recorded_add)
    every = "callbacks.gradient_flow.every_n_updates=1"
    words = (*training.TRAINING_ALONE, "model=elman", *SMALLEST._replace(chunk_size=8).words, every)
    default, off = watch.in_blocks((*words, "task.length=8", "task.batch_size=2"), pairs=3, updates=2, warm_up=1)
    assert (len(default), len(off)) == (3, 3)
    assert [step // looks[0] for step in looks] == [
        1,
        2,
        3,
        8,
        9,
        10,
        11,
    ]  # of batches 1 to 13, in blocks A B, B A, A B


def test_linear_section(monkeypatch: pytest.MonkeyPatch) -> None:
    """The saved tensors are linear in T."""
    for name, value in {"LENGTH": 8, "BATCH_SIZE": 2, "UNITS": 2, "INPUT_SIZE": 3, "STRIDES": {4: 1.5}}.items():
        monkeypatch.setattr(linear, name, value)
    monkeypatch.setattr(linear, "LENGTHS", (100, 1000, 10_000))
    found = list(linear.rows(1))
    ratios = ["scan / loop over its step", "scan / torch's GRU(4)", "RTRL in strides of 4 / BPTT"]
    assert titles(iter(found)) == [f"linear, LRU: {each}" for each in ratios]
    _, saved = (each for each in found if isinstance(each, measure.Curve))
    assert saved.unit == "MB"
    assert saved.exponent == pytest.approx(1, abs=0.05)


def test_sequences_section(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"LENGTH": 8, "CHUNK_SIZE": 4, "BATCH_SIZE": 2, "HIDDEN_SIZE": 4, "SHORT": 3, "RATE": 0.5}
    for name, value in {**sizes, "LAYERS": (LSTM,)}.items():
        monkeypatch.setattr(sequences, name, value)
    ratios = ["1 reset in 2 timesteps / none", "gradient of each / of their sum"]
    assert titles(sequences.rows(1)) == [f"sequences, LSTM: {each}" for each in ratios]


def test_cells_section(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell of one's own trains by the inherited loop, to the layer's gradient."""
    monkeypatch.setattr(cells, "LENGTH", 5)
    own = [f"{name}: own cell with these equations / the layer" for name in ("Elman", "GRU", "LSTM")]
    assert titles(cells.rows(1)) == [f"cells, {each}" for each in ("Elman / LSTM", "GRU / LSTM", *own)]
    layer, stated = GRU(3, 4).double(), cells.stated(GRU)(3, 4).double()
    stated.load_state_dict(layer.state_dict())
    inputs, state = torch.randn(5, 2, 3).double(), torch.zeros(2, 4).double()
    outputs, _ = stated(inputs, state)
    assert "StackBackward" in type(outputs.grad_fn).__name__
    outputs.sum().backward()
    layer(inputs, state)[0].sum().backward()
    for mine, theirs in zip(stated.parameters(), layer.parameters()):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_memory_is_that_of_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    held = bytearray(200_000_000)
    peak, above_start = memory.in_a_process("chunked", 1000)
    assert above_start < peak < memory.high_water() - len(held) / 2e6


def test_jobs_run_and_end_at_the_first_update(monkeypatch: pytest.MonkeyPatch) -> None:
    assert startup.FirstUpdate.__module__ in startup.FIRST_UPDATE[-1]
    assert sweep.seconds(("seed=1",), job=startup.FIRST_UPDATE) > 0
    assert sweep.seconds(("-m", "seed=range(1,4)"), job=startup.FIRST_UPDATE) > 0


def test_ratios_are_of_neighbours() -> None:
    found = measure.row("example", [2.0, 30.0, 4.0], [1.0, 10.0, 4.0], target=1.5)
    assert (found.ratio, found.low, found.high) == (2.0, 1.5, 2.5)
    assert (found.measured, found.baseline) == (4.0, 4.0)
    assert found.verdict == "missed, 1.5"
    assert found._replace(target=2).verdict == "met, 2"


def test_exponents_are_those_of_power_laws() -> None:
    assert measure.curve("example", "T", {size: 3 * size**1.5 for size in (1, 10, 50)}).exponent == pytest.approx(1.5)


def test_variants_take_turns() -> None:
    order: list[str] = []

    def count(name: str) -> float:
        order.append(name)
        return float(len(order))

    variants = {name: partial(count, name) for name in "ab"}
    assert measure.interleaved(variants, 2) == {"a": [3.0, 6.0], "b": [4.0, 5.0]}
    assert "".join(order) == "baabba"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("speed", "section must be step or watch or cells"),
        ("repetitions=0", "above 0"),
        ("publish=maybe", "publish must be true or false"),
        ("out=/dev/null", "out must be a folder that can be created and written, got /dev/null"),
    ],
)
def test_refusals(monkeypatch: pytest.MonkeyPatch, word: str, expected: str) -> None:
    assert expected in refusal(monkeypatch, "benchmark.py", word)


def test_sections_before_a_failure_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(startup, "rows", lambda _: iter([measure.row("startup: a", [1.0], [1.0])]))
    monkeypatch.setattr(sweep, "rows", lambda _: iter([sweep.seconds(("task=nosuch",), job=())]))
    line = refusal(monkeypatch, "benchmark.py", "startup", "sweep", "threads=1", f"out={tmp_path}")
    assert "task=nosuch" in line
    assert "must be 0, got 1; error: " in line
    assert "\n" not in line
    assert set(report.earlier(tmp_path)) == {"startup"}
    (tmp_path / "benchmark.json").write_text('{"machine": {', encoding="utf-8")
    monkeypatch.setattr(startup, "rows", None)
    line = refusal(monkeypatch, "benchmark.py", "startup", "threads=1", f"out={tmp_path}")
    assert f"{tmp_path / 'benchmark.json'} must be a file of this script, got one that is damaged" in line


def test_sections_measured_one_by_one_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newer one in place of the older, and nothing of another machine."""
    page = tmp_path / "page.md"

    def found(title: str, ratio: float) -> measure.Row:
        return measure.row(title, [ratio], [1.0])

    report.store("step", [found("step, a", 2.0)], tmp_path)
    report.store("memory", [measure.curve("peak", "T", {1: 1.0, 2: 2.0})], tmp_path)
    report.store("step", [found("step, a", 3.0)], tmp_path)
    report.render(tmp_path, page)
    assert "| step, a | 3.000 |" in page.read_text()
    assert "2.000" not in page.read_text()
    assert "| peak | T^1.00 | s: 1: 1, 2: 2 |" in page.read_text()
    monkeypatch.setattr(report, "machine", lambda: {"processor": "another"})
    report.store("watch", [found("watch, b", 1.0)], tmp_path)
    report.render(tmp_path, page)
    assert "step, a" not in page.read_text()
    assert "- processor: another" in page.read_text()


def test_the_published_page_has_the_present_remarks() -> None:
    page = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8")
    shown = page.partition("## Remarks\n\n")[2].partition("\n\n")[0].splitlines()
    remarks = {f"- **{title!s}**: {remark}" for title, remark in OmegaConf.load(REMARKS).items()}
    assert shown
    assert set(shown) <= remarks
