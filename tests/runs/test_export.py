"""One timestep of a model in a file of its own computes what the model computes, state in and state out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bptt.layers import LRU, LSTM
from bptt.model import SequenceModel
from bptt.runs.export import write_step
from bptt.shapes import leaves

T, B = 6, 3


def make(layer: Any, **options: Any) -> SequenceModel:
    return SequenceModel(layer, input_size=5, output_size=2, hidden_size=4, num_layers=2, dropout=0.5, **options)


def run(step: Any, inputs: Tensor, state: list[Tensor]) -> Tensor:
    found = []
    for input in inputs:
        prediction, *state = step(input, *state)
        found.append(prediction)
    return torch.stack(found)


@pytest.mark.parametrize(
    ("layer", "options", "token_ids"),
    [(LSTM, {"embedding_size": 3}, True), (LRU, {"block": "glu"}, False)],
)
def test_a_program_of_torch(tmp_path: Path, layer: Any, options: dict[str, Any], token_ids: bool) -> None:
    model = make(layer, **options)
    write_step(model, tmp_path / "step.pt2", token_ids=token_ids)
    step = torch.export.load(tmp_path / "step.pt2").module()
    inputs = torch.randint(5, (T, B)) if token_ids else torch.randn(T, B, 5)
    start = model.initial_state(B)
    expected = model.eval()(inputs, start)[0]
    torch.testing.assert_close(run(step, inputs, [leaf.contiguous() for leaf in leaves(start)]), expected)


@pytest.mark.filterwarnings("ignore")  # of onnxscript and torch's exporter, which change from version to version
def test_a_model_of_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = make(LSTM)
    write_step(model, tmp_path / "step.onnx")
    session = runtime.InferenceSession(str(tmp_path / "step.onnx"))
    names = [each.name for each in session.get_inputs()]

    def step(*given: Tensor) -> list[Tensor]:
        found = session.run(None, {name: each.numpy() for name, each in zip(names, given)})
        return [torch.from_numpy(each) for each in found]

    inputs, start = torch.randn(T, B, 5), model.initial_state(B)
    expected = model.eval()(inputs, start)[0].detach()
    torch.testing.assert_close(run(step, inputs, [leaf.contiguous() for leaf in leaves(start)]), expected)


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"out must be a file ending in \.pt2 or \.onnx, got .*step\.pt"):
        write_step(make(LSTM), tmp_path / "step.pt")
