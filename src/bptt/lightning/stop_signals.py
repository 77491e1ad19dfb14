"""Signals that stop a run."""

import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Schedulers send SIGTERM, a person SIGINT (Ctrl-C), a lost connection SIGHUP, Slurm SIGUSR1 before it requeues a job.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
# Ignored when this process started, as nohup has it for SIGHUP, and shells for SIGINT of commands in the background.
IGNORED = {number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN}
early: list[signal.Signals] = []  # signals that arrived before training, which stops at its start
late: list[signal.Signals] = []  # signals that arrived while a run was ending: it completes, and its sweep stops


def keep_for_training(number: signal.Signals) -> None:
    """Keep a signal that arrives before training: training then stops at its start, with a checkpoint.

    By default SIGUSR1 ends a process that is still importing, and Slurm does not requeue its job. submitit ignores a
    SIGTERM until Slurm kills the job.
    """
    signal.signal(number, lambda number, _: early.append(signal.Signals(number)))


@contextmanager
def signals_of_a_run() -> Iterator[None]:
    """Put the handlers of signals back after a run.

    An interrupted run ends with 128 + the signal's number, as shells have it. Lightning ends it with 1, as a failure.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    except SystemExit as left:
        cause = left.__context__
        if not isinstance(cause, KeyboardInterrupt):
            raise
        raise SystemExit(exit_code(cause)) from cause
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def leaving_is_a_failure() -> Iterator[None]:
    """ValueError if own code leaves by sys.exit: its exit code may be that of success."""
    try:
        yield
    except SystemExit as left:
        causes = (left.__cause__, left.__context__)
        if type(left) is not SystemExit or any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            raise
        if requeues(left):
            raise
        place = traceback.extract_tb(left.__traceback__)[-1]
        got = f"sys.exit({left.code}) in {place.filename}:{place.lineno}"
        remedy = "raise an error, or set trainer.should_stop = True"
        raise ValueError(f"training must end by itself, got {got}; {remedy}") from left


def requeues(error: BaseException) -> bool:
    """True for the exit by which submitit's handler leaves when it has queued a Slurm job again."""
    if not isinstance(error, SystemExit):
        return False
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    return bool(innermost.f_globals.get("__name__", "").startswith("submitit."))


@contextmanager
def handled_by(handler: Callable[[int, Any], None], *numbers: signal.Signals) -> Iterator[None]:
    """Within the block, signals call a handler, unless they are ignored."""
    before = {number: signal.getsignal(number) for number in numbers}
    for number, former in before.items():
        if former != signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def exit_code(error: KeyboardInterrupt) -> int:
    """128 + the number of the signal that the error names, by default of Ctrl-C."""
    return 128 + signal.Signals.__members__.get(str(error), signal.SIGINT)


class StopSignals:
    """Records the first signal, so that training can write a checkpoint before it stops.

    A second Ctrl-C raises KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._former: dict[int, Any] = {}
        self._restored = False
        self._finished = False

    def catch(self) -> None:
        """Install the handlers, but not of signals that were ignored when the process started.

        Does nothing outside the main thread, because Python allows handlers only there.
        """
        self._restored = self._finished = False
        if threading.current_thread() is threading.main_thread():
            for number in set(SIGNALS) - IGNORED:
                former = signal.signal(number, self._on_signal)
                if former != self._on_signal:
                    self._former.setdefault(number, former)
            if early:
                self.received = self.received or early.pop()

    def restore(self) -> None:
        """Install the previous handlers again, but not of SIGINT once Lightning ignores it, while it ends a run."""
        for number, handler in self._former.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        self._restored = True

    def finish(self) -> None:
        """From now on, and for a signal that was not answered, let the run complete and its sweep stop."""
        self._finished = True
        if self.received is not None:
            late.append(self.received)

    def _on_signal(self, number: int, _: Any) -> None:
        if self._finished:
            late.append(signal.Signals(number))
            return
        if self._restored:  # Lightning has put this handler back, after an exception
            signal.signal(number, self._former.get(number, signal.SIG_DFL))
            signal.raise_signal(number)
            return
        if number == signal.SIGINT and self.received is not None:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)
