"""Studies of Optuna: their direction, and how they go on in another launch."""

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from bptt.contracts import refusal
from bptt.run_folder import RunStatus
from bptt.sweeps.manifest import Manifest, recorded_state


def go_on(sweeper: Any, manifest: Manifest) -> None:
    """Move the sampler's seed on by the number of trials that have ended: with the same seed it would repeat them.

    Interrupted ones have not ended, though Optuna takes some of them for failed. If all were interrupted, they are
    repeated, and so resumed.

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
        ended = [trial for trial in study.trials if trial.state.is_finished()]
        cut = [each for each in manifest.newest().values() if recorded_state(each) == RunStatus.INTERRUPTED]
        sweeper.sampler.seed = seed + max(0, len(ended) - len(cut))


def let_grid_fail(sweeper: Any) -> None:
    """Let a study on a grid of points end although the last point fails.

    Optuna's sampler then stops a loop of Optuna's own, which is an error in Hydra's sweeper, as it has another loop.
    """
    if str(OmegaConf.select(sweeper, "sampler._target_")).endswith(".GridSampler"):
        from optuna.samplers import GridSampler

        GridSampler.after_trial = lambda *_, **__: None  # type: ignore[method-assign]  # it does nothing but stop


def check_direction(config: DictConfig) -> None:
    """Raise ValueError for a study that would look for the worst value of the metric that `checkpoint` monitors."""
    mode = OmegaConf.select(config, "callbacks.checkpoint.mode")
    wanted = {"min": "minimize", "max": "maximize"}.get(str(mode))
    direction = str(getattr(config.hydra.sweeper.direction, "name", config.hydra.sweeper.direction))
    if wanted is not None and direction in ("minimize", "maximize") and direction != wanted:
        wanted = f"{wanted}, as callbacks.checkpoint.mode={mode} says which value is best"
        raise ValueError(refusal("hydra.sweeper.direction", wanted, direction))
