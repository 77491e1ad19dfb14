"""Two processes with half the sequences each are one process with all of them."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.two_processes import ESTIMATORS, train_all
from support.two_processes import __file__ as SCRIPT

from bptt.run_folder import RunFolder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `one` and `two`: the same runs by one process and by two, over loopback."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text("".join(chr(97 + index * index % 13) for index in range(3000)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    shared["GLOO_SOCKET_IFNAME"] = "lo"  # whatever the name of this machine leads to
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(folder / "two")],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "TORCHELASTIC_RUN_ID": "1", "GROUP_RANK": "0",
                 "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_MAX_RESTARTS": "0"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    train_all(folder / "one", num_processes=1)
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    return folder


def checkpoint(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return content


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_weights(runs: Path, name: str) -> None:
    one, two = (checkpoint(runs / number / name) for number in ("one", "two"))
    assert one["bptt"]["counters"] == two["bptt"]["counters"]
    assert one["bptt"]["counters"]["updates"] >= 50
    torch.testing.assert_close(two["state_dict"], one["state_dict"], rtol=1e-6, atol=1e-9)


def test_resumed_to_the_bit(runs: Path) -> None:
    """Dropout and the state at the border of batches are each process's own."""
    for number in ("one", "two"):
        whole, cut = (checkpoint(runs / number / part) for part in ("whole", "cut"))
        torch.testing.assert_close(cut["state_dict"], whole["state_dict"], rtol=0, atol=0)
        for name in ("data", "encoding"):
            assert cut["bptt"].pop(name) == whole["bptt"].pop(name)
        torch.testing.assert_close(cut["bptt"], whole["bptt"], rtol=0, atol=0)
    own, other = checkpoint(runs / "two" / "whole")["bptt"]["processes"]
    assert not torch.equal(own["random"]["cpu"], other["random"]["cpu"])
    assert not torch.equal(own["carry"][0], other["carry"][0])


def test_the_end_by_time_is_decided_by_one_clock(runs: Path) -> None:
    for number in ("one", "two"):
        summary = RunFolder(runs / number / "timed").read_summary()
        assert summary["status"] == "stopped"
        assert "validation/loss" in summary["metrics"]


def test_gradients_of_processes_with_different_numbers_of_losses(runs: Path) -> None:
    """Of the same sequences, in the first process."""
    found = {}
    for number in ("one", "two"):
        with (runs / number / "ragged" / "metrics.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if "gradient_flow/layer1/lag_" in row["tag"]]
        found[number] = [(row["tag"], float(row["value"])) for row in rows]
    assert len(found["one"]) == 4
    for (name, value), (other, expected) in zip(found["two"], found["one"], strict=True):
        assert name == other
        assert value == pytest.approx(expected, rel=1e-6)
