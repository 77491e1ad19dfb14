"""Errors in one line, if the input, a file or the disk is at fault."""

import io
import logging
import os
import re
import signal
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import dropwhile
from pathlib import Path

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bptt.configuration.command_line import clearer_message
from bptt.configuration.signal_line import interrupted_by
from bptt.configuration.unknown_keys import ABSENT, unknown_key

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Storage size calculation overflowed",
)  # texts of torch's errors
PLUGINS = re.compile("Could not (find|load) 'hydra/(launcher/(joblib|submitit_slurm)|sweeper/optuna)'")
NO_TRIAL = {  # Optuna's message, and what it means
    **dict.fromkeys(
        ("No trials are completed yet.", "Record does not exist."),  # without a storage, and with one
        "a study must have a trial that completes, got none; see the errors of its jobs, of which the same command "
        "resumes interrupted ones",
    )
}
FULL_KEY = re.compile(r"full_key: (\S+)")
PACKAGE = Path(__file__).resolve().parents[1]
PROJECT = (PACKAGE, PACKAGE.parent / "hydra_plugins", PACKAGE.parents[1] / "scripts")
TRACEBACK = "BPTT_TRACEBACK"  # environment variable; train.py itself always sets HYDRA_FULL_ERROR
FROM_HYDRA = (HydraException, OmegaConfBaseException)
LOST_WORKER = "TerminatedWorkerError"  # of joblib: a worker process has died
MISCONFIGURATION = "MisconfigurationException"  # of Lightning, which need not be imported for its name
# Faults of input, a file, the disk or the installation.
FAULTS = (ValueError, OSError, YAMLError, HydraException, OmegaConfBaseException, ModuleNotFoundError)


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the program with one line and exit code 1 if input, a file or the disk is at fault.

    With BPTT_TRACEBACK=1 in the environment it ends with the traceback instead.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # under a Latin-1 locale "†" would end the program
            stream.reconfigure(errors="replace")
    try:
        yield
    except KeyboardInterrupt as error:  # not during training, where Lightning and our checkpoint handle it
        number = signal.Signals.__members__.get(str(error), signal.SIGINT)  # by which workers of a sweep were stopped
        print(interrupted_by(number), file=sys.stderr)
        logging.disable()  # torch, half imported, would log its statistics
        sys.exit(128 + number)
    except Exception as error:
        line = fault(error)
        if not line or os.environ.get(TRACEBACK) == "1":
            raise
        sys.exit(f"error: {line}")


def fault(error: Exception) -> str:
    """A line about a fault of input, a file, the disk, the memory or the installation; empty for other errors."""
    if isinstance(error, FAULTS):
        return one_line(error) + place_in_own_code(error)
    if line := fault_of_study(error):
        return line
    # torch has no exception type for too little CPU memory.
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and says_out_of_memory(error)):
        return f"a run must fit into memory, got {one_line(error) or 'too little'}; use smaller sizes"
    if type(error).__name__ == MISCONFIGURATION:
        return one_line(error)
    if raised_by_omegaconf(error):
        key = found[1] if (found := FULL_KEY.search(str(error))) else "a setting"
        return f"{key} must be one that OmegaConf can set, got {str(error).splitlines()[0]}; see {TRACEBACK}=1"
    return ""


def says_out_of_memory(error: RuntimeError) -> bool:
    return any(sign in str(error) for sign in OUT_OF_MEMORY)


def fault_of_study(error: Exception) -> str:
    """A line about an error of Optuna's storage or of a worker that has died; empty for others."""
    raised_in = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if type(error).__module__.startswith("sqlalchemy.") or raised_in[-1].startswith("optuna.storages."):
        wanted = "hydra.sweeper.storage must be a database to read and write"
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error  # Optuna's own words name none
        example = "such as sqlite:///study.db in a folder that exists"
        return f"{wanted}, {example}, got {one_line(cause).partition(' (Background')[0]}"
    if type(error).__name__ == LOST_WORKER:  # other sweeps name the jobs
        wanted = "a worker must live until its job ends, got one that was killed, for example by too little memory"
        return f"{wanted}; use fewer hydra.launcher.n_jobs, and see summary.json in the folder of each job"
    return ""


def place_in_own_code(error: BaseException) -> str:
    """Where a user's own code, called by this project, raised an error or called what raised it; else empty."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first one is that of `plain_errors`
    called = dropwhile(lambda frame: not is_in_project(Path(frame.filename)), frames)
    own = [frame for frame in called if not (is_in_project(path := Path(frame.filename)) or is_in_library(path))]
    return f"; raised in {own[-1].filename}:{own[-1].lineno}, see {TRACEBACK}=1" if own else ""


def is_in_project(path: Path) -> bool:
    return any(map(path.resolve().is_relative_to, PROJECT))  # scripts may be called by a path with `..`


def is_in_library(path: Path) -> bool:
    """True for installed packages, wherever they are, and Python's own files."""
    standard = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return path.name.startswith("<") or bool(installed) or any(map(path.is_relative_to, standard))


def raised_by_omegaconf(error: BaseException) -> bool:
    """True for an error of OmegaConf's own code, which assumes types that a command line need not have."""
    return Path(traceback.extract_tb(error.__traceback__)[-1].filename).parent.name == "omegaconf"


def one_line(error: BaseException) -> str:
    """The cause of an error in one line, without the text that Hydra wraps around it."""
    if isinstance(error, InstantiationException):
        section = str(error).rpartition("full_key: ")[2].strip() if "full_key: " in str(error) else ""
        cause = error.__cause__ or error
        text = " ".join(str(cause).split())
        known = isinstance(cause, (ValueError, TypeError, *FAULTS)) or type(cause).__name__ == MISCONFIGURATION
        if not known:  # most likely a bug: name its source line
            frame = traceback.extract_tb(cause.__traceback__)[-1]
            text = f"{type(cause).__name__}: {text} in {frame.filename}:{frame.lineno}; see {TRACEBACK}=1"
        if unexpected := re.search("got an unexpected keyword argument '(.*?)'", text):  # an experiment may set it
            key = f"{section}.{unexpected[1]}"
            if key in ABSENT:
                return f"{key} must be {ABSENT[key]}"
            added = [word for word in sys.argv[1:] if word.startswith("+") and f".{unexpected[1]}=" in word]
            if added:
                return f"{section}: {text}; leave {added[0]} out, as all settings are shown by --cfg job"
            if any(word.startswith("run=") for word in sys.argv[1:]):
                return f"{section}: {text}; the run's configuration is of another version, or was edited"
            inner = ["model.layer", "initialisation"] if section == "model" else []  # instantiated inside the model
            text += "; leave it out by "
            text += " or ".join(f"~{name}.{unexpected[1]}" for name in (section or "…", *inner))
        return f"{section}: {text}" if section else text
    if PLUGINS.search(str(error)):
        return "launchers and Optuna must be installed to be chosen; say pip install -e '.[launchers]'"
    from_hydra = isinstance(error, FROM_HYDRA) or str(error).startswith("Config group override")
    if from_hydra and (better := unknown_key(f"{error} {error.__cause__}", sys.argv[1:]) or clearer_message(error)):
        return better
    return NO_TRIAL.get(str(error)) or " ".join(str(error).split())
