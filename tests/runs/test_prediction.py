"""Predictions for a run's own data and for another file are in the units of the data; texts are continued."""

import csv
import math
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

import bptt
from bptt.atomic_files import partial_of
from bptt.configuration.compose import compose_config
from bptt.figures import predictions as figure_of
from bptt.run_folder import RunFolder
from bptt.runs.evaluation import evaluate
from bptt.runs.generation import generate, load_for_generation, unknown_tokens
from bptt.runs.loading import load_config, load_run
from bptt.runs.prediction import BLOCK, load_for_input, predict, predictions, write_table
from bptt.runs.resumption import check_configuration
from bptt.runs.training import train
from bptt.tasks.series import Series
from bptt.tasks.text import Text


def trained(root: Path, *words: str) -> Path:
    """A run of a few batches, without callbacks but the one that writes checkpoints."""
    shared = ("model.hidden_size=6", "logger=none", "trainer.limit_train_batches=3", "trainer.val_check_interval=1.0")
    config = compose_config([*words, *shared])
    config.callbacks = {"checkpoint": config.callbacks.checkpoint}
    train(config, root)
    run = RunFolder(root)
    run.settings.mkdir()
    OmegaConf.save(config, run.config)
    return root


def log(path: Path, *, rows: int, first: int = 0) -> Path:
    lines = ["load,temperature"]
    lines += [f"{1000 + 100 * math.sin(t / 5):.6f},{20 + math.cos(t / 9):.6f}" for t in range(first, first + rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("series")
    data = log(root / "log.csv", rows=1200)
    return trained(
        root / "run", "task=series", f"task.path={data}", "task.targets=load", "task.horizon=[1,3]",
        "task.length=30", "task.batch_size=2", "estimator.chunk_size=10",
    )  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("text")
    data = root / "text.txt"
    data.write_text("der Bär läuft. the bear runs.\n" * 100, encoding="utf-8")
    return trained(root / "run", f"task.path={data}", "task.length=30", "task.batch_size=2", "estimator.chunk_size=10")


def test_a_table_in_the_units_of_the_data(series: Path, tmp_path: Path) -> None:
    columns = predict(series, tmp_path / "out.csv", split="test", checkpoint="last")
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert columns["row"] == sorted(columns["row"]) == [int(row["row"]) for row in rows]
    for row in rows:
        t = int(row["row"]) - 1 + 1  # one row later
        assert float(row["load+1"]) == pytest.approx(1000 + 100 * math.sin(t / 5), abs=1e-3)
        assert 500 < float(row["load+1 predicted"]) < 1500
    predict(series, tmp_path / "out.parquet", split="test", checkpoint="last")
    assert (tmp_path / "out.parquet").read_bytes()[:4] == b"PAR1"


def test_words_that_a_configuration_would_interpret(tmp_path: Path) -> None:
    """A vocabulary is data: ??? is a missing value of OmegaConf, and ${…} refers to another setting there."""
    data = tmp_path / "text.txt"
    data.write_text("one two ??? ${HOME} ${a:b} ${seed} what\n" * 60, encoding="utf-8")
    run = trained(
        tmp_path / "run", f"task.path={data}", "task.unit=word", "task.length=5", "task.batch_size=2",
        "estimator.chunk_size=5",
    )  # fmt: skip
    module = load_for_input(run, data, checkpoint="last")
    assert isinstance(module.task, Text)
    assert {"???", "${HOME}", "${a:b}", "${seed}"} < set(module.task.vocabulary)
    assert evaluate(run, input=data, checkpoint="last")["test/loss"] > 0
    again = load_for_generation(run, checkpoint="last")
    assert isinstance(again.task, Text)
    assert again.task.vocabulary == module.task.vocabulary


def test_categories_that_a_configuration_would_interpret(tmp_path: Path) -> None:
    data = tmp_path / "log.csv"
    kinds = ("???", "${seed}", "plain")
    data.write_text("load,kind\n" + "".join(f"{t % 7},{kinds[t % 3]}\n" for t in range(200)), encoding="utf-8")
    words = ("task=series", f"task.path={data}", "task.targets=load", "task.length=10", "task.batch_size=2")
    run = trained(tmp_path / "run", *words, "estimator.chunk_size=10")
    assert load_for_input(run, data, checkpoint="last").task.input_size == 1 + len(kinds)


def test_a_file_with_texts_that_training_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def written(name: str, kinds: str, load: str = "1.5") -> Path:
        rows = [f"{t % 7},{kinds[t % 3]}\n" for t in range(199)] + [f"{load},{kinds[0]}\n"]
        (tmp_path / name).write_text("load,kind\n" + "".join(rows), encoding="utf-8")
        return tmp_path / name

    words = ("task=series", "task.targets=load", "task.length=10", "task.batch_size=2", "estimator.chunk_size=10")
    run = trained(tmp_path / "run", *words, f"task.path={written('log.csv', 'abc')}")
    predict(run, tmp_path / "out.csv", input=written("new.csv", "abz"), checkpoint="last")
    assert capsys.readouterr().err == "texts that training lacks count as no category: 'z' in kind (66 rows)\n"
    with pytest.raises(ValueError, match=r"the task's settings are those of the run, so change odd\.csv$"):
        predict(run, tmp_path / "out.csv", input=written("odd.csv", "abc", load="much"), checkpoint="last")


def test_a_network_that_diverged_draws_no_text(text: Path) -> None:
    module = load_for_generation(text, checkpoint="last")
    assert isinstance(module.task, Text)
    with torch.no_grad():
        module.model.get_parameter("readout.bias").fill_(math.inf)
    with pytest.raises(ValueError, match="run must be a network that predicts finite numbers, got inf; training"):
        generate(module.model, module.task, length=3)


@pytest.mark.parametrize("temperature", [1e-320, 1e-30, 1e38])
def test_extreme_temperatures(text: Path, temperature: float) -> None:
    module = load_for_generation(text, checkpoint="last")
    assert isinstance(module.task, Text)
    cold, greedy = (
        generate(module.model, module.task, prompt="der", length=8, temperature=each) for each in (temperature, 0)
    )
    assert len(cold) == len(greedy)
    assert cold == greedy or temperature > 1


def test_one_piece_and_many_agree(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks in which a batch is run do not show in the predictions."""
    module = load_run(series, checkpoint="last")
    whole = list(predictions(module, "validation"))
    assert module.task.length < BLOCK
    monkeypatch.setattr("bptt.runs.prediction.BLOCK", 7)
    pieces = list(predictions(module, "validation"))
    for one, other in zip(whole, pieces, strict=True):
        assert one["load+1 predicted"] == pytest.approx(other["load+1 predicted"], rel=1e-5)


def test_one_batch_and_many_agree(series: Path) -> None:
    """One stream in one batch, or the state carried over batches of 13 rows."""
    module, by_length = load_run(series, checkpoint="last"), []
    for length in (2000, 13):
        path = str(series.parent / "log.csv")
        module.task = Series(path=path, batch_size=1, horizon=[1, 3], length=length, encoding=module.task.encoding)
        parts = list(predictions(module, "test"))
        by_length.append([value for part in parts for value in part["load+3 predicted"]])
    assert len(by_length[0]) == len(by_length[1]) == 1200
    assert by_length[0] == pytest.approx(by_length[1], rel=1e-5)


def test_a_resumed_run_predicts_as_an_unbroken_one(series: Path, tmp_path: Path) -> None:
    """Stopped within a batch, then resumed: the same table, to the bit."""
    config = OmegaConf.load(RunFolder(series).config)
    assert isinstance(config, DictConfig)
    for steps in (4, -1):
        config.trainer.max_steps, config.resume = steps, "auto"
        train(config, tmp_path)
    RunFolder(tmp_path).settings.mkdir()
    OmegaConf.save(config, RunFolder(tmp_path).config)
    columns = [predict(folder, tmp_path / "out.csv", checkpoint="last") for folder in (series, tmp_path)]
    assert columns[0] == columns[1]


def test_a_run_is_resumed_with_its_file_in_another_place(series: Path, tmp_path: Path) -> None:
    """Its checkpoint knows the data; the old path may differ only if nothing is there any more."""
    config, place = load_config(series), tmp_path / "elsewhere.csv"
    place.write_bytes((series.parent / "log.csv").read_bytes())
    moved = OmegaConf.merge(config, {"task": {"path": str(place)}})
    assert isinstance(moved, DictConfig)
    with pytest.raises(ValueError, match=r"resumed with its own configuration, got task.path="):
        check_configuration(moved, series)
    config.task.path = str(tmp_path / "gone.csv")
    RunFolder(tmp_path).settings.mkdir()
    OmegaConf.save(config, RunFolder(tmp_path).config)
    assert not check_configuration(moved, tmp_path)
    message = (
        r"task.path of the run must be an existing file, .*; if it was moved, say train.py resume=.* task.path=NEW"
    )
    with pytest.raises(ValueError, match=message):
        load_run(tmp_path, checkpoint="last")


def test_another_file_is_encoded_as_the_training_data_were(series: Path, tmp_path: Path) -> None:
    """The same rows in a file of their own: all are predicted, with the statistics of training."""
    other = log(tmp_path / "next.csv", rows=200, first=1200)
    columns = predict(series, tmp_path / "out.csv", input=other, checkpoint="last")
    module = load_for_input(series, other, checkpoint="last")
    assert module.task.encoding == load_run(series, checkpoint="last").task.encoding
    assert len(columns["row"]) == 200
    known = [(row, value) for row, value in zip(columns["row"], columns["load+1"]) if value is not None]
    for row, value in known:
        assert value == pytest.approx(1000 + 100 * math.sin((1200 + row) / 5), abs=1e-3)
    figure = figure_of(columns, title="$next")
    assert figure is not None
    assert [axis.get_ylabel() for axis in figure.axes] == ["load+1", "load+3"]


def test_scores_of_another_file(series: Path, tmp_path: Path) -> None:
    """Those of the table that `predict` writes, over all known targets; refused without any."""
    other = log(tmp_path / "next.csv", rows=200, first=1200)
    columns = predict(series, tmp_path / "out.csv", input=other, checkpoint="last")
    errors = [
        (found - true) ** 2
        for name in ("load+1", "load+3")
        for found, true in zip(columns[f"{name} predicted"], columns[name])
        if true is not None
    ]
    assert len(errors) == 199 + 197
    scores = evaluate(series, input=other, checkpoint="last")
    assert scores["test/mse"] == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    (tmp_path / "unknown.csv").write_text("temperature,load\n20.5,1000\n", encoding="utf-8")
    assert len(predict(series, tmp_path / "out.csv", input=tmp_path / "unknown.csv", checkpoint="last")["row"]) == 1
    with pytest.raises(ValueError, match=r"input must be a file with targets, got .*; use predict.py"):
        evaluate(series, input=tmp_path / "unknown.csv", checkpoint="last")


def test_changed_data_are_encoded_as_the_training_data_were(series: Path, tmp_path: Path) -> None:
    """A log that has grown, and moved: with other_data its test part is predicted as it is in another file."""
    folder, data = Path(shutil.copytree(series, tmp_path / "run")), log(tmp_path / "grown.csv", rows=300, first=5003)
    config = OmegaConf.load(RunFolder(folder).config)
    config.task.path = str(data)
    OmegaConf.save(config, RunFolder(folder).config)
    own = predict(folder, tmp_path / "own.csv", checkpoint="last", other_data=True)
    other = predict(series, tmp_path / "other.csv", input=tmp_path / "grown.csv", checkpoint="last")
    known = dict(zip(other["row"], other["load+1 predicted"]))
    assert 0 < len(own["row"]) < len(other["row"])
    assert own["load+1 predicted"][-10:] == pytest.approx([known[row] for row in own["row"][-10:]], rel=1e-3)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_full_disk(suffix: str, tmp_path: Path) -> None:
    """polars names neither the disk nor the file."""
    out = tmp_path / f"table{suffix}"
    partial_of(out).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as full:
        write_table(iter([{"sequence": [0], "timestep": [0]}]), out)
    assert full.value.filename == str(out)
    assert not list(tmp_path.iterdir())


def test_refusals(series: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"out must be a file ending in \.csv or \.parquet"):
        predict(series, tmp_path / "out.txt")
    with pytest.raises(ValueError, match="no such file"):
        predict(series, tmp_path / "out.csv", input=tmp_path / "none.csv", checkpoint="last")
    for present, missing in (("load", "temperature"), ("temperature", "load")):  # load is a target, and an input, too
        narrow = tmp_path / f"{present}.csv"
        narrow.write_text(f"{present}\n" + "1\n" * 50, encoding="utf-8")
        with pytest.raises(ValueError, match=f"task.inputs must be a column of the file .*, got '{missing}'"):
            predict(series, tmp_path / "out.csv", input=narrow, checkpoint="last")
    strange = tmp_path / "strange.txt"
    strange.write_text("zebra 123" * 50, encoding="utf-8")
    with pytest.raises(ValueError, match="byte"):
        predict(text, tmp_path / "out.csv", input=strange, checkpoint="last")
    assert not list(tmp_path.glob("out*"))


def test_a_text_of_three_bytes(text: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("der", encoding="utf-8")
    columns = predict(text, tmp_path / "out.csv", input=tmp_path / "short.txt", checkpoint="last")
    assert columns["token"] == ["e", "r"]
    assert all(0 < value < 1 for value in columns["probability"])


def test_text_is_continued(text: Path) -> None:
    module = load_run(text, checkpoint="last")
    task = module.task
    assert isinstance(task, Text)
    generated = {seed: generate(module.model, task, prompt="der Bär", length=40, seed=seed) for seed in (1, 2)}
    assert generated[1] == generate(module.model, task, prompt="der Bär", length=40, seed=1)
    assert generated[1] != generated[2]
    assert all(text.startswith("der Bär") for text in generated.values())
    best = generate(module.model, task, prompt="the", length=20, temperature=0)
    assert best == generate(module.model, task, prompt="the", length=20, top_k=1, seed=5)
    with pytest.raises(ValueError, match="prompt must be of bytes that the training text has, got 'Z'"):
        generate(module.model, task, prompt="Z")
    with pytest.raises(ValueError, match="length must be an integer >= 1"):
        generate(module.model, task, length=0)


@pytest.mark.parametrize("unit", ["byte", "character", "word"])
def test_a_text_that_is_gone_is_not_needed(unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.txt").write_text("der Bär\nund das Haus\n" * 60, encoding="utf-8")
    words = ("task.path=own.txt", f"task.unit={unit}", "task.reset_at=end_of_line", "task.batch_size=2")
    trained(tmp_path / "run", *words, "task.length=20", "estimator.chunk_size=10")
    before = load_for_generation(tmp_path / "run", checkpoint="last")
    (tmp_path / "own.txt").unlink()
    module = load_for_generation(tmp_path / "run", checkpoint="last")
    made = []
    for each in (before, module):
        assert isinstance(each.task, Text)
        made.append(
            (each.task.vocabulary, each.task.reset_id, generate(each.model, each.task, prompt="der Bär", length=20))
        )
    assert made[0] == made[1]


def test_words_outside_the_vocabulary_are_named(tmp_path: Path) -> None:
    """They are read as <unk>, which a vocabulary of the most frequent words has."""
    (tmp_path / "words.txt").write_text("a b a b c a b\n" * 100, encoding="utf-8")
    task = Text(path=str(tmp_path / "words.txt"), unit="word", vocabulary_size=4, length=5, batch_size=2)
    assert unknown_tokens(task, "a dog b cat dog") == ["dog", "cat"]


def test_a_text_begins_again_at_the_token_of_resets(text: Path) -> None:
    """Tokens before it do not matter."""
    module = load_run(text, checkpoint="last")
    task = module.task
    assert isinstance(task, Text)
    task.reset_id = task.vocabulary.index(".")
    made = {prompt: generate(module.model, task, prompt=prompt, length=20, seed=1) for prompt in ("the .", "bear .")}
    assert made["the ."].removeprefix("the ") == made["bear ."].removeprefix("bear ")


def test_the_model_in_a_notebook(text: Path) -> None:
    model = bptt.load(text, checkpoint="last")
    assert not model.training
    (layer,) = model.layers
    plain = torch.nn.LSTM(layer.input_size, layer.hidden_size)
    plain.load_state_dict(layer.get_submodule("kernel").state_dict())
    ids = torch.arange(5).unsqueeze(1)
    predictions, _, _ = model(ids, model.initial_state(1))
    expected = model.readout(plain(model.encode(ids))[0])
    torch.testing.assert_close(predictions, expected)


def test_data_and_results_are_not_overwritten(series: Path, tmp_path: Path) -> None:
    """Neither by its name nor by another way to it, nor inside a folder of data; nor are the run's own files."""
    mine = log(tmp_path / "mine.csv", rows=300, first=1200)
    (tmp_path / "link.csv").symlink_to(mine)
    (tmp_path / "folder").mkdir()
    data = Path(str(load_config(series).task.path))
    before = mine.read_bytes(), data.read_bytes()
    for out in (mine, tmp_path / "link.csv", data, series / "metrics.csv", series / "gradient_flow.csv"):
        with pytest.raises(ValueError, match=r"^out must be another file than .*, got"):
            predict(series, out, input=mine)
    with pytest.raises(ValueError, match=r"^out must be outside .*folder, whose files are data, got"):
        predict(series, tmp_path / "folder" / "new.csv", input=tmp_path / "folder")
    assert before == (mine.read_bytes(), data.read_bytes())
    predict(series, tmp_path / "new.csv", input=mine)


def test_changed_data_without_targets_have_no_scores(series: Path, tmp_path: Path) -> None:
    """Their target is an input, too, so that they are refused; without it they would be scored as NaN."""
    run = trained(
        tmp_path / "run", "task=series", f"task.path={log(tmp_path / 'log.csv', rows=400)}", "task.targets=load",
        "task.inputs=temperature", "task.horizon=0", "task.length=20", "task.batch_size=2",
    )  # fmt: skip
    lines = (tmp_path / "log.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "log.csv").write_text("\n".join(line.partition(",")[2] for line in lines), encoding="utf-8")
    assert len(predict(run, tmp_path / "out.csv", checkpoint="last", other_data=True)["row"]) > 0
    with pytest.raises(
        ValueError, match=r"the changed data must have targets, got none in the test part; use predict\.py"
    ):
        evaluate(run, checkpoint="last", other_data=True)
