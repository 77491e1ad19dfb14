"""Prediction of the next byte or word, checked by putting the text together again from its batches."""

import codecs
import gzip
import math
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bptt.tasks import SPLITS
from bptt.tasks.base import Split
from bptt.tasks.text import Text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A text in which every stretch of a few bytes is nearly unique."""
    path = tmp_path / "text.txt"
    path.write_bytes(random.Random(0).randbytes(3000).translate(bytes(range(64, 128)) * 4))
    return path


def stream(task: Text, split: Split, number: int) -> tuple[Tensor, Tensor]:
    """All inputs and all targets of one stream, batch after batch."""
    batches = [task.batch(split, index) for index in range(task.num_batches(split))]
    inputs = torch.cat([batch.inputs[:, number] for batch in batches])
    targets = torch.cat([batch.targets[:, number] for batch in batches])
    return inputs, targets


def decoded(task: Text, ids: Tensor) -> list[str]:
    return [task.vocabulary[index] for index in ids.tolist()]


def streams(task: Text, split: Split) -> list[list[str]]:
    """The tokens that each stream reads: its inputs and the last target. Checks the targets on the way."""
    found = []
    for number in range(task.batch_size):
        inputs, targets = stream(task, split, number)
        assert torch.equal(inputs[1:], targets[:-1]), "each target is the next input, across batch borders too"
        found.append([*decoded(task, inputs), *decoded(task, targets[-1:])])
    return found


def test_streams_put_together_are_the_text(file: Path) -> None:
    """Each stream starts with the last token of the previous one; the splits follow by position."""
    text = file.read_bytes().decode("latin-1")
    task = Text(length=50, batch_size=4, path=str(file), fractions=(0.8, 0.15, 0.05))
    for split, (first, last) in zip(SPLITS, pairwise((0, 2400, 2850, 3000))):
        parts = streams(task, split)
        for one, following in pairwise(parts):
            assert one[-1] == following[0]
        whole = "".join([*parts[0], *("".join(part[1:]) for part in parts[1:])])
        assert text[first:last].startswith(whole)
        assert last - first - len(whole) < task.batch_size, "no more is left out than cannot be divided"


@given(size=st.integers(60, 400), batch_size=st.integers(1, 5), length=st.integers(1, 70), share=st.floats(0.2, 0.6))
def test_every_division_reads_the_text(
    tmp_path_factory: pytest.TempPathFactory, size: int, batch_size: int, length: int, share: float
) -> None:
    path = tmp_path_factory.mktemp("division") / "text"
    text = bytes(random.Random(size).choices(range(97, 123), k=size))
    path.write_bytes(text)
    fractions = [share, (1 - share) / 2, (1 - share) / 2]
    task = Text(length=length, batch_size=batch_size, path=str(path), fractions=fractions)
    borders = [round(size * sum(fractions[:index])) for index in range(4)]
    for split, first, last in zip(SPLITS, borders, borders[1:]):
        steps = (last - first - 1) // batch_size  # one token more is read than predicted
        assert task.num_batches(split) == math.ceil(steps / length)
        lengths = [task.batch(split, index).num_timesteps for index in range(task.num_batches(split))]
        assert lengths[:-1] == [length] * (len(lengths) - 1), "only the last batch may be shorter"
        assert sum(lengths) == steps
        for number, tokens in enumerate(streams(task, split)):
            origin = first + number * steps
            assert "".join(tokens) == text[origin : origin + steps + 1].decode()


def test_state_is_initial_only_at_the_first_batch_of_an_epoch(file: Path) -> None:
    task = Text(length=100, batch_size=4, path=str(file))
    epoch = task.num_batches("train")
    assert epoch > 2
    for index in range(3 * epoch):
        batch = task.batch("train", index)
        assert batch.reset is not None
        assert batch.reset.tolist() == [index % epoch == 0] * 4
        assert torch.equal(batch.inputs, task.batch("train", index % epoch).inputs)


def test_vocabulary_holds_the_bytes_that_occur(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"zebra \xff\x00" * 20)
    task = Text(length=5, batch_size=2, path=str(path))
    assert task.vocabulary == ["\x00", " ", "a", "b", "e", "r", "z", "\xff"]
    assert task.input_size == task.output_size == 8


def test_a_binary_file_with_all_bytes(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(bytes(range(256)) * 10)
    task = Text(length=300, batch_size=2, path=str(path))
    assert task.input_size == 256
    tokens = "".join(streams(task, "train")[1])
    assert tokens.encode("latin-1") in path.read_bytes()
    assert set(tokens) == {chr(byte) for byte in range(256)}


def test_a_path_below_the_home_folder(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Text(length=5, batch_size=2, path="~/text.txt").num_batches("train") > 0


def test_default_text_is_the_standard_library() -> None:
    task = Text(length=200, batch_size=8)
    first = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[0].read_bytes()
    read = "".join(decoded(task, task.batch("train", 0).inputs[:, 0]))
    assert read.encode("latin-1") == first[:200]
    assert task.num_batches("train") > 100


def test_bits_per_byte_of_a_uniform_guess(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"abcdefgh" * 20)
    task = Text(length=40, batch_size=1, path=str(path))
    metrics = task.metrics()
    assert metrics.keys() == {"bits_per_byte", "accuracy"}
    batch = task.batch("train", 0)
    guess = torch.zeros(batch.num_timesteps, 1, 8)
    assert float(task.loss(guess, batch)) == pytest.approx(math.log(8))
    metrics["bits_per_byte"].update(batch.inside(guess), batch.inside(batch.targets))
    assert float(metrics["bits_per_byte"].compute()) == pytest.approx(3)

    right = torch.nn.functional.one_hot(batch.targets.long(), 8).float()
    right[: batch.num_timesteps // 2] *= -1
    metrics["accuracy"].update(batch.inside(right), batch.inside(batch.targets))
    assert float(metrics["accuracy"].compute()) == pytest.approx(0.5)


# Words.


def words(tmp_path: Path, text: str | bytes, **options: Any) -> Text:
    path = tmp_path / "words.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    settings: dict[str, Any] = {"length": 4, "batch_size": 1, "fractions": (0.5, 0.25, 0.25)}
    return Text(path=str(path), unit="word", **{**settings, **options})


def test_words_and_ends_of_lines(tmp_path: Path) -> None:
    lines = ["the cat  sat", "", "\ton the mat"] * 8
    task = words(tmp_path, "\n".join(lines) + "\n")
    tokens = [token for line in lines for token in [*line.split(), "<eol>"]]
    size = len(tokens)
    assert streams(task, "train")[0] == tokens[: size // 2]
    assert streams(task, "validation")[0] == tokens[size // 2 : 3 * size // 4]
    assert task.vocabulary[0] == "<unk>"
    assert set(task.vocabulary[1:]) == {"the", "cat", "sat", "on", "mat", "<eol>"}


def test_a_last_line_without_end(tmp_path: Path) -> None:
    task = words(tmp_path, "a b\n" * 20 + "a b", fractions=(0.5, 0, 0.5))
    assert streams(task, "test")[0][-3:] == ["<eol>", "a", "b"]


def test_a_part_without_a_share_is_not_read(tmp_path: Path) -> None:
    task = words(tmp_path, "a b\n" * 20, fractions=(0.5, 0, 0.5))
    assert task.num_batches("validation") == 0
    with pytest.raises(ValueError, match=r"^the validation part must have text to be read, got none; use other task\."):
        task.batch("validation", 0)


def test_rare_words_are_unknown(tmp_path: Path) -> None:
    """A vocabulary of three words and <unk> has the three most frequent words."""
    line = "a a a a b b b c c rare"
    task = words(tmp_path, f"{line}\n" * 12, vocabulary_size=4)
    assert task.vocabulary == ["<unk>", "a", "b", "c"]
    assert task.input_size == task.output_size == 4
    assert "".join(streams(task, "train")[0]).startswith("aaaabbbcc<unk><unk>aaaabbb")


def test_a_vocabulary_larger_than_the_text_is_cut_to_what_occurs(tmp_path: Path) -> None:
    assert words(tmp_path, "a b c\n" * 10, vocabulary_size=10_000).input_size == 5


def test_a_text_that_spells_unknown_itself(tmp_path: Path) -> None:
    """The Penn Treebank contains "<unk>" itself."""
    task = words(tmp_path, "a <unk> b <unk> c <unk>\n" * 10)
    assert sorted(task.vocabulary) == ["<eol>", "<unk>", "a", "b", "c"]
    assert streams(task, "train")[0][:4] == ["a", "<unk>", "b", "<unk>"]


@pytest.mark.parametrize("separator", ["\n", " "], ids=["lines", "one line"])
def test_vocabulary_comes_only_from_the_training_part(tmp_path: Path, separator: str) -> None:
    """Words that occur later only, however often, are unknown; also where the whole text is one line."""
    task = words(tmp_path, separator.join(["early"] * 60 + ["late"] * 60))
    assert "early" in task.vocabulary
    assert "late" not in task.vocabulary
    assert set(streams(task, "test")[0]) <= {"<unk>", "<eol>"}


def test_vocabulary_is_ordered_by_frequency(tmp_path: Path) -> None:
    chosen = random.Random(0).choices([f"w{number}" for number in range(40)], weights=range(1, 41), k=4000)
    text = "".join(" ".join(chosen[start : start + 10]) + "\n" for start in range(0, 4000, 10))
    task = words(tmp_path, text, vocabulary_size=21)
    counts = Counter(chosen[:2000])
    kept = [counts[word] for word in task.vocabulary if word not in ("<unk>", "<eol>")]
    assert len(kept) == 19
    assert kept == sorted(counts.values(), reverse=True)[:19]


def test_perplexity_of_a_uniform_guess(tmp_path: Path) -> None:
    task = words(tmp_path, "a b c\n" * 30)
    metrics = task.metrics()
    assert metrics.keys() == {"perplexity", "accuracy"}
    batch = task.batch("train", 0)
    guess = torch.zeros(batch.num_timesteps, 1, task.output_size)
    metrics["perplexity"].update(batch.inside(guess), batch.inside(batch.targets))
    assert float(metrics["perplexity"].compute()) == pytest.approx(task.output_size)


# Refusals.


@pytest.mark.parametrize("unit", ["byte", "word"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^task.path must be a text file, got '.*text'; no such file exists$"),
        (b"", r"^task.path must be a text file, got '.*text'; the file is empty$"),
        (b"abc", r"^the train part of .* must feed 4 streams with 2 tokens or more each, got \d tokens; use a longer"),
        (b"a\nb\n" * 16, r"^the validation part of .* must feed 4 streams"),
        (b"\n", r"^the train part of .* must feed 4 streams with 2 tokens or more each, got 1 tokens; use a longer"),
    ],
)
def test_texts_that_are_refused(tmp_path: Path, unit: Any, content: bytes | None, message: str) -> None:
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Text(length=5, batch_size=4, path=str(path), unit=unit)


def test_only_white_space_has_no_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got 0 tokens; use a longer text"):
        words(tmp_path, "   ")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^task.path must be a readable text file, got '.*'; it is a folder$"):
        Text(length=5, batch_size=4, path=str(tmp_path))


@contextmanager
def as_nobody() -> Iterator[None]:
    """Drop root's permission to read every file."""
    root = os.geteuid() == 0
    if root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


@pytest.mark.parametrize("closed", ["file", "folder"])
def test_what_may_not_be_read_is_refused(closed: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "text.txt"
        path.write_text("text " * 100)
        path.chmod(0o000 if closed == "file" else 0o644)
        folder.chmod(0o000 if closed == "folder" else 0o755)
        with pytest.raises(ValueError, match=r"(?i)^task.path must .*permission"), as_nobody():
            Text(length=5, batch_size=2, path=str(path))
        folder.chmod(0o755)


@pytest.mark.parametrize(
    "fractions",
    [
        (0.5, 0.5),
        (0.5, 0.3, 0.1, 0.1),
        (0.9, 0.2, 0.1),
        (0.5, 0.2, 0.2),
        (1.2, -0.1, -0.1),
        (0, 0.5, 0.5),
        (math.nan, 0.5, 0.5),
        ("a", 0.5, 0.5),
        (),
    ],
)
def test_fractions_that_are_refused(file: Path, fractions: Any) -> None:
    with pytest.raises(ValueError, match=r"^fractions must be three shares \(.*\) that add up to 1"):
        Text(length=5, batch_size=2, path=str(file), fractions=fractions)


def test_a_part_may_be_left_out(file: Path) -> None:
    task = Text(length=5, batch_size=2, path=str(file), fractions=(0.95, 0.05, 0))
    assert task.num_batches("validation") > 0
    assert task.num_batches("test") == 0


# Size.

LARGE = """
import sys
from bptt.tasks.text import Text

def own_memory():
    # Pages of the mapped file do not count: the system takes them back when it needs the memory.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["RssAnon"].split()[0]) * 1024

before = own_memory()
task = Text(length=100, batch_size=2, path=sys.argv[1])
batch = task.batch("train", task.num_batches("train") - 1)
assert batch.inputs.max() == 0 and task.input_size == 2, (batch, task.vocabulary)
print(own_memory() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_large_file_is_mapped_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    size = 300 << 20
    path.write_bytes(b"ab")
    os.truncate(path, size)
    with path.open("r+b") as content:
        content.write(b"\0\0")
        content.seek(size - 1)
        content.write(b"z")
    done = subprocess.run([sys.executable, "-c", LARGE, str(path)], capture_output=True, text=True, check=True)
    path.unlink()
    assert int(done.stdout) < size / 4


def test_resets_at_a_token(tmp_path: Path) -> None:
    """Exactly where the token is read, and where streams begin; the tokens stay as they are."""
    text = "one\ntwo\n\nthree three three three\n" * 20
    (tmp_path / "text").write_text(text, encoding="utf-8")
    options: dict[str, Any] = {"length": 13, "batch_size": 2, "path": str(tmp_path / "text")}
    cases: list[tuple[Literal["byte", "character", "word"], str]] = [
        ("byte", "end_of_line"),
        ("character", "\n"),
        ("word", "end_of_line"),
    ]
    for unit, token in cases:
        plain, task = Text(**options, unit=unit), Text(**options, unit=unit, reset_at=token)
        for index in range(task.num_batches("train")):
            batch = task.batch("train", index)
            assert torch.equal(batch.inputs, plain.batch("train", index).inputs)
            expected = batch.inputs == task.vocabulary.index("<eol>" if unit == "word" else "\n")
            expected[0] |= index == 0
            assert batch.reset is not None
            if batch.resets is None:
                assert not expected[1:].any()
                assert torch.equal(batch.reset, expected[0])
            else:
                assert torch.equal(batch.resets, expected)
    with pytest.raises(
        ValueError, match="reset_at must be a word that the training text has, or end_of_line, got 'four'"
    ):
        Text(**options, unit="word", reset_at="four")


def test_a_text_without_line_ends_has_none_to_reset_at(tmp_path: Path) -> None:
    """As old Macintosh files, whose lines end in a carriage return."""
    path = tmp_path / "mac.txt"
    path.write_bytes(b"one two\rthree\r" * 50)
    with pytest.raises(ValueError, match=r"reset_at must be .*, got 'end_of_line'; no line ends in it$"):
        Text(path=str(path), length=5, batch_size=2, reset_at="end_of_line")


def test_separate_files(tmp_path: Path) -> None:
    """The training text is all of its file; a part without a file is empty; the words are those of training."""
    texts = {"train": "a b c a b c a b d\n" * 9, "validation": "c a e b\n" * 9, "test": "d d a\n" * 9}
    for name, content in texts.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    paths: dict[str, Any] = {"path": str(tmp_path / "train"), "validation_path": str(tmp_path / "validation")}
    task = Text(length=20, batch_size=1, unit="word", **paths, test_path=str(tmp_path / "test"))
    for split in SPLITS:
        (read,) = streams(task, split)
        expected = texts[split].replace("\n", " <eol> ").replace("e", "<unk>").replace("<<unk>ol>", "<eol>").split()
        assert read == expected
    assert Text(length=20, batch_size=1, **paths).num_batches("test") == 0
    with pytest.raises(ValueError, match=r"task.validation_path must be a text file, .*no such file"):
        Text(length=20, batch_size=1, path=paths["path"], validation_path="nosuch")
    with pytest.raises(ValueError, match=r"task.path must be the training text, beside"):
        Text(length=20, batch_size=1, validation_path=paths["path"])


def test_characters_are_code_points(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("Grüße, 世界! 𝕏 " * 30, encoding="utf-8")
    task = Text(length=17, batch_size=2, path=str(path), unit="character")
    assert task.vocabulary == sorted(set("Grüße, 世界! 𝕏 "))
    for stream_number, read in enumerate(streams(task, "train")):
        whole = "Grüße, 世界! 𝕏 " * 30
        steps = (round(len(whole) * 0.9) - 1) // 2
        assert "".join(read) == whole[stream_number * steps : stream_number * steps + steps + 1]
    assert task.metrics().keys() == {"bits_per_character", "accuracy"}


@pytest.mark.parametrize("unit", ["word", "character"])
def test_what_is_no_utf8_is_named_with_its_place(tmp_path: Path, unit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bptt.tasks.tokens.BLOCK", 7)
    path = tmp_path / "text"
    path.write_bytes("ä b ".encode() * 5 + "ü".encode("latin-1") + b" c" * 9)
    with pytest.raises(ValueError, match=r"a text in UTF-8, got byte 0xfc at position 25; use task.unit=byte, or"):
        Text(length=5, batch_size=1, path=str(path), unit=unit)
    path.write_bytes("ä b ".encode() * 5 + "ü".encode()[:1])
    with pytest.raises(ValueError, match="got byte 0xc3 at position 25"):
        Text(length=5, batch_size=1, path=str(path), unit=unit)


@pytest.mark.parametrize("unit", ["character", "word"])
def test_a_byte_order_mark_is_no_character(tmp_path: Path, unit: Any) -> None:
    texts = []
    for number, mark in enumerate((b"", codecs.BOM_UTF8)):
        path = tmp_path / f"{number}.txt"
        path.write_bytes(mark + b"some words of a text " * 30)
        texts.append(Text(length=5, batch_size=2, path=str(path), unit=unit))
    assert texts[0].identity == texts[1].identity
    path.write_bytes("some words ".encode("utf-16-le") * 30)
    with pytest.raises(
        ValueError, match=r"a text in UTF-8, got byte 0x00 .*; use task.unit=byte, or .* iconv -f UTF-16"
    ):
        Text(length=5, batch_size=2, path=str(path), unit=unit)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"a text " * 99, mtime=0), "the file is compressed by gzip; decompress it first: gunzip FILE"),
        (("a text " * 99).encode("utf-16"), "the file is text in UTF-16; convert it first: iconv"),
    ],
)
def test_compressed_and_utf16_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "text").write_bytes(content)
    for unit in ("byte", "word"):
        with pytest.raises(ValueError, match=message):
            Text(length=5, batch_size=1, path=str(tmp_path / "text"), unit=unit)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="it is a pipe or device, which can be read only once"):
        Text(length=5, batch_size=1, path=str(tmp_path / "pipe"))


@pytest.mark.parametrize("unit", ["byte", "character", "word"])
def test_another_text_in_the_vocabulary_of_a_task(tmp_path: Path, unit: Any) -> None:
    (tmp_path / "one").write_text("b a c a " * 50, encoding="utf-8")
    (tmp_path / "two").write_text("c b a c b a ", encoding="utf-8")
    (tmp_path / "other").write_text("x y z x ", encoding="utf-8")
    task = Text(length=5, batch_size=1, path=str(tmp_path / "one"), unit=unit)
    again = Text(length=50, batch_size=1, path=str(tmp_path / "two"), unit=unit, encoding=task.encoding)
    assert (again.vocabulary, again.num_batches("train"), again.num_batches("test")) == (task.vocabulary, 0, 1)
    assert ("" if unit != "word" else " ").join(streams(again, "test")[0]).strip() == "c b a c b a"
    words = again.tabulate(torch.zeros(again.batch("test", 0).num_timesteps, 1, again.output_size), "test", 0)
    assert words["token"][:2] == ([" ", "b"] if unit != "word" else ["b", "a"])
    if unit == "word":
        return  # unknown words are a token
    with pytest.raises(ValueError, match=r"a text in the vocabulary of the run, 4 \w+, got 3 others, such as 'x'"):
        Text(length=5, batch_size=1, path=str(tmp_path / "other"), unit=unit, encoding=task.encoding)


def test_a_character_of_two_bytes_is_no_byte(tmp_path: Path) -> None:
    """Its second byte is that of other characters as well: § is C2 A7, and ç is C3 A7."""
    path = tmp_path / "french"
    path.write_text("Le garçon a reçu ça.§Une autre leçon.§" * 20, encoding="utf-8")
    with pytest.raises(ValueError, match=r"reset_at must be one byte, got '§'; use task\.unit=character"):
        Text(path=str(path), length=10, batch_size=1, reset_at="§")
    assert Text(path=str(path), length=10, batch_size=1, reset_at="§", unit="character").reset_id is not None
    with pytest.raises(ValueError, match=r"reset_at must be one byte, got '<eod>'$"):  # which is no character either
        Text(path=str(path), length=10, batch_size=1, reset_at="<eod>")
    path.write_bytes("Le garçon a reçu ça.§Une autre leçon.§".encode("latin-1") * 20)
    assert Text(path=str(path), length=10, batch_size=1, reset_at="§").vocabulary.count("§") == 1
