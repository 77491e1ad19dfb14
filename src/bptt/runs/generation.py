"""Text from a trained model, token by token."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bptt.contracts import at_least, between, refusal, valid_seed
from bptt.lightning.checkpoint_content import KEY
from bptt.lightning.checkpoint_files import read
from bptt.runs.loading import checkpoint_path, load_config, load_run
from bptt.runs.prediction import load_for_input
from bptt.tasks.tokens import END_OF_LINE, UNKNOWN, words_and_lines

if TYPE_CHECKING:
    from bptt.lightning.module import BPTTModule
    from bptt.model import SequenceModel
    from bptt.tasks.text import Text


def load_for_generation(folder: Path, *, checkpoint: str, trust: Sequence[str] = ()) -> "BPTTModule":
    """The module of a run of a text. The training text need not exist, since the checkpoint holds its vocabulary.

    Early checkpoints of format 1 have none, and runs of other tasks; for these the data are read.
    """
    unit = load_config(folder).task.get("unit")
    encoding = read(checkpoint_path(folder, checkpoint))[KEY].get("encoding") or {}
    if "vocabulary" not in encoding:
        return load_run(folder, checkpoint=checkpoint, trust=trust, other_data=True)
    vocabulary = encoding["vocabulary"]
    with NamedTemporaryFile(suffix=".txt") as file:
        file.write(bytes(map(ord, vocabulary)) if unit == "byte" else join(vocabulary, unit).encode())
        file.flush()
        return load_for_input(folder, Path(file.name), checkpoint=checkpoint, trust=trust)


def generate(
    model: "SequenceModel",
    task: "Text",
    *,
    prompt: str = "",
    length: int = 500,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 1,
) -> str:
    """Continue a prompt by `length` tokens, each drawn from softmax(y / temperature) over the `top_k` most probable.

    temperature 0 takes the most probable token. Tokens of the prompt that are not in the vocabulary are read as
    `<unk>`; ValueError if the vocabulary has no such token.
    """
    at_least(1, length=length)
    valid_seed(seed=seed)
    between(0, float("inf"), temperature=temperature)
    if top_k is not None:
        at_least(1, top_k=top_k)
    model = model.without_dropout().eval()
    token_ids = {token: token_id for token_id, token in enumerate(task.vocabulary)}
    unknown = unknown_tokens(task, prompt)
    if unknown and UNKNOWN not in token_ids:
        raise ValueError(refusal("prompt", f"of {task.unit}s that the training text has", unknown[0]))
    tokens = split(prompt, task.unit) or task.vocabulary[:1]
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor([[token_ids[UNKNOWN if token in unknown else token]] for token in tokens])
    generated: list[str] = []
    with torch.no_grad():
        state = model.initial_state(1)
        for _ in range(length):
            scores, state, _ = model(ids, state, None if task.reset_id is None else ids == task.reset_id)
            token_id = draw(scores[-1, 0].double().cpu(), temperature, top_k, generator)
            generated.append(task.vocabulary[token_id])
            ids = torch.tensor([[token_id]])
    return join([*split(prompt, task.unit), *generated], task.unit)


def unknown_tokens(task: "Text", prompt: str) -> list[str]:
    """The tokens of a prompt that are not in the vocabulary, each once."""
    return list(dict.fromkeys(token for token in split(prompt, task.unit) if token not in task.vocabulary))


def split(text: str, unit: str) -> list[str]:
    """A text as tokens: its bytes in UTF-8, each as the character of that number; its characters; or its words."""
    if unit == "byte":
        return [chr(byte) for byte in text.encode()]
    return list(text) if unit == "character" else words_and_lines(text)


def join(tokens: list[str], unit: str) -> str:
    """Tokens as a text; bytes that are not UTF-8 become �."""
    if unit == "byte":
        return bytes(map(ord, tokens)).decode(errors="replace")
    text = ("" if unit == "character" else " ").join(tokens)
    return text if unit == "character" else text.replace(f" {END_OF_LINE} ", "\n").replace(END_OF_LINE, "\n")


def draw(scores: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    """Draw a token id from softmax(scores / temperature) over the `top_k` largest; the best one if temperature is 0."""
    if not scores.isfinite().all():
        remedy = "training diverged; try a smaller optimizer.lr"
        raise ValueError(refusal("run", "a network that predicts finite numbers", float(scores.sum()), remedy))
    if temperature == 0:
        return int(scores.argmax())
    scores = scores - scores.max()  # a small temperature must not make them infinite
    if top_k is not None and top_k < len(scores):
        scores = torch.where(scores >= scores.topk(top_k).values[-1], scores, -torch.inf)
    return int(torch.multinomial((scores / temperature).softmax(0), 1, generator=generator))
