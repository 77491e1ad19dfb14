"""The settings that affect training as comparisons and TensorBoard show them, with the keys of the command line."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bptt.configuration.containers import leaves
from bptt.contracts import plain_name

NOT_TRAINING = ("logger", "resume", "sweep")  # groups that do not change what is trained
OBSERVING = ("trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.log_every_n_steps")
KNOWN_PACKAGES = ("bptt", "torch", "lightning")
CALLBACKS = "bptt.lightning.callbacks."  # the project's own, which observe, except for the next three
CHANGE_TRAINING = ("divergence", "early_stopping", "pruning")
COUNT_OR_SHARE = re.compile(r"trainer\.(limit_\w+_batches|overfit_batches|val_check_interval)")


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting that affects training: {"model": "lstm", "model.hidden_size": 192, "seed": 1, …}.

    The value of a group is the name of its class or function. If exactly one other target is inside it, its value is
    the name of that one: a model has the name of its layer, a schedule that of its scheduler. Each callback that can
    change training is a group. Shares of an epoch's batches are in per cent.
    """
    flat: dict[str, Any] = {}
    for group, part in training_groups(config):
        settings = dict(leaves(part, group))
        targets = {key.removesuffix("._target_"): name for key, name in settings.items() if key.endswith("._target_")}
        inner = [key for key in targets if key != group]
        if len(inner) == 1:
            targets = {group: targets[inner[0]]}
        flat |= {key: shown_name(str(name)) for key, name in targets.items()}
        flat |= {key: value for key, value in settings.items() if not key.rpartition(".")[2].startswith("_")}
    return {key: share_in_percent(key, value) for key, value in flat.items() if key not in OBSERVING}


def share_in_percent(key: str, value: Any) -> Any:
    """A share of an epoch's batches in per cent, to tell 1.0, all of them, from 1, a single one. Others as they are."""
    return f"{100 * value:.15g} %" if isinstance(value, float) and COUNT_OR_SHARE.fullmatch(key) else value


def shown_name(target: str) -> str:
    """The plain name of a class or function, after that of its package if it is somebody's own: mine.lstm."""
    package = target.partition(".")[0]
    return plain_name(target) if package in KNOWN_PACKAGES or "." not in target else f"{package}.{plain_name(target)}"


def training_groups(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the groups that change what is trained, by name; each callback is a group of its own."""
    for group, part in config.items():
        if group == "callbacks" and isinstance(part, Mapping):
            for name, section in part.items():
                target = str(section.get("_target_")) if isinstance(section, Mapping) else ""
                observes = target.startswith(CALLBACKS) and target.split(".")[3] not in CHANGE_TRAINING
                if target and not observes:
                    yield f"callbacks.{name}", section
        elif group not in NOT_TRAINING:
            yield group, part


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Settings for TensorBoard's HParams: without trainer, callbacks, and seeds that are equal to `seed`."""
    return {
        key: value
        for key, value in flat_settings(config).items()
        if isinstance(value, bool | int | float | str)
        and not key.startswith(("trainer", "callbacks."))
        and not (key.endswith(".seed") and value == config.get("seed"))
        and key != value  # the name of a class is redundant if it is that of its group
    }
