"""From a configuration to the objects it names, and from what is wrong with one to a line that says so."""

import logging
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from sections import check_section, named_sections
from yaml import YAMLError

from bptt.contracts import at_least, between, one_of, refusal

if TYPE_CHECKING:  # imported where they are needed: a call for --help or with a typo need not wait for torch
    from lightning import Callback as LightningCallback
    from lightning import Trainer

    from bptt.lightning.module import BPTTModule
    from bptt.tasks.base import Split, Task

# Lightning 2.6 asks torch 2.13's pytree in a way torch has deprecated; nothing a user could change.
warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="lightning")
# It also compares batches with `log_every_n_steps`, which here counts updates.
warnings.filterwarnings("ignore", message="The number of training batches.*logging interval.*")

# … and asks to be started by srun wherever Slurm is installed, on the machine from which jobs are sent off too.
warnings.filterwarnings("ignore", message="The `srun` command is available.*")
# Optuna 2.10, which is what Hydra's sweeper takes, is for SQLAlchemy 1.4, which speaks of its successor.
warnings.filterwarnings("ignore", message="Deprecated API features detected.*")

N = TypeVar("N", int, float)
NO_ROOM = ("out of memory", "can't allocate memory", "Storage size calculation overflowed")  # in errors of torch
PLUGINS = re.compile("Could not (find|load) 'hydra/(launcher/(joblib|submitit_slurm)|sweeper/optuna)'")
CONF = Path(__file__).resolve().parent.parent / "conf"
TRACEBACK = "BPTT_TRACEBACK"  # in the environment; Hydra's own switch is always on, and inherited by other processes
FAULTS = (ValueError, OSError, YAMLError, HydraException, OmegaConfBaseException)  # of input, a file or the disk


def compose_config(overrides: Sequence[str] = ()) -> DictConfig:
    """The training configuration with some overrides, outside a Hydra run."""
    with initialize_config_dir(str(CONF), version_base=None):
        return compose("train", list(overrides))


def script_arguments(defaults: dict[str, str | None]) -> tuple[dict[str, Any], list[str]]:
    """A script's own KEY=VALUE arguments, and the other words of its command line."""
    own, others = dict(defaults), []
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        if name in own:
            own[name] = value
        else:
            others.append(word)
    return own, others


def number(kind: type[N], **named: Any) -> N:
    """A script's argument as a number above 0."""
    ((name, given),) = named.items()
    with suppress(ValueError):
        if (value := kind(given)) > 0:
            return value
    raise ValueError(refusal(name, f"{'a whole number' if kind is int else 'a number'} above 0", given))


def no_overrides(words: Sequence[str]) -> None:
    """A finished run keeps its configuration."""
    if words:
        raise ValueError(f"with run=FOLDER the configuration is the run's own, got {' '.join(words)}; leave it out")


def run_folder(run: str | None) -> Path:
    """The folder named by run=FOLDER."""
    if not run:
        raise ValueError(refusal("run", "the folder of a training run", run, "say run=FOLDER"))
    return Path(run)


def load_config(run: Path) -> DictConfig:
    """The configuration of a finished run."""
    path = run / ".hydra" / "config.yaml"
    if not path.is_file():
        raise ValueError(f"run must be the folder of a training run, got {run}, where no .hydra/config.yaml is")
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    return config


def build_module(config: DictConfig) -> "BPTTModule":
    """Task, model, estimator and optimizer of a configuration, joined; the weights follow from the seed."""
    import torch
    from hydra.utils import instantiate

    from bptt.lightning.module import BPTTModule

    at_least(0, seed=config.seed)
    if config.seed >= 1 << 63:
        raise ValueError(refusal("seed", "below 2^63", config.seed))
    for group in ("task", "model", "initialisation", "estimator", "optimizer", "scheduler", "clipping"):
        check_section(group, config[group])
    between(0, math.inf, **{"optimizer.lr": config.optimizer.lr})
    torch.manual_seed(config.seed)
    task = instantiate(config.task, _convert_="all")
    sizes: dict[str, Any] = {f"the task's {name}": getattr(task, name, None) for name in ("input_size", "output_size")}
    at_least(1, **sizes)
    model = instantiate(
        config.model,
        input_size=task.input_size,
        output_size=task.output_size,
        initialise=instantiate(config.initialisation),
        _convert_="all",
    )
    module = BPTTModule(
        task=task,
        model=model,
        estimator=instantiate(config.estimator, _convert_="all"),
        optimizer=instantiate(config.optimizer, _convert_="all"),
        schedule=instantiate(config.scheduler, _convert_="all"),
        clipping=instantiate(config.clipping, _convert_="all"),
    )
    try:
        trial = module.configure_optimizers()
        trial["optimizer"].step()
        trial["lr_scheduler"].step()
        between(0, math.inf, **{"the learning rate after a step": trial["optimizer"].param_groups[0]["lr"]})
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"optimizer and scheduler must fit together: {error}") from error
    return module


def load_run(folder: Path, *, checkpoint: str) -> "BPTTModule":
    """The module of a finished run, with the weights of its best or last checkpoint."""
    one_of(("best", "last"), checkpoint=checkpoint)
    from bptt.lightning.checkpoint import load_weights
    from bptt.run_folder import RunFolder

    module = build_module(load_config(folder))
    load_weights(module, RunFolder(folder).checkpoints / f"{checkpoint}.ckpt")
    return module


def build_trainer(
    config: DictConfig, folder: Path, *, callbacks: "Sequence[LightningCallback]" = (), **options: Any
) -> "Trainer":
    """A trainer that writes into `folder` alone; with `callbacks` beside those of the configuration."""
    from hydra.utils import instantiate
    from lightning import Trainer
    from lightning.pytorch.callbacks import ProgressBar

    from bptt.lightning.callbacks.checkpoint import Checkpoint

    check_section("trainer", config.trainer)
    at_least(1, log_every_n_steps=config.trainer.log_every_n_steps)
    if config.trainer.val_check_interval is not None:
        between(0, math.inf, val_check_interval=config.trainer.val_check_interval, open_low=True)
    if config.trainer.check_val_every_n_epoch is not None:
        at_least(1, check_val_every_n_epoch=config.trainer.check_val_every_n_epoch)
    one_of((True, False, None, "warn"), deterministic=config.trainer.deterministic)
    one_of((None, "simple", "advanced", "pytorch"), profiler=config.trainer.profiler)
    if any(config.trainer.get(name) is not None for name in ("gradient_clip_val", "accumulate_grad_batches")):
        raise ValueError(
            "trainer.gradient_clip_val and trainer.accumulate_grad_batches must stay unset, as the estimator decides "
            "when to update; use clipping=norm clipping.max=1, or estimator.update=sequence"
        )
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    sections = named_sections("callbacks", config.callbacks)
    if config.regulariser != {"_target_": None}:
        sections.insert(0, check_section("regulariser", config.regulariser))  # before all that look at the gradient
    configured = [instantiate(section, _convert_="all") for section in sections]
    configured.sort(key=lambda callback: isinstance(callback, Checkpoint))  # last: it says that all the others are done
    if not config.trainer.enable_progress_bar:
        configured = [callback for callback in configured if not isinstance(callback, ProgressBar)]
    settings: dict[str, Any] = {
        "default_root_dir": folder,
        "callbacks": [*callbacks, *configured],
        "logger": [instantiate(each, save_dir=folder) for each in named_sections("logger", config.logger)],
    }
    trainer: Trainer = instantiate(config.trainer, **{**settings, **options}, _convert_="all")
    return trainer


def check_limits(config: DictConfig, task: "Task") -> None:
    """Refuse a share of a split's batches that is less than one of them."""
    names: dict[Split, str] = {"train": "train", "validation": "val", "test": "test"}
    for split, name in names.items():
        limit, count = config.trainer.get(f"limit_{name}_batches"), task.num_batches(split)
        if isinstance(limit, float) and count and 0 < limit * count < 1:
            key = f"trainer.limit_{name}_batches"
            raise ValueError(refusal(key, f"a share of {count} batches with one or more of them", limit))


def is_first_process() -> bool:
    """Whether this is the process that keeps the run folder; launchers number the others in their environment."""
    numbers = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((number for number in numbers if number is not None), "0") == "0"


def run_script(main: Callable[[], None], usage: str | None) -> None:
    """Run a script that is no Hydra application, or say how to."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(usage)
        return
    with plain_errors():
        main()


@contextmanager
def plain_errors() -> Iterator[None]:
    """Ends the program with one line and exit code 1 where input, a file or the disk is at fault.

    With BPTT_TRACEBACK=1 in the environment it ends with the traceback.
    """
    try:
        yield
    except FAULTS as error:
        if os.environ.get(TRACEBACK) == "1":
            raise
        sys.exit(f"error: {one_line(error)}")
    except (RuntimeError, MemoryError) as error:  # torch has no type of its own for what the CPU has no room for
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in NO_ROOM):
            raise
        sys.exit(f"error: a run must fit into memory, got {one_line(error) or 'no more of it'}; use smaller sizes")


def one_line(error: BaseException) -> str:
    """What is wrong, without what Hydra wraps around it."""
    if isinstance(error, InstantiationException):
        where = str(error).rpartition("full_key: ")[2].strip() if "full_key: " in str(error) else ""
        cause = error.__cause__ or error
        text = " ".join(str(cause).split())
        if not isinstance(cause, (ValueError, TypeError, *FAULTS)):  # by no check, so most likely an error in code
            place = traceback.extract_tb(cause.__traceback__)[-1]
            text = f"{type(cause).__name__}: {text} in {place.filename}:{place.lineno}; see {TRACEBACK}=1"
        if stale := re.search("got an unexpected keyword argument '(.*?)'", text):  # such as an experiment's own key
            inside = ["model.layer", "initialisation"] if where == "model" else []  # what a model builds by itself
            text += "; leave it out by " + " or ".join(f"~{place}.{stale[1]}" for place in (where or "…", *inside))
        return f"{where}: {text}" if where else text
    if PLUGINS.search(str(error)):
        return "launchers and Optuna must be installed to be chosen; say pip install -e '.[launchers]'"
    return " ".join(str(error).split())
