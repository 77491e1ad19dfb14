"""Signals that ask a run to stop."""

import signal
import threading
from typing import Any

# Schedulers send SIGTERM, a person SIGINT (Ctrl-C), a lost connection SIGHUP, Slurm SIGUSR1 before it requeues a job.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class StopSignals:
    """Keeps the first signal that arrives, until training can write a checkpoint. A second Ctrl-C ends it at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._former: dict[int, Any] = {}

    def catch(self) -> None:
        """Install the handlers. Python allows that in the main thread only; elsewhere nothing is caught."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                former = signal.signal(number, self._on_signal)
                if former != self._on_signal:
                    self._former[number] = former

    def restore(self) -> None:
        """Set the handlers that were there before."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def _on_signal(self, number: int, _: Any) -> None:
        if number == signal.SIGINT and self.received is not None:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)
