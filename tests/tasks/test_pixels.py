"""Images from IDX files, pixel by pixel; the files are written here."""

import gzip
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.idx_files import write_idx, write_images
from torch import Tensor

from bptt.tasks.base import Split
from bptt.tasks.pixels import FILES, Pixels

Written = dict[str, tuple[Tensor, Tensor]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def written(folder: Path) -> Written:
    return write_images(folder, 53, 14)


def make(folder: Path | None, **options: Any) -> Pixels:
    settings: dict[str, Any] = {"batch_size": 4, "seed": 1, "validation_images": 10, **options}
    return Pixels(path=None if folder is None else str(folder), **settings)


def epoch(task: Pixels, split: Split, number: int = 0) -> list[tuple[tuple[int, ...], int]]:
    """Each image of an epoch, its pixels in the order of the timesteps as bytes, with its class."""
    size = task.num_batches(split)
    found = []
    for index in range(number * size, (number + 1) * size):
        batch = task.batch(split, index)
        assert batch.inputs.shape == (12, 4, 1)
        assert batch.mask is not None
        assert not batch.mask[:-1].any(), "the class is due at the last timestep"
        for sequence in batch.mask[-1].nonzero().flatten().tolist():
            pixels = tuple(round(255 * float(value)) for value in batch.inputs[:, sequence, 0])
            found.append((pixels, int(batch.targets[-1, sequence])))
    return found


def listed(images: Tensor, labels: Tensor) -> list[tuple[tuple[int, ...], int]]:
    return [(tuple(image.flatten().tolist()), int(label)) for image, label in zip(images, labels)]


def test_validation_and_test_see_every_image_once(folder: Path, written: Written) -> None:
    """In their order, also where the last batch is not full: the last 10 of training, and the 14 of t10k."""
    task = make(folder)
    images, labels = written["train"]
    assert epoch(task, "validation") == listed(images[43:], labels[43:])
    assert epoch(task, "test") == listed(*written["t10k"])
    assert [task.num_batches(split) for split in ("train", "validation", "test")] == [10, 3, 4]


def test_training_sees_others_in_a_new_order_every_epoch(folder: Path, written: Written) -> None:
    images, labels = written["train"]
    allowed = set(listed(images[:43], labels[:43]))
    orders = [epoch(make(folder, seed=seed), "train", number) for seed, number in ((1, 0), (1, 1), (2, 0))]
    for order in orders:
        assert len(order) == len(set(order)) == 40, "no image twice; three of 43 are left out"
        assert set(order) <= allowed
    assert len({tuple(order) for order in orders}) == 3


def test_values_lie_between_zero_and_one(folder: Path, written: Written) -> None:
    inputs = make(folder).batch("train", 0).inputs
    assert inputs.dtype == torch.float32
    assert 0 <= float(inputs.min()) < 0.1
    assert 0.9 < float(inputs.max()) <= 1


def test_permuted_pixels_are_in_one_order(folder: Path, written: Written) -> None:
    """The same for every image, split and seed of the training; another for another permutation_seed."""
    plain = make(folder)
    orders = {}
    for name, options in {
        "one": {"seed": 1},
        "again": {"seed": 5},
        "other": {"permutation_seed": 1},
    }.items():
        task = make(folder, permuted=True, **options)
        orders[name] = task.order.tolist()
        assert sorted(orders[name]) == list(range(12))
        for split in ("validation", "test"):
            straight = epoch(plain, split)
            assert epoch(task, split) == [(tuple(pixels[k] for k in orders[name]), label) for pixels, label in straight]
    assert orders["one"] == orders["again"] != list(range(12))
    assert orders["one"] != orders["other"]


def test_compressed_files_hold_the_same(tmp_path: Path, folder: Path, written: Written) -> None:
    write_images(tmp_path / "compressed", 53, 14, suffix=".gz")
    assert epoch(make(tmp_path / "compressed"), "test") == epoch(make(folder), "test")


def test_classes_are_counted(folder: Path, written: Written) -> None:
    assert make(folder).output_size == 10
    write_idx(folder / FILES[3], torch.arange(14, dtype=torch.uint8) + 33)
    assert make(folder).output_size == 47


def test_accuracy_and_a_guess(folder: Path, written: Written) -> None:
    task = make(folder)
    batch = task.batch("test", 3)
    assert batch.weights()[-1] == 2
    guess = torch.zeros(12, 4, 10)
    assert float(task.loss(guess, batch)) == pytest.approx(math.log(10))
    guess[-1, 0, int(batch.targets[-1, 0])] = 1
    guess[-1, 1, (int(batch.targets[-1, 1]) + 1) % 10] = 1
    metric = task.metrics()["accuracy"]
    metric.update(batch.inside(guess), batch.inside(batch.targets))
    assert float(metric.compute()) == pytest.approx(0.5)


# Download.


def test_missing_files_are_fetched_and_others_are_unchanged(tmp_path: Path, folder: Path, written: Written) -> None:
    source, target = tmp_path / "mirror", tmp_path / "new" / "folder"
    write_images(source, 53, 14, suffix=".gz")
    options = {"download": True, "mirror": f"{source.as_uri()}/"}
    assert epoch(make(target, **options), "test") == epoch(make(folder), "test")
    assert sorted(path.name for path in target.iterdir()) == sorted(f"{name}.gz" for name in FILES)
    assert {path.stat().st_mode for path in target.iterdir()} == {path.stat().st_mode for path in source.iterdir()}

    own = torch.zeros(14, dtype=torch.uint8)
    write_idx(target / FILES[3], own)
    assert [label for _, label in epoch(make(target, **options), "test")] == own.tolist()


def test_a_download_that_fails_says_so(tmp_path: Path) -> None:
    address = f"{tmp_path.as_uri()}/nowhere/"
    with pytest.raises(
        ValueError, match=r"^file:.*train-images-idx3-ubyte.gz could not be fetched into .*use task=dig"
    ):
        make(tmp_path / "new", download=True, mirror=address)
    assert list((tmp_path / "new").iterdir()) == []


# Refusals.


def test_no_folder() -> None:
    with pytest.raises(ValueError, match=r"^task.path must be a folder with train-images.*, got None; .*task=digits$"):
        make(None)


@pytest.mark.parametrize("missing", FILES)
def test_a_missing_file(folder: Path, written: Written, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=rf"^task.path must be a folder with .*; {missing} is missing; .*task=digits"):
        make(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x08\0",
        b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0",  # floats
        b"\0\0\x08\x01\0\0\0\x02\0",  # a byte too few
        b"<html>not found</html>",
    ],
)
def test_what_is_no_idx_file(folder: Path, written: Written, content: bytes) -> None:
    (folder / FILES[1]).write_bytes(content)
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte must be an IDX file of bytes, got \d+ bytes beginn"):
        make(folder)


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(bytes(1000))[:-20]], ids=["plain", "cut off"])
def test_what_is_no_gzip_file(folder: Path, written: Written, content: bytes) -> None:
    (folder / FILES[1]).unlink()
    (folder / f"{FILES[1]}.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"^.*train-labels-idx1-ubyte.gz must be a readable IDX file, got an error: "):
        make(folder)


def test_files_that_do_not_fit_one_another(folder: Path, written: Written) -> None:
    write_idx(folder / FILES[3], torch.zeros(13, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"^the t10k files of .* and N labels, got \[14, 4, 3\] and \[13\]$"):
        make(folder)
    write_images(folder, 53, 14)
    write_idx(folder / FILES[2], torch.zeros(14, 3, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"must have one size, got \[4, 3\] and \[3, 3\]$"):
        make(folder)


def test_too_few_images_for_training(folder: Path, written: Written) -> None:
    with pytest.raises(
        ValueError, match=r"^task.validation_images and task.batch_size must be at most 53 images .* got 50 and 4; use "
    ):
        make(folder, validation_images=50)
    assert make(folder, validation_images=49).num_batches("train") == 1
