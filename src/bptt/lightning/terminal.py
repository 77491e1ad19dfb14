"""Output to a terminal or pipe that may close. A failed write must not end training."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache
from typing import TextIO


def say(text: str, *, error: bool = False) -> None:
    """Print a line to standard output or standard error. Discarded if the stream cannot be written any more."""
    stream = LastingStream(error=error)
    stream.write(f"{text}\n")
    stream.flush()


class LastingStream:
    """Standard output or error whose writes never raise. After a failed write, all further output is discarded.

    Writes fail for a closed terminal (EIO), a pipe without a reader (EPIPE), or a redirection to a full disk (ENOSPC).
    A stream that was closed when the process started (`>&-`) is None in Python; its output is discarded, too.
    """

    def __init__(self, *, error: bool = False, fixed: TextIO | None = None):
        self.error = error
        self.fixed = fixed
        self.failure: OSError | None = None  # of the first failed write

    @property
    def stream(self) -> TextIO:
        """`fixed`, or the current standard stream, looked up each time because tests and notebooks replace it."""
        return self.fixed or (sys.stderr if self.error else sys.stdout) or nowhere()

    @property
    def encoding(self) -> str:
        return self.stream.encoding

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError as error:
            self.discard(error)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self.discard(error)

    def discard(self, error: OSError) -> None:
        """Redirect the stream to the null device, for the whole process, and discard its buffer.

        Otherwise each later write, for example by a logger or at the interpreter's exit, would fail again.
        """
        self.failure = self.failure or error
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)


OUTPUT = LastingStream()  # of Hydra's log messages; see conf/hydra/job_logging


class ConsoleStream(LastingStream):
    """The stream that a console of rich writes to.

    A live display replaces `sys.stdout` and `sys.stderr` by proxies that print through its console. The console itself
    must write to the streams behind them, or it would call itself without end.
    """

    @property
    def stream(self) -> TextIO:
        current = super().stream
        return getattr(current, "rich_proxied_file", current)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Within the block, discard what cannot be written to standard output or error, instead of raising.

    After it OSError if lines of standard output are lost on a full disk. A reader who has left misses nothing.
    """
    output, errors = LastingStream(fixed=sys.stdout or nowhere()), LastingStream(fixed=sys.stderr or nowhere())
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            yield
        except SystemExit as end:  # after a page of help
            if end.code:
                raise
        finally:
            output.flush()
            errors.flush()
    if output.failure is not None and output.failure.errno not in (errno.EPIPE, errno.EIO):
        raise OSError(output.failure.errno, output.failure.strerror, "standard output")


@cache
def nowhere() -> TextIO:
    """A stream that discards what is written."""
    return open(os.devnull, "w", encoding="utf-8")
