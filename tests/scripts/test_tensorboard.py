"""A real run in a real TensorBoard, read through its HTTP interface: what a person would see there."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from support.script_runner import in_a_process
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bptt.tensorboard_tab.summary import PLUGIN

RUN, BEYOND = "lstm", 60.0  # seconds until the server must have answered with the run

SCALARS = {
    "train/loss",
    "train/learning_rate",
    "validation/loss",
    "validation/recall",
    "progress/updates",
    "progress/batches",
    "progress/timesteps",
    *(
        f"gradient_flow/layer{number}/{quantity}"
        for number in (1, 2)
        for quantity in ("lag_1", "lag_10", "lag_50", "horizon", "decay_rate", "transport", "saturation")
    ),
    *(f"jacobian/layer{number}/{quantity}" for number in (1, 2) for quantity in ("norm", "lyapunov")),
    *(f"parameters/gradient_norm/{part}" for part in ("layer1", "layer2", "readout", "all")),
    "parameters/weight_norm",
    "best/validation_loss",
    "cost/wall_seconds",
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run: two layers, six updates, all default callbacks, those of the Jacobian due sooner."""
    folder = tmp_path_factory.mktemp("logs")
    overrides = [
        "task=copy_memory",
        "task.delay=80",
        "task.batch_size=4",
        "task.train_batches=3",
        "task.validation_batches=1",
        "model.num_layers=2",
        "model.hidden_size=12",
        "estimator.chunk_size=60",
        "callbacks.jacobian_spectrum.every_n_updates=4",
        "trainer.log_every_n_steps=2",
        "trainer.val_check_interval=1.0",
        f"hydra.run.dir={folder / RUN}",
    ]
    done = in_a_process("train.py", *overrides, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def server(logs: Path) -> Iterator[str]:
    """The address of a server on a free port, once it has read the run."""
    options = ["--logdir", str(logs), "--host", "127.0.0.1", "--port", "0", "--load_fast", "false"]
    command = [sys.executable, "-m", "tensorboard.main", *options, "--reload_interval", "1"]
    output = logs.parent / f"{logs.name}_server.txt"
    with output.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + BEYOND
        while not serves(address := announced(output)):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < end, output.read_text()
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=10)


def announced(output: Path) -> str:
    """The address that TensorBoard prints when it listens."""
    found = re.search(r"http://127\.0\.0\.1:\d+", output.read_text(encoding="utf-8"))
    return found[0] if found else ""


def serves(address: str) -> bool:
    if not address:
        return False
    try:
        return len(ask(address, "plugin/scalars/tags").get(RUN, [])) == len(SCALARS)
    except URLError:
        return False


def fetch(address: str, path: str, **query: Any) -> bytes:
    with urlopen(f"{address}/data/{path}?{urlencode(query)}", timeout=10) as answer:
        content: bytes = answer.read()
    return content


def ask(address: str, path: str, **query: Any) -> Any:
    return json.loads(fetch(address, path, **query))


def test_scalars(server: str) -> None:
    found = ask(server, "plugin/scalars/tags")[RUN]
    assert set(found) == SCALARS
    assert "Largest lag" in found["gradient_flow/layer2/horizon"]["description"]


IMAGES = {
    "gradient_flow/figure/by_lag",
    "gradient_flow/figure/by_timestep",
    *(f"gradient_flow/figure/over_training/layer{number}" for number in (1, 2)),
    *(f"jacobian/figure/layer{number}" for number in (1, 2)),
}


def test_fewer_than_forty_tags_without_images(logs: Path) -> None:
    """So that the page of a two-layer LSTM can be taken in; counted in the event file, without the tab's curves."""
    events = EventAccumulator(str(logs / RUN)).Reload()
    found = events.Tags()
    of_the_tab = [tag for tag in found["tensors"] if events.SummaryMetadata(tag).plugin_data.plugin_name == PLUGIN]
    assert len(of_the_tab) == 2 * 2 * 2 + 2  # layers, tensors h and c, by lag and by timestep; a spectrum of each layer
    found["tensors"] = [tag for tag in found["tensors"] if tag not in of_the_tab]
    kinds = ("scalars", "histograms", "tensors", "audio")
    assert len(SCALARS) + 2 < sum(len(found[kind]) for kind in kinds) < 40


@pytest.mark.parametrize(
    ("tag", "steps"),
    [
        ("train/loss", [100, 200, 300]),
        ("validation/loss", [300]),
        ("gradient_flow/layer1/lag_10", [60, 100, 300]),  # updates 1, 2 and 4
        ("gradient_flow/layer1/lag_50", [60]),  # the other two are chunks of 40 timesteps
        ("jacobian/layer2/lyapunov", [200]),
    ],
)
def test_curves_run_over_timesteps(server: str, tag: str, steps: list[int]) -> None:
    points = ask(server, "plugin/scalars/scalars", run=RUN, tag=tag)
    assert [step for _, step, _ in points] == steps
    assert all(isinstance(value, float) for _, _, value in points)


@pytest.mark.parametrize("tag", sorted(IMAGES))
def test_images(server: str, tag: str) -> None:
    """Each says what it shows, and is small enough to be read at half its width."""
    tags = ask(server, "plugin/images/tags")[RUN]
    assert set(tags) == IMAGES
    assert "gradient" in tags[tag]["description"].lower() or "Jacobian" in tags[tag]["description"]
    images = ask(server, "plugin/images/images", run=RUN, tag=tag, sample=0)
    assert [image["step"] for image in images] == ([301] if "gradient" in tag else [200])
    for image in images:
        content = urlopen(f"{server}/data/plugin/images/individualImage?{image['query']}", timeout=10).read()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = (int.from_bytes(content[place : place + 4], "big") for place in (16, 20))
        assert 600 <= width <= 900
        assert height > 300


def test_histograms(server: str) -> None:
    assert set(ask(server, "plugin/histograms/tags")[RUN]) == {"gradient_flow/layer1", "gradient_flow/layer2"}
    series = ask(server, "plugin/histograms/histograms", run=RUN, tag="gradient_flow/layer1")
    assert [step for _, step, _ in series] == [60, 100, 300]
    for _, step, buckets in series:
        timesteps = 60 if step == 60 else 40
        assert sum(count for _, _, count in buckets) == 4 * timesteps  # of the sequences looked at
        assert max(right for _, right, _ in buckets) < 2  # logarithms


def test_configuration_is_shown_as_text(server: str) -> None:
    (shown,) = ask(server, "plugin/text/text", run=RUN, tag="configuration/text_summary")
    assert "chunk_size: 60" in shown["text"]
    assert "delay: 80" in shown["text"]
    assert "$" not in shown["text"]  # interpolations are resolved


def test_related_curves_share_charts(server: str) -> None:
    (category,) = ask(server, "plugin/custom_scalars/layout")["category"]
    charts = {chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]}
    shown = {
        title: {tag for tag in SCALARS if any(re.fullmatch(pattern, tag) for pattern in patterns)}
        for title, patterns in charts.items()
    }
    assert shown["layer2 at lag"] == {f"gradient_flow/layer2/lag_{lag}" for lag in (1, 10, 50)}
    assert shown["horizon"] == {"gradient_flow/layer1/horizon", "gradient_flow/layer2/horizon"}
    assert shown["loss"] == {"train/loss", "validation/loss"}
    assert all(shown.values())
    for tag in (tag for tags in shown.values() for tag in tags):
        answer = ask(server, "plugin/custom_scalars/scalars", run=RUN, tag=tag)
        assert answer["regex_valid"]
        assert answer["tag_to_events"][tag]


def test_run_folder_holds_the_picture_too(logs: Path) -> None:
    assert (logs / RUN / "gradient_flow.png").read_bytes()[:4] == b"\x89PNG"
