"""Studies of Optuna that go on in another launch."""

import logging
from typing import Any

from omegaconf import OmegaConf, open_dict


def go_on(sweeper: Any) -> None:
    """Move the sampler's seed on by the number of trials that the study has: with the same seed it would repeat them.

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
        sweeper.sampler.seed = seed + len(study.trials)
