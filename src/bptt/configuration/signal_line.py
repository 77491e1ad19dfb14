"""The line about a signal that ended a program. Imports the standard library alone, to be there from the start."""

import signal


def interrupted_by(number: int) -> str:
    """The line about a signal that came before a run began."""
    cause = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    return f"interrupted by {cause}; the same command starts again"
