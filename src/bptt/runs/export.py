"""One timestep of a trained model as a program of its own, for torch.export and ONNX."""

from pathlib import Path

import torch
from torch import Tensor, nn

from bptt.atomic_files import replacing
from bptt.contracts import refusal
from bptt.layers.base import like
from bptt.model import SequenceModel
from bptt.shapes import leaves

SUFFIXES = (".pt2", ".onnx")


class Timestep(nn.Module):
    """(x_t, s_{t−1}) → (y_t, s_t) by the layers' equations, with every tensor of the state as an argument of its own.

    x_t: features (B, D), or token ids (B,). Each tensor of the state is (B, H), from the lowest layer upwards; an LSTM
    has h, then c. Predictions y_t: (B, V). Without dropout.
    """

    def __init__(self, model: SequenceModel):
        super().__init__()
        model.require_one_direction("export of one timestep")
        self.model = model.without_dropout().eval()
        self.example = model.initial_state(1)

    def forward(self, input: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        hidden, after = self.model.step(input, like(self.example, state))
        return self.model.readout(hidden), *leaves(after)


def step_program(model: SequenceModel, *, token_ids: bool = False) -> torch.export.ExportedProgram:
    """`Timestep` as a program of torch.export, for any batch size B ≥ 2 (torch specialises on 1).

    token_ids: inputs are ids (B,) instead of features (B, D). The initial state is `model.initial_state(B)`.
    """
    step = Timestep(model)
    dtype, batch_size = next(model.parameters()).dtype, 2
    ids, features = torch.zeros(batch_size, dtype=torch.long), torch.zeros(batch_size, model.input_size, dtype=dtype)
    state = [leaf.detach().clone() for leaf in leaves(model.initial_state(batch_size))]
    size = torch.export.Dim("B", min=2)
    shapes = {"input": {0: size}, "state": tuple({0: size} for _ in state)}
    with torch.no_grad():
        return torch.export.export(step, (ids if token_ids else features, *state), dynamic_shapes=shapes)


def write_step(model: SequenceModel, path: Path, *, token_ids: bool = False) -> None:
    """Write `step_program` to a file: `.pt2` for `torch.export.load`, `.onnx` for onnxruntime.

    ONNX needs the packages of `pip install -e '.[export]'`, and has no complex numbers, so an LRU cannot be written.
    ValueError for other suffixes.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(refusal("out", f"a file ending in {' or '.join(SUFFIXES)}", str(path)))
    program = step_program(model, token_ids=token_ids)
    with replacing(path) as partial:
        if path.suffix == ".pt2":
            with partial.open("wb") as file:
                torch.export.save(program, file)
            return
        onnx_program = torch.onnx.export(program, dynamo=True, verbose=False)
        assert onnx_program is not None
        onnx_program.save(str(partial))
