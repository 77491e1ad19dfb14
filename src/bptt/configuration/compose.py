"""The composed configuration outside a Hydra application."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parents[3]  # the checkout; the package is installed in editable mode
CONF = ROOT / "conf"
SCRIPTS = ROOT / "scripts"


def compose_config(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the training configuration with some overrides, outside a Hydra application."""
    with initialize_config_dir(str(CONF), version_base=None):
        return compose("train", list(overrides))
