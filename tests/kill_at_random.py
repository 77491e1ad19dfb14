"""Kill small training runs at random moments and resume them: python tests/kill_at_random.py kills=50 seed=1

Every estimator and every task that carries state has its case, one process at a time. A case is trained once by a
process that nobody kills, and then by processes that SIGKILL ends: one kill in five while they start, the others at a
uniformly random moment of training. The run in pieces must end as the whole one did, to the bit. Prints each moment and
each verdict; exit code 1 where a run differs. folder=FOLDER keeps the runs there.
"""

import json
import logging
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from support.script_runner import ScriptProcess
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

STARTING = 0.2  # of all kills
CLOCK = "cost/wall_seconds"  # the one curve that no two runs share
logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it reports discarded points, which are expected

TASKS = {
    "text": ("task.length=23", "task.batch_size=4"),
    "anbn": ("task.length=23", "task.batch_size=4", "task.train_batches=40", "task.validation_batches=2"),
    "lag_bits": ("task.length=23", "task.batch_size=4", "task.train_batches=40", "task.validation_batches=2"),
    "aicher_copy": ("task.length=23", "task.batch_size=4", "task.train_steps=910", "task.validation_steps=50"),
    "copy_memory": ("task.delay=5", "task.batch_size=4", "task.train_batches=40", "task.validation_batches=2"),
}
ESTIMATORS = {
    "chunked": ("estimator.chunk_size=7",),
    "full": ("estimator.segment_size=5",),
    "sliding": ("estimator.stride=5", "estimator.window=8"),
    "randomized": ("estimator.mean_length=6", "estimator.block=2"),
    "adaptive": ("estimator.delta=0.5", "estimator.lags=8", "estimator.every_n_batches=7", "estimator.num_samples=3"),
    "rtrl": ("estimator.stride=7",),
    "snap": ("estimator.stride=7",),
    "uoro": ("estimator.stride=7",),
}
FORWARD_MODE = ("rtrl", "snap", "uoro")  # they know no dropout
CASES = [
    ("chunked", "text"), ("full", "anbn"), ("sliding", "lag_bits"), ("randomized", "aicher_copy"),
    ("adaptive", "text"), ("rtrl", "anbn"), ("snap", "lag_bits"), ("uoro", "aicher_copy"), ("chunked", "copy_memory"),
]  # fmt: skip
SHARED = (
    "model=gru", "model.hidden_size=6", "model.num_layers=2", "scheduler=exponential", "callbacks=bias",
    "callbacks.truncation_bias.every_n_batches=50", "callbacks.truncation_bias.max_timesteps=20",
    "callbacks.gradient_flow.every_n_updates=10", "callbacks.gradient_flow.lags=[1,5]",
    "callbacks.jacobian_spectrum.every_n_updates=50", "callbacks.parameter_norms.every_n_updates=10",
    "callbacks.checkpoint.every_n_updates=12", "trainer.log_every_n_steps=3", "trainer.max_epochs=2", "resume=auto",
)  # fmt: skip


@dataclass
class Case:
    """An estimator on a task, with the whole run to compare with, and how long its start and its training took."""

    words: tuple[str, ...]
    folder: Path
    starting: float = 0.0  # seconds
    training: float = 0.0
    parts: list[str] = field(default_factory=list)  # the moments of the run at hand

    @property
    def whole(self) -> Path:
        return self.folder / "whole"

    @property
    def cut(self) -> Path:
        return self.folder / "cut"

    def train_whole(self) -> None:
        began = time.monotonic()
        process = self.start(self.whole)
        wait_for_training(process, self.whole, None)
        self.starting = time.monotonic() - began
        finish(process)
        self.training = time.monotonic() - began - self.starting

    def start(self, run: Path) -> ScriptProcess:
        return ScriptProcess("train.py", *self.words, f"hydra.run.dir={run}", cwd=self.folder)

    def kill(self, chance: random.Random) -> str | None:
        """Begin the run in pieces or go on with it, and kill it; what was done. None if it had ended before."""
        process, before = self.start(self.cut), written(self.cut)
        if chance.random() < STARTING:
            moment = chance.uniform(0, self.starting)
            where = f"{moment:6.2f} s into the start"
        else:
            wait_for_training(process, self.cut, before)
            moment = chance.uniform(0, self.training)
            where = f"{moment:6.2f} s into training"
        try:
            output = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return f"{where}, {updates(self.cut)}"
        assert process.returncode == 0, output
        return None

    def finish(self) -> None:
        finish(self.start(self.cut))

    def put_away(self) -> None:
        """Make room for another run in pieces."""
        self.cut.rename(self.folder / f"cut{len(list(self.folder.iterdir()))}")
        self.parts = []


def wait_for_training(process: ScriptProcess, run: Path, before: int | None) -> None:
    """Wait until training has started, according to the run folder, or until the process has ended."""
    while process.poll() is None and written(run) == before:
        time.sleep(0.002)


def written(run: Path) -> int | None:
    path = run / "summary.json"
    return path.stat().st_mtime_ns if path.exists() else None


def updates(run: Path) -> str:
    path = run / "checkpoints" / "last.ckpt"
    if not path.exists():
        return "no checkpoint yet"
    return f"checkpoint at update {torch.load(path, weights_only=True)['bptt']['counters']['updates']}"


def finish(process: ScriptProcess) -> None:
    output = process.communicate()
    assert process.returncode == 0, output


def make_case(folder: Path, estimator: str, task: str) -> Case:
    """Create a case in a new folder, with a text file next to the runs."""
    folder.mkdir(parents=True)
    words = [f"task={task}", *TASKS[task], f"estimator={estimator}", *ESTIMATORS[estimator], *SHARED]
    words += [] if estimator in FORWARD_MODE else ["model.dropout=0.2"]
    if task == "text":
        path = folder / "text.txt"
        path.write_text("".join(chr(97 + index * index % 11) for index in range(4000)))
        words += [f"task.path={path}", "task.fractions=[0.9,0.1,0]"]
    return Case(tuple(words), folder)


def content(run: Path) -> Iterator[tuple[str, Any]]:
    """Everything that must be equal in two runs, by name: weights, scores, TensorBoard curves."""
    for name in ("last", "best"):
        checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "bptt"):
            yield f"{name}.ckpt: {key}", checkpoint[key]
    summary = json.loads((run / "summary.json").read_text())
    for key in ("status", "metrics", "counters"):
        yield f"summary.json: {key}", summary[key]
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0, "histograms": 0, "tensors": 0})
    tags = events.Reload().Tags()
    tags["scalars"].remove(CLOCK)
    yield "TensorBoard: tags", {kind: sorted(tags[kind]) for kind in ("scalars", "images", "histograms", "tensors")}
    for tag in tags["scalars"]:
        yield f"TensorBoard: {tag}", [(point.step, point.value) for point in events.Scalars(tag)]
    for tag in tags["images"]:
        yield f"TensorBoard: {tag}", [(point.step, point.encoded_image_string) for point in events.Images(tag)]
    for tag in tags["histograms"]:
        yield f"TensorBoard: {tag}", [(point.step, point.histogram_value) for point in events.Histograms(tag)]


def same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def differences(whole: Path, cut: Path) -> list[str]:
    """The names of what is not the same to the bit."""
    expected, found = dict(content(whole)), dict(content(cut))
    names = expected.keys() | found.keys()
    return sorted(name for name in names if not same(expected.get(name), found.get(name)))


def kill_at_random(
    folder: Path, *, kills: int, seed: int, cases: list[tuple[str, str]] = CASES
) -> Iterator[tuple[str, list[str]]]:
    """Kill the cases in turn, `kills` times in all, and finish them; each moment and verdict, with what differs."""
    chance = random.Random(seed)
    made = {
        f"{estimator} {task}": make_case(folder / f"{estimator}_{task}", estimator, task) for estimator, task in cases
    }
    for case in made.values():
        case.train_whole()
    for number in range(1, kills + 1):
        name, case = list(made.items())[(number - 1) % len(made)]
        while (moment := case.kill(chance)) is None:  # it has ended by itself, so begin another
            if case.parts:
                yield verdict(name, case)
            case.put_away()
        case.parts.append(moment)
        yield f"{name}: kill {number} {moment}", []
    for name, case in made.items():
        if case.parts:
            case.finish()
            yield verdict(name, case)


def verdict(name: str, case: Case) -> tuple[str, list[str]]:
    """The run in pieces compared with the whole one."""
    found = differences(case.whole, case.cut)
    told = f"DIFFERENT in {', '.join(found)}" if found else "the same to the bit"
    return f"{name}: after {len(case.parts)} kills {told}", found


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.get("folder", temporary)).absolute()
        different = 0
        for line, found in kill_at_random(folder, kills=int(given.get("kills", 50)), seed=int(given.get("seed", 1))):
            print(line, flush=True)
            different += bool(found)
    sys.exit(f"error: {different} runs differ" if different else 0)


if __name__ == "__main__":
    main()
