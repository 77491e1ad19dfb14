"""A run whose configuration is lost or torn is restored from its checkpoints; without checkpoints it is no run."""

import shutil
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from support.small_runs import without_a_copy

from bptt.atomic_files import partial_of
from bptt.configuration.compose import compose_config
from bptt.configuration.containers import resolved
from bptt.lightning.checkpoint_files import read
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.evaluation import evaluate
from bptt.runs.hydra_files import TornConfigurationError, as_yaml, own_flags, read_config, read_overrides
from bptt.runs.loading import load_config
from bptt.runs.reading import read_run
from bptt.runs.resumed_command import resumed_arguments
from bptt.runs.resumption import check_configuration, check_run_folder
from bptt.runs.training import train

WORDS = [
    "task=copy_memory", "task.delay=3", "task.batch_size=4", "task.train_batches=2", "task.validation_batches=1",
    "model.hidden_size=4", "logger=none", "~callbacks.gradient_flow", "~callbacks.jacobian_spectrum",
    "~callbacks.parameter_norms", "trainer.enable_progress_bar=false",
]  # fmt: skip
CONFIG = compose_config(WORDS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in a folder that is named as a job of a sweep over the seed."""
    run = RunFolder(tmp_path_factory.mktemp("sweep") / "seed-1")
    train(CONFIG, run.path, overrides=WORDS)
    run.settings.mkdir()
    run.config.write_text(as_yaml(CONFIG), encoding="utf-8")
    run.overrides.write_text(as_yaml(WORDS), encoding="utf-8")
    return run.path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(trained, tmp_path / "sweep" / "seed-1")))


def cut(path: Path, share: float) -> None:
    """Leave a share of a file, as a process does that is killed while it writes, or whose disk is full; −1: no file."""
    content = path.read_bytes()
    path.unlink()
    if share >= 0:
        path.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize("share", [-1, 0, 0.5, 0.9])
def test_restored_from_the_checkpoint(run: RunFolder, share: float) -> None:
    before, scores = read_run(run.path, metric="validation/loss"), evaluate(run.path, split="validation")
    cut(run.config, share)
    cut(run.overrides, share)
    assert resolved(load_config(run.path)) == resolved(CONFIG)
    assert read_run(run.path, metric="validation/loss") == before
    assert evaluate(run.path, split="validation") == scores
    assert resumed_arguments([f"resume={run.path}"]) == [*WORDS, f"hydra.run.dir='{run.path}'", "resume=auto"]
    again = compose_config([*WORDS, "resume=auto"])
    assert check_configuration(again, run.path)
    with pytest.raises(ValueError, match=r"must be resumed with its own configuration, got seed=2 instead of 1"):
        check_configuration(compose_config([*WORDS, "seed=2"]), run.path)
    one = compose_config([*WORDS, "trainer.limit_val_batches=1"])  # a single one of them
    with pytest.raises(ValueError, match=r"got trainer\.limit_val_batches=1 instead of 100 %"):
        check_configuration(one, run.path)
    with pytest.raises(ValueError, match=r"got model.init_from=.* instead of None"):  # no file that was moved
        check_configuration(compose_config([*WORDS, f"model.init_from={run.path}"]), run.path)
    again.trainer.max_epochs = 2
    leftovers = [partial_of(path) for path in (run.summary, run.config, run.best_checkpoint, run.curves("flow"))]
    for path in leftovers:  # of a process that was killed while it wrote
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    mine = run.path / "mine.partial"
    mine.touch()
    train(again, run.path)
    assert run.read_summary()["counters"]["batches"] == 4
    assert list(run.path.rglob("*.partial")) == [mine]


def test_a_copy_of_a_torn_checkpoint_is_that_of_the_former(run: RunFolder) -> None:
    cut(run.config, 0)
    shutil.copy(run.last_checkpoint, run.previous_checkpoint)
    cut(run.last_checkpoint, 0.5)
    assert resolved(load_config(run.path)) == resolved(CONFIG)


@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_without_checkpoints_it_is_no_run(run: RunFolder, share: float) -> None:
    cut(run.config, share)
    shutil.rmtree(run.checkpoints)
    other = compose_config([*WORDS, "seed=2", "resume=auto"])
    assert not check_configuration(other, run.path)
    check_run_folder(other, run.path)


@pytest.mark.parametrize("content", ["", "task: {a", "[1]", "seed: 1"])
def test_a_torn_configuration_without_a_copy_is_refused(run: RunFolder, content: str) -> None:
    without_a_copy(run)
    run.config.write_text(content, encoding="utf-8")
    with pytest.raises(TornConfigurationError, match=r"config\.yaml must hold the run's configuration"):
        check_configuration(CONFIG, run.path)


def test_a_copy_of_another_kind_is_none(run: RunFolder) -> None:
    for settings in (5, {"config": 5, "overrides": "a"}, {}):
        torch.save({**read(run.last_checkpoint), "settings": settings}, run.last_checkpoint)
        run.config.write_text("[1]", encoding="utf-8")
        with pytest.raises(TornConfigurationError):
            load_config(run.path)
    assert run.status == RunStatus.COMPLETED
    assert OmegaConf.create(as_yaml(CONFIG)) == CONFIG


def test_the_seed_is_named_and_not_those_that_follow_it(run: RunFolder) -> None:
    words = [*WORDS, "estimator=randomized"]  # its own seed is ${seed}
    run.config.write_text(as_yaml(compose_config(words)), encoding="utf-8")
    with pytest.raises(ValueError, match=r"own configuration, got seed=2 instead of 1"):
        check_configuration(compose_config([*words, "seed=2"]), run.path)


@pytest.mark.parametrize("sources", ["[a]", "3", "[{provider: command-line}]", "${oc.env:NOPE}", "[", "null"])
def test_damaged_choices_are_none(tmp_path: Path, sources: str) -> None:
    RunFolder(tmp_path).settings.mkdir()
    text = "hydra: {runtime: {config_sources: " + sources + "}}\n"
    (RunFolder(tmp_path).settings / "hydra.yaml").write_text(text, encoding="utf-8")
    assert own_flags(tmp_path) == []


def test_aliases_are_refused(tmp_path: Path) -> None:
    """Ten levels of ten references each would take all time and memory; a text may hold the same signs."""
    run = RunFolder(tmp_path)
    run.settings.mkdir()
    levels = [f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
    run.config.write_text("\n".join(["a0: &a0 [x]", *levels, "resume: null", ""]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"it has aliases \(\*\), which training does not write"):
        read_config(run.path)
    run.config.write_text(as_yaml(compose_config([*WORDS, "+task.note='a & *b'"])), encoding="utf-8")
    assert read_config(run.path).task.note == "a & *b"


@pytest.mark.parametrize("text", ["a: " + "[" * 5000 + "]" * 5000, "5", "- a", "a: b: c"])
def test_a_file_that_is_no_configuration(text: str, tmp_path: Path) -> None:
    """Values that are nested deeply are taken for damage, too."""
    run = RunFolder(tmp_path)
    run.settings.mkdir()
    run.config.write_text(text, encoding="utf-8")
    with pytest.raises(TornConfigurationError, match=r"must hold the run's configuration, got a file that cannot be"):
        read_config(run.path)


def test_the_environment_stays_out_of_a_resumed_runs_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_A_SERVICE", "secret")
    RunFolder(tmp_path).settings.mkdir()
    words = ["seed=2", "+logger.tensorboard.key=${oc.env:KEY_OF_A_SERVICE}"]
    RunFolder(tmp_path).overrides.write_text(as_yaml(words), encoding="utf-8")
    assert read_overrides(tmp_path) == words


@pytest.mark.parametrize("name", ["${seed}", "a\\b", "it's", "\\", "x=[1],{y}: ${"])
def test_a_folder_with_an_odd_name_is_resumed(trained: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / name))
    overrides = OverridesParser.create().parse_overrides(resumed_arguments([f"resume={folder}"]))
    (given,) = [word.value() for word in overrides if word.key_or_group == "hydra.run.dir"]
    assert OmegaConf.create({"dir": given, "seed": 1}).dir == str(folder)
