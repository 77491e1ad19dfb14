"""The commands of docs/own_data.md, run as a user would on small files."""

import json
import math
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.script_runner import SCRIPTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own_data.md"
COMMANDS = re.findall(r"^    python scripts/(\S+)(.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
SMALL = {
    "train.py": ["model.hidden_size=4", "trainer.val_check_interval=1.0", "trainer.enable_progress_bar=false"],
    "choose_chunk_size.py": ["batches=1", "timesteps=64"],
}
ONE_AFTER_ANOTHER = """
import json, runpy, sys
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
state = Singleton.get_state()
for sys.argv in json.loads(sys.argv[1]):
    runpy.run_path(sys.argv[0], run_name="__main__")
    GlobalHydra.instance().clear()
    Singleton.set_state(state)
    print("finished: ", *sys.argv)
"""
QUICK = ["~callbacks.gradient_flow", "~callbacks.jacobian_spectrum", "~callbacks.parameter_norms"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """log.csv with a gap, amplifier.wav, walks.csv with walks of two persons, and three texts."""
    made = tmp_path_factory.mktemp("own_data")
    rows = [f"2024-{1 + day // 28:02}-{1 + day % 28:02},{math.sin(day / 7):.3f},{day % 9}" for day in range(12 * 28)]
    table = [
        "day,load,wind",
        *(f"{row.rpartition(',')[0]}," if number == 50 else row for number, row in enumerate(rows)),
    ]
    rows = [f"{year}{row[4:]}" for year in range(2019, 2024) for row in table[1:]]
    (made / "log.csv").write_text("\n".join([table[0], *rows]), encoding="utf-8")
    following = [f"2025{row[4:]}" for row in table[1:62]]
    (made / "next_month.csv").write_text("\n".join([table[0], *following]), encoding="utf-8")
    played = np.random.default_rng(0).uniform(-1, 1, 8192)
    soundfile.write(made / "amplifier.wav", np.stack([played, np.tanh(2 * played) / 2], axis=1), 8000)
    lines = ["walk,person,x,y"]
    for walk in range(40):
        steps = range(5 + walk % 9)
        lines += [
            f"{walk},{'ann' if walk % 2 else 'bo'},{math.sin(step + walk):.3f},{step * (walk % 2)}" for step in steps
        ]
    (made / "walks.csv").write_text("\n".join(lines), encoding="utf-8")
    for number, name in enumerate(("train", "valid", "test")):
        words = random.Random(number).choices(["one", "two", "three", "four"], k=600)
        (made / f"{name}.txt").write_text(" ".join(words), encoding="utf-8")
    return made


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 6
    programs = {"train.py", "choose_chunk_size.py", "compare_runs.py", "predict.py", "generate.py"}
    assert {script for script, _ in COMMANDS} == programs


def test_the_commands_of_the_page_run(folder: Path) -> None:
    """Commands run in the order of the page, because later ones read the runs of earlier ones."""
    commands = []
    for script, words in COMMANDS:
        own = [*shlex.split(words), *SMALL.get(script, []), *(QUICK if script == "train.py" else [])]
        commands.append([str(SCRIPTS / script), *own])
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps(commands)],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished: ") == len(COMMANDS)
    assert {path.name for path in folder.iterdir()} >= {
        "log_run",
        "log_run_16",
        "amplifier_run",
        "walks_run",
        "text_run",
    }
