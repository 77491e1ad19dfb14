"""The composed configuration outside a Hydra application."""

import re
from argparse import ArgumentParser
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from bptt.contracts import refusal

ROOT = Path(__file__).resolve().parents[3]  # the checkout; the package is installed in editable mode
CONF = ROOT / "conf"
SCRIPTS = ROOT / "scripts"
BEFORE_REFERENCE = re.compile(r"(\\*)\$\{")  # with the backslashes before it, which OmegaConf halves
BEFORE_QUOTE = re.compile(r"(\\*)('|\Z)")


def compose_config(words: Sequence[str] = ()) -> DictConfig:
    """Compose the training configuration with some overrides, outside a Hydra application.

    `--config-dir FOLDER` among the words adds a folder of your own choices, as on the command line of train.py.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    options, overrides = parser.parse_known_args(list(words))
    if options.config_dir is not None:
        if not options.config_dir.is_dir():
            raise ValueError(refusal("--config-dir", "a folder", str(options.config_dir)))
        overrides.append(f"hydra.searchpath=[{quoted(f'file://{options.config_dir.absolute()}')}]")
    if option := next((word for word in overrides if word.startswith("-")), None):
        raise ValueError(refusal("an argument", "a setting KEY=VALUE", option, "only train.py has options such as -m"))
    refuse_second_choices(overrides)
    with initialize_config_dir(str(CONF), version_base=None):
        return compose("train", overrides)


def refuse_second_choices(overrides: Sequence[str]) -> None:
    """Refuse +GROUP=CHOICE for a group that has a choice: Hydra may ignore it without a word."""
    for word in overrides:
        added = re.fullmatch(r"\+{1,2}([a-z_/]+)=.*", word)
        if added and (added[1] in groups() or added[1].startswith("hydra/")):
            raise ValueError(refusal(added[1], "chosen once, without +", word, f"say {word.lstrip('+')}"))


@cache
def groups() -> frozenset[str]:
    """The groups of which every configuration has a choice."""
    defaults = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    names = [name for entry in defaults if isinstance(entry, dict) for name in entry]
    return frozenset(name.removeprefix("override ") for name in names)


def literal(text: str) -> str:
    """A text with every ${ escaped, so that OmegaConf reads it as it stands."""
    return BEFORE_REFERENCE.sub(lambda found: f"{2 * found[1]}\\${{", text)


def quoted(text: str) -> str:
    """A text in quotes, so that Hydra's grammar reads it as one value. Backslashes are doubled before a quote alone."""
    return "'" + BEFORE_QUOTE.sub(lambda found: f"{2 * found[1]}\\'" if found[2] else 2 * found[1], text) + "'"
