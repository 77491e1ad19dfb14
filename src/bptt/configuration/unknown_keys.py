"""Error messages for settings that do not exist, with the existing ones whose names are close."""

import difflib
import re
from collections.abc import Sequence
from itertools import zip_longest

from omegaconf import OmegaConf

from bptt.configuration.compose import compose_config, groups
from bptt.configuration.containers import leaves
from bptt.contracts import refusal

UNKNOWN_KEY = re.compile(r"Could not override '([^']+)'")
ABSENT = {  # settings of other libraries, and why they are missing here
    "model.batch_first": "left out: batches are time first here, (T, B, ·), and each task arranges its data so",
    "trainer.accumulate_grad_batches": "left out: the estimator decides when to update; see estimator.update=sequence",
    "trainer.barebones": "left out: runs keep checkpoints and a summary; say logger=none trainer.limit_val_batches=0",
    "trainer.truncated_bptt_steps": "left out: the estimator truncates; say estimator.chunk_size=…",
}
ELSEWHERE = {  # names of settings in other libraries
    "learning_rate": "optimizer.lr",
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "gpus": "trainer.accelerator",
    "device": "trainer.accelerator",
    "file": "task.path",
    "data": "task.path",
    "ckpt_path": "resume",
    "truncated_bptt_steps": "estimator.chunk_size",
    "tbptt_steps": "estimator.chunk_size",
    "bptt": "estimator.chunk_size",
    "k": "estimator.chunk_size",
    "k1": "estimator.stride",
    "k2": "estimator.window",
}
CHOICE = re.compile(r"[a-z_]+=[a-z_0-9]+")  # choice of a group's option, as in model=gru
SWEPT = re.compile(r"[a-z_]+=[a-z_0-9]+(,[a-z_0-9]+)+")  # several choices, as in model=gru,lstm


def unknown_key(error: str, arguments: Sequence[str]) -> str | None:
    """A message with the closest settings in place of Hydra's "Could not override 'KEY'"; None for other errors.

    error: with its cause. arguments: the command line. Its choices of groups determine which settings exist.
    """
    match = UNKNOWN_KEY.search(error)
    if match is None:
        return None
    within = re.search(r"full_key: (\S+)", error)  # of a whole section, the setting that is at fault
    key = within[1] if within and within[1].startswith(match[1]) else match[1]
    if key in ABSENT:
        return f"{key} must be {ABSENT[key]}"
    if key.startswith("hydra."):
        remedy = f"all of them are shown by --cfg hydra, a new one is +{key}=…"
        return f"{key} must be a setting of Hydra, got an unknown name; {remedy}"
    removed = f"~{key.partition('.')[0]}"
    if removed in arguments:
        return refusal(removed, "left out beside settings of its own", key, f"leave {removed} out")
    choices = choices_among(arguments)
    if swept := next((word for word in arguments if SWEPT.fullmatch(word) and key.startswith(group_of(word))), None):
        return unknown_in_sweep(key, swept, choices, arguments)
    known = known_keys(choices)
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.75)
    own_name = key.rpartition(".")[2]
    if not close:  # the right name in the wrong group
        close = [name for name in known if name.rpartition(".")[2] == own_name][:3]
    if not close and own_name in ELSEWHERE:
        close = [ELSEWHERE[own_name]]
    if key == "sweep":
        return refusal(key, "launched with all its jobs", "one run", "say -m +sweep=NAME")
    group, dot, _ = key.partition(".")
    scope = f"of {group}" if dot and any(name.startswith(f"{group}.") for name in known) else "of the configuration"
    remedy = f"did you mean {' or '.join(close)}?" if close else "all of them are shown by --cfg job"
    if group == "trainer" and dot:
        remedy = f"{remedy.removesuffix('?')}, or for another option of Lightning's Trainer say +{key}=…"
    return f"{key} must be a setting {scope}, got an unknown name; {remedy}"


def choices_among(arguments: Sequence[str]) -> list[str]:
    """The words of a command line that choose options of groups, or name a folder of further ones."""
    choices: list[str] = []
    for word, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        if word in ("--config-dir", "-cd"):
            choices += [word, following]
        elif word.startswith("--config-dir=") or (CHOICE.fullmatch(word) and word.partition("=")[0] in groups()):
            choices.append(word)
    return choices


def group_of(choice: str) -> str:
    """The beginning of the keys that a choice sets: "model." for model=gru."""
    return f"{choice.partition('=')[0]}."


def unknown_in_sweep(key: str, swept: str, choices: Sequence[str], arguments: Sequence[str]) -> str:
    """A message with the swept choices that lack a key. Hydra composes a sweep with the group's default first.

    So a key that the default lacks must be added, even if all the swept choices have it.
    """
    group, _, names = swept.partition("=")
    lacking = [name for name in names.split(",") if key not in known_keys([*choices, f"{group}={name}"])]
    if lacking:
        return f"{key} must be a setting of every {group} of the sweep, got none in {' or '.join(lacking)}"
    word = next((word for word in arguments if word.startswith(f"{key}=")), f"{key}=…")
    return f"{key} must be added in a sweep over {group}, whose default lacks it, got {word}; say ++{word}"


def known_keys(choices: Sequence[str]) -> list[str]:
    """All settings with some choices of groups, or with the defaults if the choices cannot be composed."""
    for overrides in (list(choices), []):
        try:
            config = compose_config(overrides)
        except Exception:  # a choice is wrong, too
            continue
        return [key for key, _ in leaves(OmegaConf.to_container(config, resolve=False)) if "._" not in key]
    return []
