"""Studies of Optuna: their direction, and how they go on in another launch."""

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from bptt.contracts import refusal


def go_on(sweeper: Any) -> None:
    """Move the sampler's seed on by the number of trials that have a value: with the same seed it would repeat them.

    With none it repeats them, and so resumes those that were interrupted.

    sweeper: the configuration of Optuna's sweeper. Unchanged without a storage, a study in it, or a seed.
    """
    storage, name, seed = (OmegaConf.select(sweeper, key) for key in ("storage", "study_name", "sampler.seed"))
    if not (isinstance(storage, str) and name and isinstance(seed, int)):
        return
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    try:
        study = optuna.load_study(study_name=str(name), storage=storage)
    except KeyError:  # it begins
        return
    with open_dict(sweeper):
        sweeper.sampler.seed = seed + len([trial for trial in study.trials if trial.values])


def check_direction(config: DictConfig) -> None:
    """Raise ValueError for a study that would look for the worst value of the metric that `checkpoint` monitors."""
    mode = OmegaConf.select(config, "callbacks.checkpoint.mode")
    wanted = {"min": "minimize", "max": "maximize"}.get(str(mode))
    direction = str(getattr(config.hydra.sweeper.direction, "name", config.hydra.sweeper.direction))
    if wanted is not None and direction in ("minimize", "maximize") and direction != wanted:
        wanted = f"{wanted}, as callbacks.checkpoint.mode={mode} says which value is best"
        raise ValueError(refusal("hydra.sweeper.direction", wanted, direction))
