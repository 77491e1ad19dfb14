"""The tab's answers, by HTTP from a real TensorBoard with its fast data server and without."""

import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
from sample_runs import bias, decaying, write_run

from bptt.lightning.events import EventFile
from bptt.tensorboard_tab.summary import LOOKS_KEPT

TAG = "layer1/h/by_lag"
HTML = "<img src=x onerror=alert(1)> & <b>bold"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    looks = {step: {TAG: decaying(40, decay=0.9, scale=step)} for step in (10, 20, 30)}
    hparams: dict[str, bool | float | str] = {"model": "lstm", "lr": 0.5, "on": True, "cap": math.inf}
    write_run(folder / "lstm", looks | {40: {TAG: decaying(900, decay=0.99)}}, hparams)
    write_run(folder / HTML, {5: {TAG: decaying(3, decay=0.5), "truncation_bias": bias(3, strength=1)}}, {"name": HTML})
    many = {step: {TAG: decaying(3, decay=0.5)} for step in range(1, LOOKS_KEPT + 11)}
    write_run(folder / "many", many)
    file = EventFile(folder / "old")
    file.close()
    write_run(folder / "scalars only", {1: {}}, scalars={"train/loss": 1.0})
    return folder


@pytest.fixture(scope="module", params=["true", "false"], ids=["fast", "slow"])
def server(logs: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that has read the runs."""
    options = ["--logdir", str(logs), "--host", "127.0.0.1", "--port", "0", "--load_fast", request.param]
    output = tmp_path_factory.mktemp("server") / "output.txt"
    with output.open("w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "tensorboard.main", *options, "--reload_interval", "1"]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        address, end = "", time.monotonic() + 60
        while not address or len(ask(address, "runs")["runs"]) + len(ask(address, "runs")["without"]) < 4:
            assert process.poll() is None, output.read_text(encoding="utf-8")
            assert time.monotonic() < end, output.read_text(encoding="utf-8")
            time.sleep(0.2)
            found = re.search(r"http://127\.0\.0\.1:\d+", output.read_text(encoding="utf-8"))
            address = found[0] if found else ""
        yield address
    finally:
        process.terminate()
        process.wait(timeout=10)


def get(address: str, route: str, **query: Any) -> Any:
    return urlopen(f"{address}/data/plugin/gradient_flow/{route}?{urlencode(query, doseq=True)}", timeout=20)


def ask(address: str, route: str, **query: Any) -> Any:
    return json.load(get(address, route, **query))


def test_runs_with_their_tags_and_hyperparameters_and_those_without_curves(server: str) -> None:
    answer = ask(server, "runs")
    runs = {run["name"]: run for run in answer["runs"]}
    assert set(runs) == {"lstm", "many", HTML}
    assert runs["lstm"]["tags"] == {TAG: 40}
    assert runs["lstm"]["hparams"] == {"cap": "inf", "lr": 0.5, "model": "lstm", "on": True}
    assert runs["many"]["hparams"] == {}
    assert set(runs[HTML]["tags"]) == {TAG, "truncation_bias"}
    assert "scalars only" in answer["without"]


def test_names_leave_the_server_escaped(server: str) -> None:
    with get(server, "runs") as answer:
        text = answer.read().decode()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Type"] == "application/json"
    assert not set("<>&") & set(text)


def test_the_newest_look_of_each_run_has_the_numbers_written(server: str) -> None:
    curves = ask(server, "look", tag=TAG, run=["lstm", "many", "no such run"])["curves"]
    assert {run: look["step"] for run, look in curves.items()} == {"lstm": 40, "many": LOOKS_KEPT + 10}
    assert curves["many"]["places"] == [0, 1, 2]
    np.testing.assert_allclose(curves["many"]["columns"]["high"], [2, 1, 0.5], rtol=2e-3)
    lags = np.array(curves["lstm"]["places"])
    np.testing.assert_allclose(curves["lstm"]["columns"]["median"], 0.99**lags, rtol=2e-3)
    assert curves["lstm"]["facts"]["horizon"] == 458  # 0.99^458 > 0.01 > 0.99^459
    assert curves["lstm"]["facts"]["cut"] == 900


def test_all_looks_of_a_run(server: str) -> None:
    answer = ask(server, "looks", tag=TAG, run="lstm")
    assert [look["step"] for look in answer["looks"]] == [10, 20, 30, 40]
    assert [look["columns"]["median"][0] for look in answer["looks"]] == pytest.approx([10, 20, 30, 1], rel=2e-3)
    assert ask(server, "looks", tag=TAG, run="no such run")["looks"] == []


def test_columns_that_are_not_logarithmic(server: str) -> None:
    (look,) = ask(server, "looks", tag="truncation_bias", run=HTML)["looks"]
    assert look["places"] == [1, 2, 4]
    assert look["columns"]["cosine"][0] == pytest.approx(0.5)


def test_as_many_looks_as_the_tab_needs_are_kept(server: str) -> None:
    looks = ask(server, "looks", tag=TAG, run="many")["looks"]
    assert len(looks) == LOOKS_KEPT
    assert looks[-1]["step"] == LOOKS_KEPT + 10


def test_responses_have_at_most_the_requested_points(server: str) -> None:
    longest = ask(server, "look", tag=TAG, run="lstm")["curves"]["lstm"]
    assert 256 >= len(longest["places"]) == len(longest["columns"]["low"])
    assert longest["places"][-1] == 899
    shorter = ask(server, "look", tag=TAG, run="lstm", points=50)["curves"]["lstm"]
    assert len(shorter["places"]) <= 50
    assert {0, 899} <= set(shorter["places"])


@pytest.mark.parametrize(
    ("route", "query", "message"),
    [
        ("look", {"run": "lstm"}, "tag must be given"),
        ("look", {"tag": TAG}, "run must be given"),
        ("looks", {"tag": TAG}, "run must be given"),
        ("look", {"tag": TAG, "run": "lstm", "points": "7"}, "points must be an integer >= 8"),
        ("looks", {"tag": TAG, "run": "lstm", "points": "1e9"}, "points must be an integer >= 8"),
    ],
)
def test_bad_addresses_are_refused(server: str, route: str, query: dict[str, str], message: str) -> None:
    with pytest.raises(HTTPError) as refused:
        get(server, route, **query)
    assert refused.value.code == 400
    assert message in refused.value.read().decode()


def test_pages_and_script_come_from_here(server: str) -> None:
    with get(server, "index.js") as page:
        assert "export async function render" in page.read().decode()
        assert page.headers["Content-Type"].startswith("text/javascript")
    with get(server, "style.css") as style:
        assert style.headers["Content-Type"].startswith("text/css")
    with get(server, "plotly.js") as script:
        assert b"plotly.js v" in script.read(1000)
        assert "max-age" in script.headers["Cache-Control"]


def test_a_tab_of_its_own(server: str) -> None:
    listing = json.load(urlopen(f"{server}/data/plugins_listing", timeout=20))["gradient_flow"]
    assert listing["enabled"]
    assert listing["tab_name"] == "Gradient flow"


def test_runs_that_appear_and_grow_are_shown(server: str, logs: Path) -> None:
    folder = logs / f"growing {server.rpartition(':')[2]}"
    try:
        write_run(folder, {1: {TAG: decaying(4, decay=0.5)}})
        wait_for(server, folder.name, 1)
        write_run(folder, {2: {TAG: decaying(4, decay=0.5)}})
        wait_for(server, folder.name, 2)
    finally:
        shutil.rmtree(folder)


def wait_for(server: str, name: str, step: int) -> None:
    end = time.monotonic() + 30
    while {run["name"]: run["tags"] for run in ask(server, "runs")["runs"]}.get(name) != {TAG: step}:
        assert time.monotonic() < end
        time.sleep(0.3)
