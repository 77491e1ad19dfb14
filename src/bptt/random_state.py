"""Save and restore the state of torch's random number generators."""

import torch
from torch import Tensor


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's random number generators on the CPU and on the given device."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    """Restore the generators to the state that `random_state` returned."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
