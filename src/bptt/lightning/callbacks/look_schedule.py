"""When a callback looks."""

from bptt.contracts import at_least, true_or_false


class LookSchedule:
    """Due at every multiple of `every_n_updates`, and with `log_spaced` at updates 1, 2, 4, 8, … too."""

    def __init__(self, every_n_updates: int, *, log_spaced: bool = True):
        at_least(1, every_n_updates=every_n_updates)
        true_or_false(log_spaced=log_spaced)
        self.every_n_updates = every_n_updates
        self.log_spaced = log_spaced

    def due(self, update: int) -> bool:
        """Whether update number `update`, counted from 1, is looked at."""
        return update % self.every_n_updates == 0 or (self.log_spaced and update & (update - 1) == 0)


def power_of(base: int, number: int) -> bool:
    """Whether number is 1, base, base², …"""
    while number > 1 and number % base == 0:
        number //= base
    return number == 1
