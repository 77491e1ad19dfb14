"""Processes that run a sweep's jobs on this machine, and how signals stop them after a checkpoint."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from bptt.lightning import stop_signals
from bptt.parent_process import is_orphaned, stop_with_parent

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOMENT = 0.05  # seconds that a Ctrl-C of the terminal needs to reach all processes


def runs_in_workers(launcher: DictConfig) -> bool:
    """True for the launchers that run jobs in processes of joblib."""
    return str(launcher._target_).endswith((".Local", ".JoblibLauncher"))


def begin_worker() -> None:
    """Prepare a worker: signals stop its job after a checkpoint, and between jobs all later ones."""
    for number in SIGNALS:
        signal.signal(number, _keep)
    stop_with_parent()


def _keep(number: int, _: Any) -> None:
    """Outside training: stop before the next training, or at once if the parent has died."""
    if is_orphaned():
        os._exit(128 + number)
    stop_signals.early.append(signal.Signals(number))


def is_worker() -> bool:
    """True in a worker, outside training."""
    return signal.getsignal(signal.SIGTERM) == _keep


def stop_worker() -> bool:
    """Let the later jobs of this process be skipped; false if it is no worker, and the sweep must end here."""
    if is_worker():
        stop_signals.early.append(signal.SIGTERM)
    return is_worker()


def worker_stops() -> bool:
    """True in a worker that has been stopped."""
    return is_worker() and bool(stop_signals.early)


@contextmanager
def signals_for_workers() -> Iterator[None]:
    """Within the block, a first signal stops the workers; then KeyboardInterrupt is raised with the signal's name.

    A second signal raises it at once, and joblib kills its workers.
    """
    received: list[str] = []

    def pass_on(number: int, _: Any) -> None:
        name = "" if number == signal.SIGINT else signal.Signals(number).name
        received.append(name)
        if len(received) > 1:
            raise KeyboardInterrupt(name)
        time.sleep(MOMENT)  # SIGINT after another signal would end training at once
        for child in children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)

    begin_tracker()
    try:
        with stop_signals.handled_by(pass_on, *SIGNALS):
            yield
    except Exception:  # a worker that was still starting has died of the signal
        if not received:
            raise
    if received:
        raise KeyboardInterrupt(received[0])


def begin_tracker() -> None:
    """Start joblib's tracker of resources so that it outlives a SIGHUP to all processes, as it does other signals.

    A tracker that is started again prints a traceback for everything that it does not know.
    """
    from joblib.externals.loky.backend import resource_tracker

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])  # it inherits the mask
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def children() -> list[int]:
    """The processes that this one has started (Linux)."""
    files = Path("/proc/self/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text(encoding="utf-8").split()]
