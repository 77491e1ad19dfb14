"""Loading a run calls nothing but parts of this project, finds former names, and refuses other data."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from support.small_runs import trained
from support.small_tasks import small_overrides

from bptt.configuration.build import PARTS, build_module
from bptt.configuration.compose import compose_config
from bptt.configuration.containers import resolved
from bptt.configuration.errors import one_line
from bptt.lightning.data_identity import other_encoding
from bptt.run_folder import RunFolder
from bptt.runs.evaluation import evaluate
from bptt.runs.loading import check_targets, load_config, load_run, trusted_config
from bptt.runs.prediction import load_for_input, predict
from bptt.runs.training import train


def folder_with(root: Path, content: str) -> Path:
    run = RunFolder(root)
    run.settings.mkdir(parents=True)
    run.config.write_text(content, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    "target",
    [
        "builtins.print",
        "pathlib.Path.touch",
        "subprocess.run",
        "my_package.Task",
        "bptt.tasks.download.os.remove",  # a module reached through this project's own
        "bptt.tasks.download.fetch",  # a function of this project that writes a file
        "bptt.atomic_files.replace_text",
        "torch.hub.load",
        "lightning.pytorch.utilities.rank_zero.rank_zero_only",
    ],
)
@pytest.mark.parametrize("key", ["task", "model.layer", "callbacks.own"])
def test_a_foreign_target_is_refused(target: str, key: str) -> None:
    config = OmegaConf.create({})
    OmegaConf.update(config, f"{key}._target_", target)
    with pytest.raises(ValueError, match=r"must be a part of bptt, torch\.optim or lightning") as refused:
        check_targets(config)
    assert len(str(refused.value).splitlines()) == 1
    assert f"say trust={target.partition('.')[0]}" in str(refused.value)
    check_targets(config, trust=[target.partition(".")[0]])


def test_a_part_that_this_version_lacks_is_no_matter_of_trust() -> None:
    config = OmegaConf.create({"estimator": {"_target_": "bptt.estimators.ChunkedV2"}})
    with pytest.raises(ValueError, match=r"got 'bptt\.estimators\.ChunkedV2'; this version has no such part"):
        check_targets(config)


@pytest.mark.parametrize(
    "content",
    [
        "{callbacks: {own: {_target_: bptt.model.SequenceModel, parts: [{_target_: builtins.print}]}}}",
        "{task: {_target_: bptt.tasks.adding.Adding, _args_: [[{_target_: builtins.print}]]}}",
        "{task: '${oc.create:{_target_:builtins.print}}'}",
        "{task: {_target_: '${word}'}, word: builtins.print}",
    ],
)
def test_a_foreign_target_is_found_wherever_hydra_would_call_it(content: str) -> None:
    config = OmegaConf.create(content)
    assert isinstance(config, DictConfig)
    with pytest.raises(ValueError, match=r"must be a part of bptt, torch\.optim or lightning, got 'builtins\.print'"):
        check_targets(config)


def test_a_reference_cannot_lead_to_another_target_when_the_configuration_is_changed(tmp_path: Path) -> None:
    """As `evaluate` does, which leaves out the callbacks."""
    content = "{callbacks: {own: bptt.model.SequenceModel}, task: {_target_: '${oc.select:callbacks.own,shutil.move}'}}"
    config = trusted_config(folder_with(tmp_path, content))
    config.callbacks = {}
    assert config.task._target_ == "bptt.model.SequenceModel"


@pytest.mark.parametrize("text", [r"\${oc.create:{_target_:shutil.move}}", r"a\\${b}", r"\\\${c}", "$d", r"\d"])
def test_texts_that_look_like_references_stay_texts(tmp_path: Path, text: str) -> None:
    folder = folder_with(tmp_path, f"{{task: {{name: '{text}'}}, b: x, c: y}}")
    assert resolved(trusted_config(folder)) == resolved(load_config(folder))


def test_targets_of_every_default_are_trusted() -> None:
    check_targets(compose_config(["callbacks=[default,bias,early_stopping,pruning]"]))


def test_trust_is_a_whole_name() -> None:
    config = OmegaConf.create({"task": {"_target_": "my_package_of_others.Task"}})
    with pytest.raises(ValueError, match="must be a part of bptt"):
        check_targets(config, trust=["my_package"])


def test_a_former_name_is_found(tmp_path: Path) -> None:
    config = load_config(folder_with(tmp_path, "scheduler: {_target_: bptt.lightning.module.Schedule}"))
    assert config.scheduler._target_ == "bptt.lightning.module.LearningRateSchedule"
    check_targets(config)


@pytest.mark.parametrize("content", ["[1, 2]", "", "a: ["])
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: str) -> None:
    folder = folder_with(tmp_path, content)
    if content:
        with pytest.raises(ValueError, match=r"must hold the run's configuration, got a (ListConfig|file)"):
            load_config(folder)
    else:
        assert load_config(folder) == {}


def test_a_reference_to_nothing_names_the_file(tmp_path: Path) -> None:
    others = "".join(f"{part}: {{}}\n" for part in PARTS if part != "task")
    folder = folder_with(tmp_path, f"task: {{length: '${{nosuch.length}}'}}\n{others}")
    with pytest.raises(ValueError, match=r"config\.yaml cannot be read: Interpolation key 'nosuch\.length' not found$"):
        load_run(folder, checkpoint="best")


def test_other_data_are_refused_unless_they_are_meant(tmp_path: Path) -> None:
    """The same file name with its characters in another order has the same vocabulary and length."""
    words = small_overrides("text", tmp_path)
    (name,) = [word.partition("=")[2] for word in words if word.startswith("task.path=")]
    config = compose_config(
        [*words, "model.hidden_size=4", "callbacks={}", "logger=none", "trainer.limit_train_batches=2"]
    )
    OmegaConf.update(config, "callbacks.checkpoint", compose_config([]).callbacks.checkpoint)
    folder = tmp_path / "run"
    run = RunFolder(folder)
    train(config, folder)
    run.settings.mkdir()
    OmegaConf.save(config, run.config)
    assert run.read_summary()["data"] == load_run(folder, checkpoint="last").task.identity
    text = Path(name).read_text(encoding="utf-8")
    Path(name).write_text(text[::-1], encoding="utf-8")
    with pytest.raises(ValueError, match=r"the data must be those of training, .* set other_data=true"):
        load_run(folder, checkpoint="last")
    load_run(folder, checkpoint="last", other_data=True)


def test_a_key_of_a_logger_need_not_be_known_to_load_a_run(tmp_path: Path) -> None:
    """What refers to the logger is as it is with the key."""
    logger = "{own: {_target_: aim.Logger, project: mine, key: '${oc.env:BPTT_NO_SUCH_KEY}'}}"
    config = trusted_config(folder_with(tmp_path, f"{{task: {{name: '${{logger.own.project}}'}}, logger: {logger}}}"))
    assert config.task.name == "mine"
    assert config.logger == {}


def test_a_folder_of_a_logger_that_is_known_in_training_alone(tmp_path: Path) -> None:
    logger = "{own: {save_dir: '${hydra:runtime.output_dir}', name: '${nosuch:1}'}}"
    assert trusted_config(folder_with(tmp_path, f"{{task: {{length: 3}}, logger: {logger}}}")).task.length == 3


def test_a_task_without_data_has_no_other_data(tmp_path: Path) -> None:
    words = ["task=adding", "task.length=5", "task.batch_size=2", "model.hidden_size=4", "logger=none"]
    config = compose_config([*words, "callbacks={}", "trainer.limit_train_batches=2"])
    OmegaConf.update(config, "callbacks.checkpoint", compose_config([]).callbacks.checkpoint)
    folder = trained(config, tmp_path / "run")
    assert load_run(folder, checkpoint="last", other_data=True).task.length == 5


def test_changed_data_of_another_size_are_called_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A category more changes the model, too. After a new division, parts may contain training sequences."""
    path = tmp_path / "log.csv"
    rows = [f"{row // 3},{row % 5},{'cat' if row % 2 else 'dog'},{row // 3 % 2}" for row in range(60)]
    path.write_text("\n".join(["id,x,kind,y", *rows]), encoding="utf-8")
    words = ["task=sequences", f"task.path={path}", "task.sequence=id", "task.targets=y", "task.batch_size=2"]
    config = compose_config([*words, "model.hidden_size=4", "logger=none", "callbacks={}", "trainer.max_epochs=1"])
    OmegaConf.update(config, "callbacks.checkpoint", compose_config([]).callbacks.checkpoint)
    folder = trained(config, tmp_path / "run")
    load_run(folder, checkpoint="last", other_data=True)
    assert "divided" not in capsys.readouterr().err
    path.write_text("\n".join(["id,x,kind,y", *rows, "20,1,bird,0"]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"the data must be those of training, .* set other_data=true"):
        load_run(folder, checkpoint="last")
    load_run(folder, checkpoint="last", other_data=True)  # as bptt.load does, which takes no part
    assert capsys.readouterr().err.splitlines() == [
        "texts that training lacks count as no category: 'bird' in kind (1 rows)"
    ]
    for use in (evaluate, partial(predict, out=tmp_path / "out.csv")):
        use(folder, checkpoint="last", other_data=True)
        said = capsys.readouterr().err.splitlines()
        assert said[1].startswith("changed data are divided again, so the parts may contain training data; input=FILE")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("cat", "car", "other classes"), ("0.5", "1.0", "another mean|another deviation")],
)
def test_names_and_units_are_part_of_the_data(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Standardised inputs, and the order of the classes, are the same ones."""
    path = tmp_path / "log.csv"
    rows = [f"{row // 3},{0.5 if row % 2 else 0.0},{'cat' if row // 3 % 2 else 'dog'}" for row in range(60)]
    path.write_text("\n".join(["id,x,kind", *rows]), encoding="utf-8")
    words = ["task=sequences", f"task.path={path}", "task.sequence=id", "task.targets=kind", "task.batch_size=2"]
    config = compose_config([*words, "model.hidden_size=4", "logger=none", "callbacks={}", "trainer.max_epochs=1"])
    OmegaConf.update(config, "callbacks.checkpoint", compose_config([]).callbacks.checkpoint)
    folder = trained(config, tmp_path / "run")
    load_run(folder, checkpoint="last")
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=f"the data must be those of training, got ({message})"):
        load_run(folder, checkpoint="last")
    config.resume, config.trainer.max_epochs = "auto", 2
    with pytest.raises(ValueError, match=f"resumed with the data it began with, got ({message})"):
        train(config, folder)
    if old == "0.5":
        assert load_run(folder, checkpoint="last", other_data=True).task.encoding["mean"][0] < 0.4


def test_an_own_task_may_keep_other_things_in_its_encoding() -> None:
    """A tensor, for example, has no truth value when it is compared."""
    tensors: dict[str, Any] = dict.fromkeys(("classes", "categories", "rate", "mean"), torch.ones(2))
    assert other_encoding(tensors, {"classes": ["a"], "categories": {}, "rate": 8000, "mean": [1.0]}) is None
    assert other_encoding({"mean": 3.2, "deviation": {"x": 1}}, {"mean": [4.0], "deviation": [1.0]}) is None
    assert other_encoding(None, {"mean": [1.0]}) is None


@pytest.mark.parametrize(
    ("mean", "deviation", "found"),
    [
        (5_300_512.0, 52.0, "another mean, 5.30051e+06 in place of 5.3e+06"),  # ten deviations, a ten-thousandth
        (5_300_000.001, 52.0, None),  # rounding
        (5_300_000.0, 104.0, "another deviation, 104 in place of 52"),
    ],
)
@pytest.mark.parametrize("of_targets", [False, True])
def test_units_are_compared_by_the_deviation(
    mean: float, deviation: float, found: str | None, of_targets: bool
) -> None:
    scales = [{"mean": [0.0, each], "deviation": [1.0, own]} for each, own in ((5.3e6, 52.0), (mean, deviation))]
    before, now = [{"target_scale": scale} for scale in scales] if of_targets else scales
    assert (other_encoding(before, now) or (None, ""))[0] == found


def test_what_can_be_done_about_other_names() -> None:
    """Changed data can be used if their classes are among those of training, and with any categories."""
    use_them = "set other_data=true to use the changed data"
    for now, remedy in ((["a"], use_them), (["b", "a"], use_them), (["a", "c"], "name the classes as in training")):
        assert (other_encoding({"classes": ["a", "b"]}, {"classes": now}) or ("", ""))[1] == remedy
    assert (other_encoding({"categories": {"x": ["a"]}}, {"categories": {"x": ["c"]}}) or ("", ""))[1] == use_them
    assert (other_encoding({"rate": 8000}, {"rate": 16000}) or ("", ""))[1] == "resample the sounds"
    assert other_encoding({"rate": 8000}, {"rate": None}) is None  # the same numbers in .npy


@pytest.mark.parametrize("content", ["", "task: {_target_: bptt.tasks.adding.Adding, seed: '${seed}'}\n"])
def test_a_torn_configuration_without_a_copy(tmp_path: Path, content: str) -> None:
    """As a copy onto a full disk leaves it."""
    folder = folder_with(tmp_path, content)
    RunFolder(folder).last_checkpoint.parent.mkdir()
    RunFolder(folder).last_checkpoint.write_bytes(b"")
    message = r"config\.yaml must hold the run's configuration, got a part of it without (task|model)"
    with pytest.raises(ValueError, match=message):
        load_run(folder, checkpoint="last")
    with pytest.raises(ValueError, match=message):
        load_for_input(folder, tmp_path / "next.csv", checkpoint="last")


def test_a_key_that_this_version_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts that load a run accept no settings, so that none can be left out there."""
    config = compose_config(["task=adding", "task.length=5", "task.batch_size=2", "model.hidden_size=4", "logger=none"])
    OmegaConf.update(config, "model.newer", 3, force_add=True)
    folder = folder_with(tmp_path, OmegaConf.to_yaml(config))
    monkeypatch.setattr("sys.argv", ["evaluate.py", f"run={folder}"])
    with pytest.raises(InstantiationException) as raised:
        build_module(load_config(folder))
    line = one_line(raised.value)
    assert "keyword argument 'newer'; the run's configuration is of another version, or was edited" in line
    assert "~" not in line
