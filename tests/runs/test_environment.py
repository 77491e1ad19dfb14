"""Values from the environment stay out of what is shared, and may not change within a run."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from support.script_runner import in_a_process

from bptt.configuration.compose import compose_config
from bptt.configuration.environment import fingerprints, references, without_environment, without_unknown_keys
from bptt.configuration.paths import with_absolute_paths
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.groups import Group
from bptt.runs.reading import Run
from bptt.runs.resumption import check_configuration
from bptt.sweeps.manifest import identity

WORDS = [
    "task=copy_memory", "task.delay=3", "task.batch_size=4", "task.train_batches=2", "task.validation_batches=1",
    "model.hidden_size=4", "~callbacks.gradient_flow", "~callbacks.jacobian_spectrum", "~callbacks.parameter_norms",
    "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1", "seed='${oc.decode:${oc.env:BPTT_SEED}}'",
]  # fmt: skip


def test_a_value_from_the_environment_is_kept_but_not_shown(tmp_path: Path) -> None:
    words, folder = [*WORDS, "hydra.run.dir=run"], tmp_path / "run"
    begun = in_a_process("train.py", *words, cwd=tmp_path, BPTT_SEED="31415926")
    assert begun.returncode == 0, begun.stderr
    (events,) = folder.glob("events.out.tfevents.*")
    assert b"${oc.env:BPTT_SEED}" in events.read_bytes()
    assert b"31415926" not in events.read_bytes()
    longer = [*words, "resume=auto", "trainer.max_epochs=2"]
    refused = in_a_process("train.py", *longer, cwd=tmp_path, BPTT_SEED="2")
    assert refused.stderr.startswith("error: seed must be the value from the environment that the run began with")
    done = in_a_process("train.py", *longer, cwd=tmp_path, BPTT_SEED="31415926")
    assert done.returncode == 0, done.stderr
    assert RunFolder(folder).read_summary()["counters"]["batches"] == 4


def test_a_sweep_does_not_take_results_of_other_values(tmp_path: Path) -> None:
    words = ["-m", *WORDS, "model=gru,elman", "hydra.sweep.dir=sweep"]
    assert in_a_process("train.py", *words, cwd=tmp_path, BPTT_SEED="3").returncode == 0
    again = in_a_process("train.py", *words, cwd=tmp_path, BPTT_SEED="3")
    assert again.stdout.endswith("sweep: 2 completed\n")
    refused = in_a_process("train.py", *words, cwd=tmp_path, BPTT_SEED="4")
    assert refused.stderr.startswith("error: seed must be the value from the environment that the run began with")


def test_a_path_keeps_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPTT_DATA", "data")
    config = OmegaConf.create({"task": {"path": "${oc.env:BPTT_DATA}/text"}})
    absolute = with_absolute_paths(config, Path("/home"))
    assert absolute.task.path == "/home/data/text"
    assert dict(references(absolute)) == {"task.path": "/home/${oc.env:BPTT_DATA}/text"}
    for folder in ("/data", "~/data"):
        monkeypatch.setenv("BPTT_DATA", folder)
        assert with_absolute_paths(config, Path("/home")).task.path == f"{folder}/text"


def test_data_may_move_with_their_variable(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "text").write_text("abcab" * 200)
    words = ["task=text", "task.path=${oc.env:BPTT_DATA}/text", "task.length=10", "task.batch_size=2", *WORDS[5:-1]]
    words += ["hydra.run.dir=run"]
    begun = in_a_process("train.py", *words, cwd=tmp_path, BPTT_DATA=str(tmp_path / "first"))
    assert begun.returncode == 0, begun.stderr
    (tmp_path / "first").rename(tmp_path / "second")
    longer = ["resume=run", "trainer.max_epochs=2"]
    done = in_a_process("train.py", *longer, cwd=tmp_path, BPTT_DATA=str(tmp_path / "second"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:BPTT_DATA}",
        "${oc.decode:${oc.env:BPTT_DATA}}",
        r"\${oc.env:BPTT_DATA}",
        r"\\${oc.env:BPTT_DATA}",
        "$a",
    ],
)
def test_what_is_shown_never_holds_the_value(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPTT_DATA", "31415926")
    config = OmegaConf.create({"task": {"token": value, "m": {1: value, "b.c": [value]}}})
    shown = str(OmegaConf.to_container(without_environment(config), resolve=True))
    assert "31415926" not in shown
    assert shown.count(value.replace("\\", "").removeprefix("$")) >= 3


def test_runs_with_values_from_the_environment_are_no_repetitions() -> None:
    def run(folder: str, seed: object) -> Run:
        return Run(Path(folder), {"seed": seed}, RunStatus.COMPLETED, {"loss": 1.0})

    assert len(Group({}, [run("a", "${oc.env:SEED}"), run("b", "${oc.env:SEED}")], "loss").counted) == 2
    assert len(Group({}, [run("a", 1), run("b", 1)], "loss").counted) == 1


def test_repetitions_with_the_same_values_from_the_environment_count_once() -> None:
    """If the values are known; only their fingerprints are kept."""

    def run(name: str, fingerprint: str) -> Run:
        known = {"seed": fingerprint}
        return Run(Path(name), {"seed": "${oc.env:SEED}"}, RunStatus.COMPLETED, {"loss": 1.0}, environment=known)

    runs = [run("a", "1"), run("b", "1"), run("c", "2")]
    assert [run.folder.name for run in Group({}, runs, "loss").counted] == ["a", "c"]


def kept(folder: Path, *words: str) -> None:
    """Keep the settings of a run, and the fingerprints of its values from the environment."""
    config = compose_config([*WORDS[:-1], *words])
    RunFolder(folder).settings.mkdir()
    OmegaConf.save(config, RunFolder(folder).config)
    OmegaConf.save(OmegaConf.create(fingerprints(config)), RunFolder(folder).settings / "environment.yaml")


def test_a_limit_of_time_from_the_environment_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["trainer.max_time='${oc.env:BPTT_TIME}'"]
    monkeypatch.setenv("BPTT_TIME", "00:00:10:00")
    kept(tmp_path, *words)
    monkeypatch.setenv("BPTT_TIME", "00:00:20:00")
    check_configuration(compose_config([*WORDS[:-1], *words]), tmp_path)


def test_a_changed_value_is_refused_if_it_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference in the run's configuration would resolve to the new value, too."""
    monkeypatch.setenv("BPTT_LR", "0.01")
    kept(tmp_path, "optimizer.lr='${oc.decode:${oc.env:BPTT_LR}}'")
    check_configuration(compose_config([*WORDS[:-1], "optimizer.lr=0.01"]), tmp_path)
    monkeypatch.setenv("BPTT_LR", "0.5")
    with pytest.raises(ValueError, match=r"optimizer\.lr must be the value from the environment"):
        check_configuration(compose_config([*WORDS[:-1], "optimizer.lr=0.5"]), tmp_path)


def test_the_identity_of_a_job_holds_values_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the word is not in quotes, and Hydra escapes the reference."""
    for word in ("model.a='${oc.env:BPTT_A}'", r"model.a=$\{oc.env\:BPTT_A\}", """model.a='${oc.env:"BPTT_A"}'"""):
        monkeypatch.setenv("BPTT_A", "1")
        first = identity([word], files="")
        assert identity([word], files="") == first
        monkeypatch.setenv("BPTT_A", "2")
        assert identity([word], files="") != first


def test_a_sweep_does_not_take_results_of_other_data(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text").write_text(("abcab" if name == "first" else "abccc") * 200)
    words = ["task=text", "task.path=${oc.env:BPTT_DATA}/text", "task.length=10", "task.batch_size=2", *WORDS[5:-1]]
    words = ["-m", *words, "seed=1,2", "hydra.sweep.dir=sweep"]
    assert in_a_process("train.py", *words, cwd=tmp_path, BPTT_DATA=str(tmp_path / "first")).returncode == 0
    summaries = sorted(tmp_path.glob("sweep/*/summary.json"))
    assert len(summaries) == 2
    before = [path.read_text() for path in summaries]
    again = in_a_process("train.py", *words, cwd=tmp_path, BPTT_DATA=str(tmp_path / "first"))
    assert again.stdout.endswith("sweep: 2 completed\n")
    other = in_a_process("train.py", *words, cwd=tmp_path, BPTT_DATA=str(tmp_path / "second"))
    assert other.returncode == 1
    assert other.stderr.count("a run must be resumed with the data it began with") == 3  # in both, and in the last line
    assert "error: 2 failed: seed-1: a run must" in other.stderr
    assert "best" not in other.stdout
    assert [path.read_text() for path in summaries] == before
    once_more = in_a_process("train.py", *words, cwd=tmp_path, BPTT_DATA=str(tmp_path / "first"))
    assert once_more.stdout.count("finished before: ") == 2
    assert once_more.stdout.endswith("\n2 completed\n")


def test_other_initial_weights_are_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they hold is not checked with the checkpoint, as data are."""
    words = ["model.init_from='${oc.env:BPTT_INIT}'"]
    monkeypatch.setenv("BPTT_INIT", "/first")
    kept(tmp_path, *words)
    monkeypatch.setenv("BPTT_INIT", "/second")
    with pytest.raises(ValueError, match=r"model\.init_from must be the value from the environment"):
        check_configuration(compose_config([*WORDS[:-1], *words]), tmp_path)


def test_a_run_goes_on_without_the_key_of_its_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPTT_KEY", "1")
    kept(tmp_path, "+logger.own={_target_:mine,key:'${oc.env:BPTT_KEY}'}")
    monkeypatch.delenv("BPTT_KEY")
    assert check_configuration(compose_config(WORDS[:-1]), tmp_path)


def test_values_in_a_list_have_a_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    config = OmegaConf.create({"optimizer": {"betas": ["${oc.decode:${oc.env:BPTT_B}}", 0.999]}})
    found = []
    for value in ("0.9", "0.1", "0.9"):
        monkeypatch.setenv("BPTT_B", value)
        found.append(fingerprints(config)["optimizer.betas"])
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("folder", ["/a${b}", "/a\\\\${oc.env:b}"])
def test_a_folder_that_looks_like_a_reference(folder: str) -> None:
    config = OmegaConf.create({"task": {"path": "text"}})
    for _ in range(2):
        config = with_absolute_paths(config, Path(folder))
        assert config.task.path == f"{folder}/text"


def test_a_variable_with_a_default_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BPTT_NO", raising=False)
    config = OmegaConf.create(
        {"logger": {"a": "${oc.env:BPTT_NO,mine}", "b": "${oc.env:BPTT.NO}"}, "name": "${logger.a}"}
    )
    known = without_unknown_keys(config)
    assert (known.name, known.logger.b) == ("mine", "${oc.env:BPTT.NO}")
