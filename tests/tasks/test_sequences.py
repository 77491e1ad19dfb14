"""Sequences of different lengths in users' files, checked against the files' contents."""

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from bptt.tasks import SPLITS
from bptt.tasks.buckets import bucketed
from bptt.tasks.sequence_targets import ClassTargets
from bptt.tasks.sequences import Sequences

NUMBER = 40
Arrays = list[np.ndarray]


@pytest.fixture
def arrays() -> Arrays:
    """Sequences (T, 2) that all differ, of 1 to 12 timesteps."""
    source = np.random.default_rng(0)
    return [source.normal(3, 2, (1 + number * 7 % 12, 2)) for number in range(NUMBER)]


LABELS = ["abc"[number % 3] for number in range(NUMBER)]


def long_table(arrays: Arrays, labels: list[Any], **more: Any) -> pl.DataFrame:
    sizes = [len(each) for each in arrays]
    columns = {name: np.repeat(np.array(each), sizes) for name, each in {"label": labels, **more}.items()}
    whole = np.concatenate(arrays)
    return pl.DataFrame({"id": np.repeat(np.arange(len(arrays)), sizes), "u": whole[:, 0], "v": whole[:, 1], **columns})


def csv(folder: Path, arrays: Arrays) -> dict[str, Any]:
    long_table(arrays, LABELS).write_csv(folder / "data.csv")
    return {"path": str(folder / "data.csv"), "sequence": "id", "targets": "label"}


def lists(folder: Path, arrays: Arrays) -> dict[str, Any]:
    columns = {"u": [each[:, 0] for each in arrays], "v": [each[:, 1] for each in arrays], "label": LABELS}
    pl.DataFrame(columns).write_parquet(folder / "data.parquet")
    return {"path": str(folder / "data.parquet"), "targets": "label"}


def with_offsets(folder: Path, arrays: Arrays) -> dict[str, Any]:
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in arrays])])
    np.savez(folder / "data.npz", x=np.concatenate(arrays), offsets=offsets, y=np.array(LABELS))
    return {"path": str(folder / "data.npz")}


def objects(folder: Path, arrays: Arrays) -> dict[str, Any]:
    x = np.empty(len(arrays), dtype=object)
    x[:] = arrays
    np.savez_compressed(folder / "data.npz", x=x, y=np.array(LABELS))
    return {"path": str(folder / "data.npz")}


def padded(folder: Path, arrays: Arrays) -> dict[str, Any]:
    x, sizes = np.zeros((len(arrays), 12, 2)), [len(each) for each in arrays]
    for number, each in enumerate(arrays):
        x[number, : len(each)] = each
    np.savez(folder / "data.npz", x=x, lengths=sizes, y=np.array(LABELS))
    return {"path": str(folder / "data.npz")}


def folders(folder: Path, arrays: Arrays) -> dict[str, Any]:
    for number, (each, label) in enumerate(zip(arrays, LABELS)):
        (folder / "data" / label).mkdir(parents=True, exist_ok=True)
        np.save(folder / "data" / label / f"{number:02}.npy", each)
    return {"path": str(folder / "data")}


def channels_first(folder: Path, arrays: Arrays) -> dict[str, Any]:
    """The layout of aeon and sktime."""
    x = np.empty(len(arrays), dtype=object)
    x[:] = [each.T for each in arrays]
    np.savez(folder / "data.npz", X=x, y=np.array(LABELS))
    return {"path": str(folder / "data.npz"), "channels_first": True}


HEADER = "# a comment\n\n@problemName Walks\n@timeStamps false\n@dimensions 2\n@classLabel true a b c\n@data\n"


def ts(folder: Path, arrays: Arrays, labels: list[str] = LABELS) -> dict[str, Any]:
    lines = [":".join(",".join(map(str, row)) for row in each.T) + f":{name}" for each, name in zip(arrays, labels)]
    (folder / "data.ts").write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    return {"path": str(folder / "data.ts")}


def read_back(task: Sequences) -> dict[Any, tuple[np.ndarray, Any]]:
    """Every sequence in its own units, and its target, by what the batches hold."""
    found: dict[Any, tuple[np.ndarray, Any]] = {}
    for split in SPLITS:
        for index in range(task.num_batches(split)):
            batch = task.batch(split, index)
            for place, number in enumerate(task._chosen(split, index).tolist()):
                if number < 0:
                    assert batch.mask is not None
                    assert not batch.mask[:, place].any()
                    continue
                size = int(task.lengths[number])
                assert batch.mask is not None
                assert batch.mask[:, place].nonzero().flatten().tolist() == [size - 1]
                assert not batch.inputs[size:, place].any()
                values = task.statistics.undo(batch.inputs[:size, place].double().numpy())
                found[task.ids[number]] = values, task.targets.classes[int(batch.targets[size - 1, place])]
    return found


@pytest.mark.parametrize("form", [csv, lists, with_offsets, objects, padded, folders, channels_first, ts])
def test_every_form_holds_the_same_sequences(
    tmp_path: Path, arrays: Arrays, form: Callable[[Path, Arrays], dict[str, Any]]
) -> None:
    """Whichever way they are written; validation and test see each sequence once, training what fills batches."""
    task = Sequences(**form(tmp_path, arrays), batch_size=4)
    found = read_back(task)
    parts = {split: len(task._members[split]) for split in SPLITS}
    assert parts == {"train": 28, "validation": 6, "test": 6}
    assert len(found) == NUMBER
    for name, (values, label) in found.items():
        number = int(Path(name).stem) if form is folders else int(name)
        np.testing.assert_allclose(values, arrays[number], rtol=1e-5, atol=1e-5)
        assert label == LABELS[number]
    assert (task.input_size, task.output_size, task.length) == (2, 3, 12)
    train = np.concatenate([task._apart(task._inputs.numpy())[number] for number in task._members["train"]])
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-5)


@given(st.lists(st.integers(1, 1000), min_size=64, max_size=300), st.integers(0, 99))
def test_buckets_hold_each_sequence_once_and_little_padding(lengths: list[int], seed: int) -> None:
    sizes = torch.tensor(lengths)
    train = bucketed(sizes, 8, torch.Generator().manual_seed(seed))
    assert len(train.unique()) == train.numel() == len(lengths) // 8 * 8
    every = bucketed(sizes, 8, None)
    assert sorted(every[every >= 0].tolist()) == list(range(len(lengths)))


def test_padding_is_under_a_fifth_and_every_epoch_is_new() -> None:
    lengths = torch.randint(10, 1000, (1000,))
    epochs = [bucketed(lengths, 16, torch.Generator().manual_seed(seed)) for seed in range(3)]
    for epoch in epochs:
        longest = lengths[epoch].amax(1)
        assert float(lengths[epoch].sum() / (longest * 16).sum()) > 0.8
    assert not torch.equal(epochs[0], epochs[1])
    assert {frozenset(batch) for batch in epochs[0].tolist()} != {frozenset(batch) for batch in epochs[1].tolist()}


def test_training_order_follows_from_the_seed_and_the_epoch(tmp_path: Path, arrays: Arrays) -> None:
    words = csv(tmp_path, arrays)
    one, same, other = (Sequences(**words, batch_size=4, seed=seed) for seed in (1, 1, 2))
    epoch = [[one._chosen("train", number * 7 + index).tolist() for index in range(7)] for number in range(2)]
    assert epoch[0] != epoch[1]
    assert epoch[0] == [same._chosen("train", index).tolist() for index in range(7)]
    assert epoch[0] != [other._chosen("train", index).tolist() for index in range(7)]
    assert (one._members["test"] == other._members["test"]).all(), "the parts do not depend on the seed"


def test_targets_at_every_step_with_gaps(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [1] * 4 + [2] * 3, "x": [1.0, 2, None, 4, None, 6, 8], "y": [0, 1, None, 1, 0, 0, 1]})
    frame.write_csv(tmp_path / "data.csv")
    task = Sequences(
        path=str(tmp_path / "data.csv"), sequence="id", targets="y", every_step=True, batch_size=2, fractions=(1, 0, 0)
    )
    batch = task.batch("train", 0)
    place = task._chosen("train", 0).tolist().index(0)
    assert batch.mask is not None
    assert batch.mask[:, place].tolist() == [True, True, False, True]
    assert batch.mask[:, 1 - place].tolist() == [True, True, True, False]
    assert batch.targets[[0, 1, 3], place].tolist() == [0, 1, 1]
    assert batch.inputs[2, place] == batch.inputs[1, place], "carried forward"
    assert batch.inputs[0, 1 - place] == 0, "not from the other sequence"


@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_several_labels_or_numbers(tmp_path: Path, arrays: Arrays, kind: Any) -> None:
    first, second = [number % 2 for number in range(NUMBER)], [float(number // 3 % 2) for number in range(NUMBER)]
    if kind == "numbers":
        second = [1e3 + number for number in range(NUMBER)]
    long_table(arrays, first, other=second).write_csv(tmp_path / "data.csv")
    path = str(tmp_path / "data.csv")
    task = Sequences(path=path, sequence="id", targets=["label", "other"], kind=kind, batch_size=4)
    assert task.output_size == 2
    for split in SPLITS:
        batch = task.batch(split, 0)
        table = task.tabulate(batch.targets.clone(), split, 0)
        for number, one, two in zip(table["sequence"], table["label"], table["other"]):
            assert (one, two) == pytest.approx((first[number], second[number]))
        if kind == "numbers":
            assert table["other predicted"] == pytest.approx(table["other"])
            metric = task.metrics()["mae"]
            metric.update(batch.inside(batch.targets) + 1, batch.inside(batch.targets))
            assert float(metric.compute()) == pytest.approx(task.targets.scale.deviation.mean(), rel=1e-5)


@pytest.mark.parametrize("kind", ["labels", "numbers"])
@pytest.mark.parametrize("every_step", [False, True])
def test_a_target_that_is_missing_beside_another_is_left_out_alone(tmp_path: Path, kind: Any, every_step: bool) -> None:
    """In losses, metrics and tables; both were left out. Oracles are loops over the known values."""
    numbers = np.random.default_rng(2)
    rows = [(number, step) for number in range(12) for step in range(3)]
    drawn = numbers.normal(3, 2, (len(rows), 2)) if kind == "numbers" else numbers.integers(0, 2, (len(rows), 2)) * 1.0
    known = numbers.random((len(rows), 2)) < 0.6
    if not every_step:
        drawn, known = drawn[::3].repeat(3, 0), known[::3].repeat(3, 0)
    texts = [[str(value) if there else "" for value, there in zip(*each)] for each in zip(drawn, known)]
    lines = [f"{number},{step % 2},{a},{b}" for (number, step), (a, b) in zip(rows, texts)]
    (tmp_path / "log.csv").write_text("\n".join(["id,x,a,b", *lines]), encoding="utf-8")
    words: dict[str, Any] = {"sequence": "id", "targets": ["a", "b"], "kind": kind, "every_step": every_step}
    task = Sequences(path=str(tmp_path / "log.csv"), **words, batch_size=12, fractions=(1, 0, 0))
    batch = task.batch("train", 0)
    predictions = torch.randn(3, 12, 2, dtype=torch.float64)
    due = {(number, step): place for place, (number, step) in enumerate(rows) if every_step or step == 2}
    chosen = task._chosen("train", 0).tolist()
    loss, count, right, squares, values = 0.0, 0, 0, [], 0
    scaled = task.targets.scale.apply(drawn.astype(np.float64))
    for (number, step), place in due.items():
        made = predictions[step, chosen.index(number)]
        if known[place].any():
            count += 1
        for target in (0, 1):
            if known[place, target]:
                values += 1
                if kind == "labels":
                    sign = 1 if drawn[place, target] else -1
                    loss += math.log1p(math.exp(-sign * float(made[target])))
                    right += (float(made[target]) > 0) == (sign > 0)
                else:
                    error = float(made[target]) - scaled[place, target]
                    loss += error**2
                    squares.append((error * task.targets.scale.deviation[target]) ** 2)
    assert float(task.loss(predictions, batch)) == pytest.approx(loss / count, rel=1e-5)
    metrics = task.metrics()
    name, expected = ("accuracy", right / values) if kind == "labels" else ("mse", np.mean(squares or [0]))
    metrics[name].update(batch.inside(predictions.float()), batch.inside(batch.targets))
    assert float(metrics[name].compute()) == pytest.approx(expected, rel=1e-4)
    if kind == "numbers":
        of_due = [drawn[list(due.values()), target][known[list(due.values()), target]] for target in (0, 1)]
        np.testing.assert_allclose(task.targets.scale.mean, [each.mean() for each in of_due])
    table = task.tabulate(predictions.float(), "train", 0)
    steps = table.get("timestep", [2] * len(table["a"]))
    for number, step, *found in zip(table["sequence"], steps, table["a"], table["b"]):
        place = due[number, step]
        assert [each is not None for each in found] == known[place].tolist()
        cells = [each for each in found if each is not None]
        assert cells == pytest.approx(drawn[place][known[place]].tolist(), rel=1e-5)


def test_class_weights(tmp_path: Path, arrays: Arrays) -> None:
    """Balanced: 1 on average over the training sequences, and the same in sum for each class."""
    labels = ["rare" if number % 5 == 0 else "usual" for number in range(NUMBER)]
    long_table(arrays, labels).write_csv(tmp_path / "data.csv")
    words: dict[str, Any] = {"path": str(tmp_path / "data.csv"), "sequence": "id", "targets": "label", "batch_size": 4}
    task, plain = Sequences(**words, class_weights="balanced"), Sequences(**words)
    assert isinstance(task.targets, ClassTargets)
    train = [task.targets.classes.index(labels[number]) for number in task._members["train"]]
    assert task.targets.weights is not None
    assert float(task.targets.weights[train].mean()) == pytest.approx(1)
    sums = [float(task.targets.weights[number]) * train.count(number) for number in range(2)]
    assert sums[0] == pytest.approx(sums[1])
    predictions, targets = torch.randn(1, 2, 2), torch.tensor([[0, 1]])
    expected = plain.errors(predictions, targets) * task.targets.weights
    torch.testing.assert_close(task.errors(predictions, targets), expected)
    with pytest.raises(ValueError, match="factors, not all 0"):
        Sequences(**words, class_weights=[0, 0])
    weighted = Sequences(**words, class_weights=[1, 2.5])
    torch.testing.assert_close(
        weighted.errors(predictions, targets)[0, 1], 2.5 * plain.errors(predictions, targets)[0, 1]
    )


def test_another_file_by_the_encoding_of_a_task(tmp_path: Path, arrays: Arrays) -> None:
    """Sequences without targets get predictions, in the classes and by the statistics of the first file."""
    first = Sequences(**csv(tmp_path, arrays), batch_size=4)
    long_table(arrays[:5], LABELS[:5]).with_columns(label=None).write_csv(tmp_path / "new.csv")
    second = Sequences(
        path=str(tmp_path / "new.csv"), sequence="id", targets="label", batch_size=1, encoding=first.encoding
    )
    assert [second.num_batches(split) for split in SPLITS] == [0, 0, 5]
    assert second.targets.classes == ["a", "b", "c"]
    table = second.tabulate(
        torch.tensor([0.0, 2.0, 0.0]).expand(second.batch("test", 0).num_timesteps, 1, 3), "test", 0
    )
    assert (table["label predicted"], table["label"]) == (["b"], [None])
    np.testing.assert_allclose(second.statistics.mean, first.statistics.mean)


def without_targets(path: Path) -> Path:
    """The same file or folder without its targets."""
    new = path.with_name(f"new{path.suffix}")
    if path.is_dir():
        new.mkdir()
        for file in path.rglob("*.npy"):
            (new / file.name).write_bytes(file.read_bytes())
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=True) as arrays:
            np.savez(new, **{name: array for name, array in arrays.items() if name != "y"})
    elif path.suffix == ".ts":
        lines = path.read_text(encoding="utf-8").replace("@classLabel true a b c", "@classLabel false").splitlines()
        new.write_text("\n".join(re.sub(":[abc]$", "", line) for line in lines), encoding="utf-8")
    elif path.suffix == ".csv":
        pl.read_csv(path).drop("label").write_csv(new)
    else:
        pl.read_parquet(path).drop("label").write_parquet(new)
    return new


@pytest.mark.parametrize("form", [csv, lists, with_offsets, objects, padded, folders, channels_first, ts])
def test_a_file_to_predict_need_not_hold_targets(
    tmp_path: Path, arrays: Arrays, form: Callable[[Path, Arrays], dict[str, Any]]
) -> None:
    words = form(tmp_path, arrays)
    first = Sequences(**words, batch_size=4)
    words["path"] = without_targets(Path(words["path"]))
    second = Sequences(**words, batch_size=4, encoding=first.encoding)
    assert len(second.lengths) == NUMBER
    assert not second.targets.present.any()
    assert second.targets.columns == first.targets.columns
    found = sorted(map(np.ndarray.tolist, second._apart(second._inputs.numpy())))
    assert found == sorted(map(np.ndarray.tolist, first._apart(first._inputs.numpy())))
    with pytest.raises(ValueError, match=r"label|targets|'y'"):
        Sequences(**words, batch_size=4)


def test_one_file_of_a_folder_is_one_sequence_to_predict(tmp_path: Path, arrays: Arrays) -> None:
    words: dict[str, Any] = {**folders(tmp_path, arrays), "batch_size": 1}
    encoding = Sequences(**words).encoding
    np.save(tmp_path / "one.npy", arrays[3])
    single = Sequences(**words | {"path": tmp_path / "one.npy"}, encoding=encoding)
    assert (single.ids, single.lengths.tolist()) == (["one.npy"], [len(arrays[3])])
    (tmp_path / "new" / "d").mkdir(parents=True)
    np.save(tmp_path / "new" / "d" / "one.npy", arrays[3])
    with pytest.raises(ValueError, match=r"got 'd'; leave out .* labels: an empty field, a file in no subfolder"):
        Sequences(**words | {"path": tmp_path / "new"}, encoding=encoding)
    other = Sequences(**csv(tmp_path, arrays), batch_size=1).encoding
    with pytest.raises(ValueError, match=r"task.path must be a file \.npz"):
        Sequences(**words | {"path": tmp_path / "one.npy"}, encoding=other)


def test_every_timestep_is_predicted_from_a_file_of_another_form(tmp_path: Path, arrays: Arrays) -> None:
    """The run says whether targets belong to timesteps, and its classes what a folder called train is."""
    sizes = [len(each) for each in arrays]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    y = np.arange(sum(sizes)) % 2
    np.savez(tmp_path / "steps.npz", x=np.concatenate(arrays), offsets=offsets, y=y)
    words: dict[str, Any] = {"batch_size": 1, "every_step": True}
    encoding = Sequences(path=str(tmp_path / "steps.npz"), **words).encoding
    (tmp_path / "new").mkdir()
    np.save(tmp_path / "new" / "one.npy", arrays[3])
    other = Sequences(path=str(tmp_path / "new"), **words, encoding=encoding)
    assert len(other.tabulate(torch.zeros(len(arrays[3]), 1, 2), "test", 0)["timestep"]) == len(arrays[3])

    for label in ("bus", "train"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            np.save(tmp_path / "data" / label / f"{number}.npy", arrays[number])
    encoding = Sequences(path=str(tmp_path / "data"), batch_size=1).encoding
    shutil.rmtree(tmp_path / "data" / "bus")
    other = Sequences(path=str(tmp_path / "data"), batch_size=1, encoding=encoding)
    assert other.targets.present.all()
    np.savez(tmp_path / "several.npz", x=np.concatenate(arrays), offsets=offsets)
    several = Sequences(path=str(tmp_path / "several.npz"), batch_size=1, encoding=encoding)
    assert len(several.lengths) == NUMBER
    np.savez(tmp_path / "one.npz", x=arrays[3])
    assert Sequences(path=str(tmp_path / "one.npz"), batch_size=1, encoding=encoding).lengths.tolist() == [
        len(arrays[3])
    ]
    for part in SPLITS:
        (tmp_path / "unlabelled" / part).mkdir(parents=True)
        np.save(tmp_path / "unlabelled" / part / "0.npy", arrays[3])
        (tmp_path / "parts" / part / "bus").mkdir(parents=True)
        np.save(tmp_path / "parts" / part / "bus" / "0.npy", arrays[3])
    assert Sequences(path=str(tmp_path / "parts"), batch_size=1, encoding=encoding).targets.present.all()
    assert not Sequences(path=str(tmp_path / "unlabelled"), batch_size=1, encoding=encoding).targets.present.any()


@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_columns_of_targets_that_a_file_to_predict_lacks(tmp_path: Path, kind: Any) -> None:
    """At every timestep, in lists and in arrays with several targets; those that it has are known."""
    source = np.random.default_rng(0)
    x, y = source.normal(size=(12, 5, 1)), source.integers(0, 2, (12, 5, 2))
    pl.DataFrame({"x": list(x[..., 0]), "a": list(y[..., 0]), "b": list(y[..., 1])}).write_parquet(
        tmp_path / "lists.parquet"
    )
    pl.DataFrame({"x": list(x[..., 0]), "a": list(y[..., 0])}).write_parquet(tmp_path / "new.parquet")
    np.savez(tmp_path / "arrays.npz", x=x, y=y)
    np.savez(tmp_path / "new.npz", x=x)
    for old, new, more in (
        ("lists.parquet", "new.parquet", {"targets": ["a", "b"]}),
        ("arrays.npz", "new.npz", {"every_step": True}),
    ):
        words: dict[str, Any] = {"kind": kind, "batch_size": 2, "fractions": [0.5, 0.25, 0.25], **more}
        first = Sequences(path=str(tmp_path / old), **words)
        second = Sequences(path=str(tmp_path / new), **words, encoding=first.encoding)
        assert second.every_step
        assert second.targets.columns == first.targets.columns
        assert bool(second.targets.present.all()) == (new == "new.parquet")
        table = second.tabulate(torch.zeros(5, 2, 2), "test", 0)
        assert len(table["timestep"]) == 10
        assert set(table[first.targets.columns[-1]]) == {None}
        assert (set(table[first.targets.columns[-2]]) == {None}) == (new == "new.npz")


def test_another_array_with_more_channels_is_refused(tmp_path: Path) -> None:
    """Columns of arrays have no names, so the first ones need not be those of the training data."""
    for name, size in (("two", 2), ("three", 3)):
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((8, 5, size)), y=np.arange(8) % 2)
    words: dict[str, Any] = {"batch_size": 1, "fractions": [0.5, 0.25, 0.25]}
    encoding = Sequences(path=str(tmp_path / "two.npz"), **words, inputs=["1"]).encoding
    assert Sequences(path=str(tmp_path / "two.npz"), **words, encoding=encoding).input_size == 1
    with pytest.raises(ValueError, match="the data must be in 2 columns, as in training, got 3; their order"):
        Sequences(path=str(tmp_path / "three.npz"), **words, encoding=encoding)


def test_split_by_a_column_and_by_folders(tmp_path: Path, arrays: Arrays) -> None:
    parts = [SPLITS[number // 3 % 3] for number in range(NUMBER)]
    long_table(arrays, LABELS, part=parts).write_csv(tmp_path / "data.csv")
    path = str(tmp_path / "data.csv")
    task = Sequences(path=path, sequence="id", targets="label", split="part", batch_size=4, inputs=["u"])
    assert {split: [int(task.ids[number]) // 3 % 3 for number in task._members[split]] for split in SPLITS} == {
        split: [place] * len(task._members[split]) for place, split in enumerate(SPLITS)
    }
    for number, (each, label, part) in enumerate(zip(arrays, reversed(LABELS), parts)):
        (tmp_path / "data" / part / label).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "data" / part / label / f"{number:02}.npy", each)
    assert len(Sequences(path=str(tmp_path / "data"), batch_size=4)._members["validation"]) == 13


def test_a_file_of_its_own_for_the_test_part(tmp_path: Path, arrays: Arrays) -> None:
    """All of it, under its own names; the first file is divided into train and validation."""
    (tmp_path / "second").mkdir()
    words = ts(tmp_path, arrays) | {"test_path": ts(tmp_path / "second", arrays[:7])["path"]}
    task = Sequences(**words, batch_size=4)
    members = task._members
    assert [len(members[split]) for split in SPLITS] == [33, 7, 7]
    assert sorted([*members["train"], *members["validation"]]) == list(range(NUMBER))
    assert [task.ids[number] for number in members["test"]] == list(range(7))
    found = {name: values for name, (values, _) in read_back(task).items()}
    np.testing.assert_allclose(found[3], arrays[3], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"task.test_path must be a file with the columns \['sequence', '0', '1'"):
        Sequences(
            **words | {"test_path": ts(tmp_path / "second", [each[:, :1] for each in arrays])["path"]}, batch_size=4
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2:a\n", "line 1 is before @data"),
        (HEADER.replace("@timeStamps false", "@timeStamps true"), "a .ts file without time stamps"),
        (HEADER, "it has no sequences after @data"),
        (
            HEADER.replace("@classLabel true a b c", "@classLabel false") + "1,2\n",
            "whose labels are the targets, .* none",
        ),
        (HEADER + "1,2:a\n1,2:3,4:b\n", r"one number of dimensions, got \[1, 2\]"),
        (HEADER + "1,2:3,4:a\n1,2:3,x:b\n", "line 9: could not convert string to float: 'x'"),
        (HEADER + "1,2:3:a\n", "equally many in each dimension, .* line 8"),
        (HEADER + "a\n", "line 8: a label without values"),
    ],
)
def test_ts_files_that_cannot_be_read(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "data.ts"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as refused:
        Sequences(path=str(path), batch_size=1)
    assert "\n" not in str(refused.value)


def test_numbers_as_labels_of_a_ts_file(tmp_path: Path, arrays: Arrays) -> None:
    words = ts(tmp_path, arrays, [str(number + 0.5) for number in range(NUMBER)])
    task = Sequences(**words, kind="numbers", batch_size=4)
    assert sorted(np.unique(task.targets.scale.undo(task.targets.values.double().numpy())).round(4)) == [
        number + 0.5 for number in range(NUMBER)
    ]
    assert Sequences(**ts(tmp_path, arrays, ["1", "10", "2"] * 14), batch_size=4).targets.classes == [1, 2, 10]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "\ufeff# a comment"),
        ("# a comment\n\n", "\ufeff"),
        ("@classLabel true a b", "@classLabel\ttrue\ta\tb"),
    ],
)
def test_headers_of_ts_files(tmp_path: Path, arrays: Arrays, old: str, new: str) -> None:
    words = ts(tmp_path, arrays)
    content = Path(words["path"]).read_text(encoding="utf-8")
    assert old in content
    Path(words["path"]).write_text(content.replace(old, new), encoding="utf-8")
    assert Sequences(**words, batch_size=4).targets.classes == sorted(set(LABELS))


BASE = {"id": [row // 3 for row in range(60)], "x": [float(row) for row in range(60)]}
HALF = [row // 3 % 2 for row in range(60)]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"y": HALF}, {"sequence": None}, "task.sequence must be a column of the table, got None"),
        ({"y": HALF}, {"sequence": "z"}, "task.sequence must be a column of the file"),
        ({"y": HALF}, {"targets": None}, "task.targets must be columns of the file, got None"),
        ({"y": HALF}, {"targets": "z"}, r"task.targets or split must be a column of the file \(id, x, y\), got 'z'"),
        ({"y": HALF}, {"inputs": "z"}, "task.inputs must be a column of the file"),
        ({"y": HALF}, {"batch_size": 15}, "the train part of .* must have 15 sequences or more, got 14 of 20"),
        ({"y": HALF}, {"fractions": (0.97, 0.02, 0.01)}, "the test part .* must have 1 sequences or more, got 0"),
        ({"y": HALF}, {"class_weights": [1.0]}, r"class_weights must be balanced, or a list of 2 .* \[0, 1\]"),
        ({"y": HALF}, {"class_weights": "heavy"}, "class_weights must be balanced"),
        ({"y": HALF}, {"kind": "colours"}, "kind must be classes or labels or numbers"),
        ({"y": [1] * 60}, {}, r"a column with 2 classes in the training part, got \[1\]"),
        (
            {"y": [row % 2 for row in range(60)]},
            {},
            "must have one value in each sequence, got several in 0; .*every_step",
        ),
        ({"y": [row // 3 for row in range(60)]}, {}, "labels must be among those of the training part, got"),
        ({"y": [2.5] * 60}, {"kind": "numbers"}, "target 'y' must vary in the training part"),
        ({"y": [2] * 60}, {"kind": "labels"}, "columns of 0 and 1 for kind=labels, got 2.0"),
        ({"y": HALF, "x": [None] * 60}, {}, "column 'x' must have values in the training part, got none"),
        ({"y": HALF, "x": [float("-inf")] * 60}, {}, "column 'x' must hold finite numbers, got -inf in row 1"),
        ({"y": HALF, "part": ["dev"] * 60}, {"split": "part"}, "must be train, validation or test, got 'dev'"),
        (
            {"y": HALF, "part": ["train", "train", "test"] * 20},
            {"split": "part"},
            "column 'part' must have one value in each sequence, got several in 0; a sequence belongs to one part",
        ),
        ({"y": HALF}, {"inputs": ["x", "y"]}, r"task.inputs must be columns that are no targets, got \['y'\]"),
        ({"y": HALF, "x": [1e300, 3e300] * 30}, {}, "column 'x' must hold numbers whose squares are finite"),
        ({"y": [1e300 * half for half in HALF]}, {"kind": "numbers"}, "column 'y' must hold numbers whose squares"),
        ({"y": [*["1"] * 57, *["?!"] * 3]}, {"kind": "numbers"}, "column 'y' must be numbers, .*'1' beside '\\?!'"),
        ({"y": HALF, "id": [1 + row // 3 / 10 for row in range(60)]}, {}, "as 1.1 and 1.10 are the same, got 1.1"),
        ({"y": HALF, "id": [None, *[1] * 59]}, {}, "must name a sequence in every row, got none in row 1"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    pl.DataFrame(BASE | columns).write_csv(tmp_path / "data.csv")
    words = {"path": str(tmp_path / "data.csv"), "sequence": "id", "targets": "y", "batch_size": 2, **options}
    with pytest.raises(ValueError, match=message) as refused:
        Sequences(**words)
    assert "\n" not in str(refused.value)


X = np.zeros((6, 2))


def objects_of(*arrays: np.ndarray) -> np.ndarray:
    found = np.empty(len(arrays), dtype=object)
    found[:] = arrays
    return found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"y": np.zeros(3)}, "an .npz file with an array 'x'"),
        ({"x": X}, "an .npz file with an array 'y'"),
        ({"x": X, "y": np.zeros(6)}, "x is one array of all timesteps; add offsets"),
        (
            {"x": objects_of(np.zeros((2, 3)), np.zeros((2, 4))), "y": np.zeros(2)},
            "with one D, got .*channels_first=true",
        ),
        ({"x": X, "y": np.zeros(2), "lengths": [3, 4]}, "got 6 timesteps and offsets 0 to 7"),
        ({"x": X, "y": np.zeros(2), "offsets": [0, 0, 6]}, "the shortest sequence 0"),
        ({"x": X, "y": np.zeros(2), "offsets": [0, 3, 7]}, "6 timesteps and offsets 0 to 7, the shortest sequence 3"),
        ({"x": X, "y": np.zeros(2), "offsets": [2, 4, 6]}, "got 6 timesteps and offsets 2 to 6"),
        ({"x": X, "y": np.zeros(2), "lengths": [2.5, 3.5]}, r"must be whole numbers \(S,\), got \[2\] of float64"),
        ({"x": X[:, None], "y": np.array(["a", 1, None] * 2, dtype=object)}, "an .npz file with labels of one type"),
        ({"x": X, "y": np.zeros(5), "lengths": [3, 3]}, r"must hold 2 values, one a sequence, got \[5\]; or set"),
    ],
)
def test_arrays_that_are_no_sequences_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "data.npz", **content)
    with pytest.raises(ValueError, match=message):
        Sequences(path=str(tmp_path / "data.npz"), batch_size=1)


@pytest.mark.parametrize("missing", [np.nan, -100])
def test_missing_labels_and_labels_in_bytes(tmp_path: Path, missing: float) -> None:
    x = np.zeros((8, 3, 2)) + np.arange(8)[:, None, None]
    np.savez(tmp_path / "gaps.npz", x=x, y=[0, 1, missing, 0, 1, missing, 1, 0])
    task = Sequences(path=str(tmp_path / "gaps.npz"), batch_size=1)
    assert task.targets.classes == [0, 1]
    assert task.targets.present.sum() == 6 * 3
    for none in (None, np.nan):
        for one, other in (("a", "b"), (0, 1)):
            np.savez(tmp_path / "objects.npz", x=x, y=np.array([one, other, none, one] * 2, dtype=object))
            task = Sequences(path=str(tmp_path / "objects.npz"), batch_size=1)
            assert task.targets.classes == [one, other]
            assert task.targets.present.sum() == 6 * 3
    np.savez(tmp_path / "negative.npz", x=x, y=[-100, -50] * 4)  # degrees, not missing
    assert Sequences(path=str(tmp_path / "negative.npz"), batch_size=1).targets.classes == [-100, -50]
    np.savez(tmp_path / "bytes.npz", x=x, y=np.array([b"one", "zwölf".encode()] * 4))
    assert Sequences(path=str(tmp_path / "bytes.npz"), batch_size=1).targets.classes == ["one", "zwölf"]


def test_sequences_of_one_length_in_objects_and_in_fixed_lists(tmp_path: Path) -> None:
    """As `np.array(list_of_sequences, dtype=object)` and Arrow's lists of a fixed size hold them."""
    x = np.arange(48.0).reshape(8, 3, 2)
    np.savez(tmp_path / "data.npz", x=x.astype(object), y=np.array([0, 1] * 4, dtype=object))
    columns = {name: pl.Series(x[..., index], dtype=pl.Array(pl.Float64, 3)) for index, name in enumerate("ab")}
    pl.DataFrame({**columns, "label": [0, 1] * 4}).write_parquet(tmp_path / "data.parquet")
    for file, targets in (("data.npz", None), ("data.parquet", "label")):
        task = Sequences(path=str(tmp_path / file), targets=targets, batch_size=1, standardise=False)
        assert task.targets.classes == [0, 1]
        rows = torch.stack([task.batch("train", each).inputs[:, 0] for each in range(task.num_batches("train"))])
        assert all(any(np.array_equal(row, each) for each in x) for row in rows)


class Harm:
    def __reduce__(self) -> Any:
        return print, ("this file ran code",)


def test_a_pickle_in_an_archive_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.empty(2, dtype=object)
    x[:] = [Harm(), Harm()]
    np.savez(tmp_path / "data.npz", x=x, y=np.zeros(2))
    with pytest.raises(ValueError, match=r"no array of numbers: builtins\.print"):
        Sequences(path=str(tmp_path / "data.npz"), batch_size=1)
    assert "ran code" not in capsys.readouterr().out


def test_lists_and_folders_that_are_no_sequences_are_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame({"u": [[1.0, 2.0], [3.0]], "v": [[1.0], [3.0]], "y": [0, 1]})
    frame.write_parquet(tmp_path / "ragged.parquet")
    with pytest.raises(ValueError, match=r"lists of a row must have one length .*, got 1 in 'v' and 2 in 'u' of row 1"):
        Sequences(path=str(tmp_path / "ragged.parquet"), targets="y", batch_size=1)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="it has none"):
        Sequences(path=str(tmp_path / "folder"), batch_size=1)
    np.save(tmp_path / "folder" / "one.npy", np.zeros((3, 2)))
    with pytest.raises(ValueError, match=re.escape("one.npy lies in none; or name a column")):
        Sequences(path=str(tmp_path / "folder"), batch_size=1)
    (tmp_path / "folder" / "a").mkdir()
    (tmp_path / "folder" / "one.npy").rename(tmp_path / "folder" / "a" / "one.npy")
    np.save(tmp_path / "folder" / "a" / "two.npy", np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"must have the same columns, got \['0', '1', '2'\] in a/two.npy"):
        Sequences(path=str(tmp_path / "folder"), batch_size=1)


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ({"x": X, "y": [0, 1], "lengths": [3, 3], "part": X}, {"split": "part"}, r"part of .* must hold 2 values, got"),
        ({"x": X, "y": [0, 1], "lengths": [3, 3]}, {"sequence": "y"}, "task.sequence must be null, except for a table"),
        ({}, {}, "an .npz file with an array 'x'"),
        ({"x": np.zeros((0, 5, 2)), "y": []}, {}, "task.path must be an .npz file with sequences, got"),
    ],
)
def test_settings_that_arrays_do_not_have(
    tmp_path: Path, content: dict[str, Any], words: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "data.npz", **content)
    with pytest.raises(ValueError, match=message):
        Sequences(path=str(tmp_path / "data.npz"), batch_size=1, **words)


def test_a_file_of_a_folder_without_a_timestep_is_named(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(8):
            rows = "" if (label, number) == ("b", 3) else "1\n2\n"
            (tmp_path / label / f"{number}.csv").write_text(f"v\n{rows}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"3\.csv"):
        Sequences(path=str(tmp_path), batch_size=1)


def test_a_sound_without_samples_is_named(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(3):
            samples = np.zeros((0 if (label, number) == ("b", 1) else 20, 1))
            soundfile.write(tmp_path / label / f"{number}.wav", samples, 8000)
    with pytest.raises(ValueError, match=r"must hold a timestep or more, got none in b/1\.wav"):
        Sequences(path=str(tmp_path), batch_size=1)


def test_sounds_have_one_rate(tmp_path: Path) -> None:
    """A timestep would be another time."""
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            sound = np.sin(np.arange(50 + number))
            soundfile.write(tmp_path / "data" / label / f"{number}.wav", sound, 8000, subtype="FLOAT")
    words: dict[str, Any] = {"path": str(tmp_path / "data"), "batch_size": 1}
    encoding = Sequences(**words).encoding
    soundfile.write(tmp_path / "one.wav", np.sin(np.arange(50)), 16000, subtype="FLOAT")
    message = "the data must be sounds of 8000 samples a second, as in training, got 16000; resample them"
    with pytest.raises(ValueError, match=message):
        Sequences(**words | {"path": str(tmp_path / "one.wav")}, encoding=encoding)
    (tmp_path / "one.wav").rename(tmp_path / "data" / "b" / "9.wav")
    with pytest.raises(ValueError, match=r"one number of samples a second, got 16000 beside 8000 in b/9\.wav"):
        Sequences(**words)


def test_a_test_part_of_sounds_has_the_rate_of_training(tmp_path: Path) -> None:
    for name, rate in (("one", 8000), ("two", 16000)):
        for label in "ab":
            (tmp_path / name / label).mkdir(parents=True)
            for number in range(4):
                path = tmp_path / name / label / f"{number}.wav"
                soundfile.write(path, np.sin(np.arange(50 + number)), rate, subtype="FLOAT")
    words: dict[str, Any] = {"path": str(tmp_path / "one"), "batch_size": 1}
    with pytest.raises(ValueError, match=r"task\.test_path must be sounds of 8000 samples a second.* got 16000"):
        Sequences(**words, test_path=str(tmp_path / "two"))
    encoding = Sequences(**words).encoding
    pl.DataFrame({"0": [[0.1, 0.2], [0.3]]}).write_parquet(tmp_path / "lists.parquet")
    assert Sequences(**words | {"path": str(tmp_path / "lists.parquet")}, encoding=encoding).lengths.tolist() == [2, 1]


@pytest.mark.parametrize("kind", [pl.List(pl.Float32), pl.Array(pl.Float32, 3)])
def test_a_vector_beside_the_numbers_of_a_timestep(tmp_path: Path, kind: Any) -> None:
    """As in recordings of robots. Each of its numbers was taken for a timestep, even if it was left out."""
    vectors = pl.Series([[float(row), 1.0, 2.0] for row in range(40)], dtype=kind)
    columns = {
        "episode": [row // 5 for row in range(40)],
        "action": range(40),
        "success": [row // 5 % 2 for row in range(40)],
    }
    pl.DataFrame({**columns, "state": vectors}).write_parquet(tmp_path / "robot.parquet")
    words: dict[str, Any] = {"sequence": "episode", "targets": "success", "batch_size": 2}
    with pytest.raises(
        ValueError, match=r"column 'state' must be numbers or texts, as each row .* task\.leave_out=\[state\]"
    ):
        Sequences(path=str(tmp_path / "robot.parquet"), **words)
    task = Sequences(path=str(tmp_path / "robot.parquet"), **words, leave_out=["state"])
    assert (task.lengths.tolist(), task.encoding["inputs"]) == ([5] * 8, ["action"])
    (tmp_path / "marks.parquet").write_bytes((tmp_path / "robot.parquet").read_bytes())
    task = Sequences(path=str(tmp_path / "marks.parquet"), **words, leave_out=["state"], missing=[-1])
    assert task.lengths.tolist() == [5] * 8


def test_row_numbers_of_pandas_are_no_input(tmp_path: Path) -> None:
    """In a file that is sorted by class they say the class."""
    rows = [f"{row},{row // 4},{row % 3},{'ab'[row // 20]}" for row in range(40)]
    (tmp_path / "log.csv").write_text("\n".join([",id,x,label", *rows]), encoding="utf-8")
    words: dict[str, Any] = {"path": str(tmp_path / "log.csv"), "sequence": "id", "targets": "label", "batch_size": 2}
    task = Sequences(**words)
    assert task.encoding["inputs"] == ["x"]
    assert "column_1 numbers the rows, and is no input" in task.contents
    within = [f"{row % 4},{row // 4},{row % 3},{'ab'[row // 20]}" for row in range(40)]
    (tmp_path / "log.csv").write_text("\n".join([",id,x,label", *within]), encoding="utf-8")
    assert Sequences(**words).encoding["inputs"] == ["x"]
    for number in range(20):
        (tmp_path / "logs" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        lines = [",x", *(f"{row},{row % 3}" for row in range(3 + number))]
        (tmp_path / "logs" / "ab"[number % 2] / f"{number}.csv").write_text("\n".join(lines), encoding="utf-8")
    task = Sequences(path=str(tmp_path / "logs"), batch_size=2)
    assert task.encoding["inputs"] == ["x"]
    assert Sequences(**words, inputs=["column_1"]).encoding["inputs"] == ["column_1"]
    (tmp_path / "log.csv").write_text("\n".join([",id,x,label", *reversed(rows)]), encoding="utf-8")
    assert Sequences(**words).encoding["inputs"] == ["column_1", "x"]


def test_a_label_that_no_training_sequence_has(tmp_path: Path) -> None:
    rows = [
        f"{row // 2},{row},{row // 2 % 2},{'' if row < 12 else 1},{'train' if row < 12 else 'test'}"
        for row in range(20)
    ]
    (tmp_path / "log.csv").write_text("\n".join(["id,x,a,b,part", *rows]), encoding="utf-8")
    words: dict[str, Any] = {
        "sequence": "id",
        "targets": ["a", "b"],
        "kind": "labels",
        "split": "part",
        "batch_size": 2,
    }
    with pytest.raises(ValueError, match="target 'b' must have a value in the training part, got none"):
        Sequences(path=str(tmp_path / "log.csv"), **words)
