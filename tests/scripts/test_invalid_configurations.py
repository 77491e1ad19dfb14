"""A wrong value anywhere in the configuration leads to an error of one line, or to a complete run."""

import atexit
import math
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, ListConfig, OmegaConf
from support.script_runner import in_a_process
from support.small_tasks import TASKS, small_overrides

from bptt.configuration.compose import CONF, compose_config
from bptt.configuration.containers import leaves
from bptt.configuration.errors import plain_errors
from bptt.runs.resumption import check_run_folder
from bptt.runs.training import train

HUGE = 10**18
VALUES = [None, True, -1, 0, 1.5, math.inf, -math.inf, math.nan, HUGE, 1e300, "", "nosuch", [], [1, "x"], {}, {"a": 1}]
# What a user may ask for in such numbers, and wait for: no check knows how much memory and time somebody has.
ENDLESS = ("batch_size", "num_layers", "num_samples", "num_sines", "devices", "num_nodes", "anbn task.length",
           "mackey_glass task.length", "mackey_glass task.horizon", "mackey_glass task.tau")  # fmt: skip

QUICK = (
    "model=gru", "model.hidden_size=5", "callbacks=bias", "logger=none", "trainer.max_epochs=2", "trainer.max_steps=3",
    "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.val_check_interval=1.0",
    "trainer.enable_progress_bar=false",
)  # fmt: skip
SHORT = {"chunk_size": 6, "segment_size": 4, "stride": 4, "window": 6, "lags": 5, "mean_length": 5, "block": 2}
MODELS = {"identity": "elman", "sparse": "elman"}  # initialisations for this layer alone
GROUPS = ("task", "model", "initialisation", "estimator", "optimizer", "scheduler", "regulariser", "clipping",
          "trainer", "callbacks", "logger")  # fmt: skip
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


class Hang(BaseException):
    """The run did not end within a minute."""


@contextmanager
def a_minute() -> Iterator[None]:
    def end(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@cache
def folder() -> Path:
    """A folder that is removed when this process ends."""
    path = tempfile.mkdtemp(prefix="configurations")
    atexit.register(shutil.rmtree, path)
    return Path(path)


@cache
def composed(group: str, choice: str) -> DictConfig:
    """A small run with one choice; to read, not to change. Callbacks that draw take part where they are the choice."""
    task = choice if group == "task" else "copy_memory"
    words = [*small_overrides(task, folder()), *QUICK]
    if group == "initialisation":
        words += [f"model={MODELS.get(choice, 'gru')}"]
    if group != "callbacks":
        words += ["callbacks=default", "~callbacks.gradient_flow", "~callbacks.jacobian_spectrum"]
    config = compose_config([*words, *([] if group == "task" else [f"{group}={choice}"])])
    for name, size in SHORT.items():
        if name in config.estimator:
            config.estimator[name] = size
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(resolved, DictConfig)
    return resolved


@st.composite
def invalid(draw: st.DrawFn) -> tuple[str, str, str, Any]:
    """Group, choice, a key there or one too many, and what to say for it; the group itself is a key, too."""
    group, choice = draw(st.sampled_from(CHOICES))
    section = OmegaConf.to_container(composed(group, choice)[group])
    keys = [group, f"{group}.nosuch", *(key for key, _ in leaves(section, group)), "seed", "resume"]
    key, value = draw(st.sampled_from(sorted(set(keys)))), draw(st.sampled_from(VALUES))
    if value == HUGE and f"{choice} {key}".endswith(ENDLESS):
        value = -1
    return group, choice, key, value


def another_kind(value: Any, default: Any) -> bool:
    """True if a value cannot replace the default, such as a text, list or NaN for a number. Null may mean a default."""
    if value is None or default is None or isinstance(default, DictConfig | ListConfig):
        return False
    if isinstance(default, bool):
        return not isinstance(value, bool)
    if isinstance(default, str):  # a number can be a name
        return type(value) not in (str, int)
    return not (isinstance(value, int | float) and math.isfinite(value))


# Lightning warns of odd settings, which is right, and no failure.
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(example=invalid())
def test_one_line_or_a_whole_run(example: tuple[str, str, str, Any]) -> None:
    group, choice, key, value = example
    config = composed(group, choice).copy()
    default = OmegaConf.select(config, key)
    OmegaConf.update(config, key, value, merge=False, force_add=True)
    with tempfile.TemporaryDirectory(dir=folder()) as run, a_minute():
        try:
            with plain_errors():
                check_run_folder(config, Path(run))
                metrics = train(config, Path(run))
        except SystemExit as refused:
            line = str(refused.code)
            assert line.startswith("error: "), line
            assert len(line.splitlines()) == 1, line
        else:
            assert not another_kind(value, default)
            assert all(math.isfinite(metric) for metric in metrics.values())
            for path in Path(run).glob("checkpoints/*.ckpt"):
                weights = torch.load(path, weights_only=True)["state_dict"].values()
                assert all(weight.isfinite().all() for weight in weights)


def test_every_choice_is_found() -> None:
    assert {group for group, _ in CHOICES} == set(GROUPS)
    assert {choice for group, choice in CHOICES if group == "task"} == set(TASKS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=copy_memory", f"task.delay={HUGE}"], "a run must fit into memory"),
        (
            ["task=copy_memory", "callbacks.checkpoint.monitor=nosuch"],
            "monitor of Checkpoint must be validation/loss or",
        ),
    ],
)
def test_what_shows_in_training_only_is_one_line_too(words: list[str], message: str, tmp_path: Path) -> None:
    short = ["model.hidden_size=4", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1"]
    done = in_a_process("train.py", *words, *short, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
