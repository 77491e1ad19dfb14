"""Task, model, module and trainer of a configuration."""

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from omegaconf import DictConfig, open_dict

from bptt.configuration.containers import resolved
from bptt.configuration.sections import named_sections, validate_section
from bptt.configuration.trainer_settings import check_callbacks, check_trainer_settings
from bptt.configuration.whole_sequences import fit_to_directions
from bptt.contracts import at_least, between, expanded, one_of, refusal, valid_seed

if TYPE_CHECKING:  # imported in the functions: --help and refused arguments need not wait for torch
    from lightning import Callback as LightningCallback
    from lightning import Trainer

    from bptt.lightning.module import BPTTModule

PARTS = ("task", "model", "initialisation", "estimator", "optimizer", "scheduler", "clipping")  # of a module
LOGGED = (  # what Lightning says at the level INFO alone
    "lightning.pytorch.profilers",  # their reports
    "lightning.fabric.strategies.launchers.subprocess_script",  # that another process has died
)


def build_module(
    config: DictConfig,
    *,
    initial_weights: bool = True,
    in_double: bool = False,
    encoding: Mapping[str, Any] | None = None,
) -> "BPTTModule":
    """Instantiate task, model, estimator and optimizer, and join them; the seed determines the weights.

    initial_weights: load the weights of the run `model.init_from`, if it is set. False if other weights are loaded
    later. in_double: load them in float64.
    encoding: that of the data which a run was trained on, for a task that reads another file.
    """
    import torch
    from hydra.utils import instantiate

    from bptt.layers.checks import check_layer
    from bptt.lightning.initial_weights import load_initial_weights
    from bptt.lightning.module import BPTTModule
    from bptt.lightning.optimizers import checked_settings
    from bptt.tasks.base import Reduction
    from bptt.tasks.batch_checks import check_metrics

    valid_seed(seed=config.seed)
    for group in PARTS:
        validate_section(group, config[group])
    between(0, math.inf, **{"optimizer.lr": config.optimizer.lr})
    torch.manual_seed(config.seed)
    reduction = config.task.get("reduction", "mean")
    one_of(get_args(Reduction), **{"task.reduction": reduction})
    # As an argument of `instantiate`, a word such as ${HOME} in a text's vocabulary would be an interpolation.
    task_section = without(config.task, "reduction")
    if encoding is None:
        task = instantiate(task_section, _convert_="all")
    else:
        task = instantiate(task_section, _convert_="all", _partial_=True)(encoding=encoding)
    task.reduction = reduction
    check_metrics(task)
    sizes: dict[str, Any] = {f"the task's {name}": getattr(task, name, None) for name in ("input_size", "output_size")}
    at_least(1, **sizes)
    model = instantiate(
        without(config.model, "init_from"),
        input_size=task.input_size,
        output_size=task.output_size,
        initialise=instantiate(config.initialisation),
        _convert_="all",
    )
    for level in model.levels:
        for layer in level.directions:
            check_layer(layer)
    estimator = instantiate(config.estimator, _convert_="all")
    fit_to_directions(task, model, estimator)
    make_optimizer = instantiate(without(config.optimizer, "groups"), _convert_="all")
    groups = checked_settings(make_optimizer, resolved(config.optimizer).get("groups"))
    module = BPTTModule(
        task=task,
        model=model,
        estimator=estimator,
        optimizer=make_optimizer,
        optimizer_groups=groups,
        schedule=instantiate(config.scheduler, _convert_="all"),
        clipping=instantiate(config.clipping, _convert_="all"),
    )
    try_one_step(module)
    source_run = config.model.get("init_from")
    if source_run is not None and initial_weights:
        if in_double:  # before Lightning does it, so that no weight is rounded
            module.double()
        load_initial_weights(module, expanded(str(source_run)))
    return module


def try_one_step(module: "BPTTModule") -> None:
    """Raise ValueError unless optimizer and scheduler take a step together, to a learning rate of 0 or more."""
    from torch.optim import SparseAdam
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    try:
        trial = module.configure_optimizers()
        if isinstance(trial["optimizer"], SparseAdam):  # it says so at a step with gradients alone
            raise ValueError("SparseAdam is for sparse gradients, but those of a model are dense; use Adam")
        trial["optimizer"].step()
        follows = isinstance(trial["lr_scheduler"], ReduceLROnPlateau)
        trial["lr_scheduler"].step(*([0.0] if follows else []))
        for group in trial["optimizer"].param_groups:
            between(0, math.inf, **{"the learning rate after a step": group["lr"]})
        if follows and module.schedule is not None:
            one_of(("validation",), **{"scheduler.interval of ReduceLROnPlateau": module.schedule.interval})
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        if isinstance(error, ArithmeticError):
            wanted = "settings from which a learning rate follows"
            raise ValueError(refusal("scheduler", wanted, f"{type(error).__name__}: {error}")) from error
        unexpected = re.search("unexpected keyword argument '(.*?)'", str(error))
        remedy = f"; leave it out by ~optimizer.{unexpected[1]}" if unexpected else ""
        raise ValueError(f"optimizer and scheduler must fit together: {error}{remedy}") from error


def without(section: DictConfig, key: str) -> DictConfig:
    """A copy of a section without a key that is not an argument of its class or function."""
    arguments = section.copy()
    with open_dict(arguments):
        arguments.pop(key, None)
    return arguments


def build_trainer(
    config: DictConfig, folder: Path, *, callbacks: "Sequence[LightningCallback]" = (), **options: Any
) -> "Trainer":
    """Instantiate the trainer. It writes only to `folder`. `callbacks` come before those of the configuration."""
    from hydra.utils import instantiate
    from lightning import Callback, Trainer
    from lightning.pytorch.callbacks import ProgressBar
    from lightning.pytorch.loggers import Logger

    from bptt.lightning.callbacks.checkpoint import Checkpoint
    from bptt.lightning.callbacks.summary import RunSummary

    validate_section("trainer", config.trainer)
    check_trainer_settings({**config.trainer, **options})
    for name in ("callbacks", "logger", "default_root_dir"):
        if name in config.trainer:
            remedy = "use callbacks=…, logger=… and hydra.run.dir=…"
            raise ValueError(refusal(f"trainer.{name}", "unset", config.trainer[name], remedy))
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in LOGGED:
        logging.getLogger(name).setLevel(logging.INFO)
    sections = named_sections("callbacks", config.callbacks)
    check_callbacks(sections)
    if config.regulariser != {"_target_": None}:
        sections.insert(
            0, validate_section("regulariser", config.regulariser)
        )  # the other callbacks see the gradient that it adds
    configured = [instantiate(section, _convert_="all") for section in sections]
    loggers = [instantiate(each, save_dir=folder) for each in named_sections("logger", config.logger)]
    for group, objects, kind in (("callbacks", configured, Callback), ("logger", loggers, Logger)):
        for each in objects:
            if not isinstance(each, kind):
                wanted = f"sections whose _target_ is a {kind.__name__} of Lightning"
                raise ValueError(refusal(group, wanted, type(each).__name__))
    # The last lines follow the pictures. Checkpoint saves the others' state. The status `completed` comes last.
    in_order = (ProgressBar, Checkpoint, RunSummary)
    configured.sort(key=lambda callback: [isinstance(callback, kind) for kind in reversed(in_order)])
    if not config.trainer.get("enable_progress_bar", True):
        configured = [callback for callback in configured if not isinstance(callback, ProgressBar)]
    settings: dict[str, Any] = {
        "default_root_dir": folder,
        "callbacks": [*callbacks, *configured],
        "logger": loggers,
    }
    trainer: Trainer = instantiate(config.trainer, **{**settings, **options}, _convert_="all")
    return trainer


def is_first_process() -> bool:
    """True in the process that writes the run folder. Launchers number the processes in environment variables."""
    numbers = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((number for number in numbers if number is not None), "0") == "0"
