"""Predictions of a finished run, in the units of its data."""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import OmegaConf, open_dict

from bptt.atomic_files import replacing
from bptt.configuration.build import build_module
from bptt.configuration.compose import literal
from bptt.contracts import one_of, refusal
from bptt.lightning.carry import Carry
from bptt.lightning.checkpoint_content import KEY
from bptt.lightning.checkpoint_files import load_weights, read
from bptt.lightning.terminal import say
from bptt.run_folder import RunFolder
from bptt.runs.loading import check_parts, checkpoint_path, load_config, load_run, say_how_divided, trusted_config
from bptt.tasks.base import Split

if TYPE_CHECKING:
    from bptt.lightning.module import BPTTModule

BLOCK = 256  # timesteps in one forward pass, to bound the memory of long batches
OTHER_PATHS = ("validation_path", "test_path")  # further files of a task
SUFFIXES = (".csv", ".parquet")

Columns = dict[str, list[Any]]


def load_for_input(folder: Path, input: Path, *, checkpoint: str, trust: Sequence[str] = ()) -> "BPTTModule":
    """The module of a run with another file of the same kind as its test split, encoded as the training data were.

    ValueError if the task reads no file, if the file lacks a column, or if it has a token that the training data lack.
    """
    check_parts(load_config(folder), folder)
    config = trusted_config(folder, trust=trust)
    path = checkpoint_path(folder, checkpoint)
    encoding = read(path)[KEY].get("encoding")
    if not encoding:
        raise ValueError(refusal("input", "left out for a task that reads no file", str(input)))
    with open_dict(config):
        config.task.path = literal(str(input.absolute()))
        for key in OTHER_PATHS:
            config.task.pop(key, None)
    try:
        module = build_module(config, initial_weights=False, encoding=encoding)
    except ValueError as error:
        if "task." not in str(error):
            raise
        raise ValueError(f"{error}; the task's settings are those of the run, so change {input.name}") from error
    load_weights(module, path, other_data=True)
    return module


def predictions(module: "BPTTModule", split: Split) -> Iterator[Columns]:
    """Predictions beside their targets as columns by name, one batch after another, with the carried state."""
    model, task, carry = module.model.without_dropout().eval(), module.task, Carry()
    with torch.no_grad():
        for index in range(task.num_batches(split)):
            batch = task.batch(split, index)
            state, parts = carry.state_for(model, batch), []
            for _, chunk in batch.split(model.timesteps_per_pass(batch.num_timesteps, BLOCK)):
                outputs, state, _ = model(chunk.inputs, state, chunk.resets)
                parts.append(outputs)
            carry.keep(state)
            yield task.tabulate(torch.cat(parts), split, index)


def check_out(out: Path, kept: Iterable[Path] = ()) -> None:
    """Refuse a name without the suffix of a table, and one that would replace data or results.

    kept: files and folders of data, and files of the run. A picture of the same name is written beside the table, so
        its name counts, too.
    """
    if out.suffix not in SUFFIXES:
        raise ValueError(refusal("out", f"a file ending in {' or '.join(SUFFIXES)}", str(out)))
    for path in kept:
        if path.resolve() in (out.resolve(), out.with_suffix(".png").resolve(), *out.resolve().parents):
            needed = f"outside {path}, whose files are data" if path.is_dir() else f"another file than {path}"
            raise ValueError(refusal("out", needed, str(out)))


def write_table(parts: Iterator[Columns], out: Path) -> Columns:
    """Write columns as CSV or Parquet, according to the suffix, sorted by the first two columns, and return them.

    Batches hold the rows of several streams, and sequences by their lengths.
    """
    import polars

    check_out(out)
    columns: Columns = {}
    for part in parts:
        for name, values in part.items():
            columns.setdefault(name, []).extend(values)
    frame = polars.DataFrame(columns, strict=False)
    frame = frame.sort(frame.columns[:2], maintain_order=True)
    content = io.BytesIO()
    if out.suffix == ".csv":  # polars writes no durations
        durations = [name for name, kind in frame.schema.items() if kind == polars.Duration]
        frame.with_columns(polars.col(name).dt.to_string("iso") for name in durations).write_csv(content)
    else:
        frame.write_parquet(content)
    with replacing(out) as partial:  # by ourselves: an error of polars names no file
        partial.write_bytes(content.getbuffer())
    return frame.to_dict(as_series=False)


def predict(
    folder: Path,
    out: Path,
    *,
    input: Path | None = None,
    split: Split = "test",
    checkpoint: str = "best",
    trust: Sequence[str] = (),
    other_data: bool = False,
) -> Columns:
    """Write the predictions of a run: on one split of its own data, or on another file."""
    config = load_config(folder)
    given = [OmegaConf.select(config, f"task.{key}") for key in ("path", *OTHER_PATHS)]
    check_out(out, [*(Path(each) for each in (input, *given) if each is not None), *RunFolder(folder).results])
    if input is not None:
        module = load_for_input(folder, input, checkpoint=checkpoint, trust=trust)
    else:
        one_of(("train", "validation", "test"), split=split)
        module = load_run(folder, checkpoint=checkpoint, trust=trust, other_data=other_data)
        say_how_divided(module, folder, checkpoint)
    if not module.task.num_batches(split):
        raise ValueError(f"split must be one that the task has, got {split}, which is empty; name another")
    if left_out := module.task.left_out(split):
        say(f"left out: {left_out}", error=True)
    return write_table(predictions(module, split), out)
