"""Sizes of parameters and of their gradients."""

import torch
from torch import Tensor

from bptt.measures.norms import joint_norm
from bptt.model import SequenceModel


def gradient_norms(model: SequenceModel) -> dict[str, Tensor]:
    """‖dL/dθ‖₂ of what is in `.grad`: of each part of the model, numbered from the input up, and of `all` together."""
    gradients = {
        name: [p.new_zeros(()) if p.grad is None else p.grad for p in part] for name, part in _parts(model).items()
    }
    return _norms(gradients)


def weight_norms(model: SequenceModel) -> dict[str, Tensor]:
    """‖θ‖₂ of each part of the model, and of `all` together."""
    return _norms({name: [p.detach() for p in part] for name, part in _parts(model).items()})


def _parts(model: SequenceModel) -> dict[str, list[torch.nn.Parameter]]:
    parts = {"encoder": list(model.encoder.parameters()) if model.encoder is not None else []}
    parts |= {f"layer{number}": list(layer.parameters()) for number, layer in enumerate(model.levels, start=1)}
    parts |= {f"block{number}": list(block.parameters()) for number, block in enumerate(model.blocks or (), start=1)}
    parts["readout"] = list(model.readout.parameters())
    parts["initial_state"] = list(model.initial) if model.initial is not None else []
    return {name: part for name, part in parts.items() if part}


def _norms(parts: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    norms = {name: joint_norm(tensors) for name, tensors in parts.items()}
    return {**norms, "all": joint_norm(list(norms.values()))}
