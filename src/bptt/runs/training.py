"""Training of one run in its folder."""

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from bptt.atomic_files import partial_of
from bptt.configuration.build import build_module, build_trainer, is_first_process
from bptt.configuration.containers import resolved
from bptt.configuration.environment import without_environment
from bptt.configuration.flat_settings import hyperparameters
from bptt.configuration.trainer_settings import check_limits
from bptt.contracts import refusal
from bptt.lightning.stop_signals import signals_of_a_run
from bptt.parent_process import announced_parent, is_announced, stop_with_parent
from bptt.run_folder import RunFolder
from bptt.runs.hydra_files import as_yaml
from bptt.runs.resumption import check_configuration, check_contents, check_length, nothing_left
from bptt.runs.trainer_checks import check_trainer, leave_out_measures, say_what_has_no_effect

if TYPE_CHECKING:
    from lightning import Trainer

    from bptt.lightning.module import BPTTModule


class Built(NamedTuple):
    """A module, and torch's random state right after it was built."""

    module: "BPTTModule"
    random_state: Any


# Modules that `preflight` built, by `configuration_key`: reading the data of a large task twice would take seconds.
_built: dict[str, Built] = {}


def preflight(config: DictConfig, folder: Path) -> None:
    """Build everything that a run needs, so that errors are raised before its folder exists."""
    built = build(config, folder)
    trainer = build_trainer(config, folder)
    check_limits(config, built.module.task)
    check_trainer(trainer, built.module)
    _built[configuration_key(config)] = built


def build(config: DictConfig, folder: Path) -> Built:
    """The module of a configuration; the one that the preflight built, if there is one.

    `model.init_from` is ignored if the run resumes from its own checkpoint.
    """
    from bptt.lightning.checkpoint_files import newest_checkpoint
    from bptt.random_state import random_state

    built = _built.pop(configuration_key(config), None) if _built else None
    if built is None:
        import torch

        resumes = config.resume == "auto" and config.model.get("init_from") and newest_checkpoint(folder)[0]
        in_double = str(OmegaConf.select(config, "trainer.precision")) in ("64", "64-true")
        module = build_module(config, initial_weights=not resumes, in_double=in_double)
        built = Built(module, random_state(torch.device("cpu")))
    return built


def configuration_key(config: DictConfig) -> str:
    """The configuration as text, except `resume`."""
    return OmegaConf.to_yaml(OmegaConf.merge(config, {"resume": None}), resolve=True)


def remove_leftovers(run: RunFolder) -> None:
    """Remove the temporary files of a process that was killed while it wrote. The folder must be locked."""
    for path in run.results:
        partial_of(path).unlink(missing_ok=True)
    for folder in (run.settings, run.checkpoints, run.curves("any").parent):
        for path in folder.glob(partial_of(Path("*")).name):
            path.unlink(missing_ok=True)


def train(
    config: DictConfig,
    folder: Path,
    *,
    begin: Callable[["Trainer"], None] = lambda _: None,
    overrides: Sequence[str] = (),
) -> dict[str, float]:
    """Train the run of a configuration. All files are written to `folder`. Returns the last metrics.

    begin: called after the last check, when the folder is locked for this run.
    overrides: the command line; checkpoints hold a copy of it and of the configuration.
    """
    import torch

    from bptt.lightning.callbacks.hyperparameters import Hyperparameters
    from bptt.lightning.callbacks.kept_settings import KeptSettings
    from bptt.lightning.checkpoint_files import check_fits, newest_checkpoint, read
    from bptt.lightning.data import TaskData
    from bptt.lightning.loggers import discard_after, new_writers
    from bptt.lightning.processes import all_alive
    from bptt.lightning.terminal import say
    from bptt.random_state import restore_random_state

    if not is_first_process() or is_announced():
        stop_with_parent()
    was_checked = bool(_built) and configuration_key(config) in _built  # a sweep's jobs have no preflight
    module, random_state = build(config, folder)
    shown = without_environment(config)
    settings = {"config": as_yaml(config), "overrides": [str(word) for word in overrides]}
    callbacks = [Hyperparameters(hyperparameters(resolved(shown))), KeptSettings(settings)]
    trainer = build_trainer(config, folder, callbacks=callbacks)
    leave_out_measures(trainer, module)
    say_what_has_no_effect(trainer, module)
    if not was_checked:
        check_limits(config, module.task)
        check_trainer(trainer, module)
    run = RunFolder(folder)
    with run.locked() if trainer.is_global_zero else nullcontext():
        if trainer.is_global_zero:
            check_contents(config, folder)  # again: another run may have used the folder before it was locked
        checkpoint, faults = newest_checkpoint(folder) if config.resume == "auto" else (None, [])
        if checkpoint is not None:
            content = read(checkpoint)
            check_fits(module, content, checkpoint)
        elif faults:
            raise ValueError(f"{faults[0]}; move {run.checkpoints} away to start the run again")
        # Before the status: another process of this run takes its end back, and then writes these settings.
        same = run.summary.exists() and check_configuration(config, folder)
        if run.status.is_finished:
            whole = checkpoint is not None or not run.has_checkpoints
            if whole and same:
                say(nothing_left(run, config))
                return {name: value for name, value in run.read_summary()["metrics"].items() if value is not None}
            if checkpoint is None:  # starting again would replace its results
                wanted, got = "the last checkpoint of a finished run", "nothing there"
                remedy = "copy it there, or start another run"
                raise ValueError(refusal(str(run.last_checkpoint), wanted, got, remedy))
        if checkpoint is not None and not same:  # an estimator may finish the batch beyond max_steps
            check_length(config, epochs=content["epoch"], updates=content["global_step"])
        if trainer.is_global_zero:
            remove_leftovers(run)
        begin(trainer)
        for fault in faults:
            say(f"skipped: {fault}", error=True)
        if faults and trainer.is_global_zero:  # the next checkpoint must not keep it in place of the valid one
            os.replace(run.last_checkpoint, run.last_checkpoint.with_suffix(".damaged"))
        if checkpoint is None:
            if config.resume == "auto" and run.summary.exists():
                say(f"no checkpoint is in {folder}: the run starts again")
            discard_after(trainer, -1)  # remove the points of an attempt that left no checkpoint
        for writer in new_writers(trainer, resumed=checkpoint is not None):
            writer.add_text("configuration", f"```yaml\n{OmegaConf.to_yaml(shown, resolve=True)}```")
        restore_random_state(random_state, torch.device("cpu"))
        with signals_of_a_run(), all_alive(), announced_parent():
            trainer.fit(module, datamodule=TaskData(module), ckpt_path=checkpoint, weights_only=True)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}
