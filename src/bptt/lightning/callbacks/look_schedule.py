"""Schedule of a callback's measurements."""

import random
from functools import lru_cache

from bptt.contracts import at_least, true_or_false


class LookSchedule:
    """Schedule of looks at every multiple of `every_n_updates`, and with `log_spaced` before also at 1, 2, 4, …

    A *look* is one measurement by a callback.

    drawn: if True, a random update of each interval between these is due instead of its first one. Otherwise, with a
        fixed number of updates per batch, all looks would fall on the same chunk of a batch. The draw depends only on
        the interval and `seed`, so a resumed run looks at the same updates.
    """

    def __init__(self, every_n_updates: int, *, log_spaced: bool = True, drawn: bool = False, seed: int = 0):
        at_least(1, every_n_updates=every_n_updates)
        at_least(0, seed=seed)
        true_or_false(log_spaced=log_spaced)
        self.every_n_updates = every_n_updates
        self.log_spaced = log_spaced
        self.drawn = drawn
        self.seed = seed

    def due(self, update: int) -> bool:
        """True if update number `update`, counted from 1, is measured."""
        begin = update - update % self.every_n_updates
        power = 1 << (update.bit_length() - 1)
        return (begin > 0 and update == self._chosen(begin, self.every_n_updates)) or (
            self.log_spaced and power < self.every_n_updates and update == self._chosen(power, power)
        )

    def _chosen(self, begin: int, length: int) -> int:
        """The due update among begin … begin + length − 1."""
        return drawn_from(begin, length, self.seed) if self.drawn else begin


@lru_cache(maxsize=64)  # asked several times for each update, and a generator takes 10 µs to seed
def drawn_from(begin: int, length: int, seed: int) -> int:
    """A random one of `length` numbers from `begin` on, always the same."""
    return begin + random.Random(f"{seed} {begin} {length}").randrange(length)


def power_of(base: int, number: int) -> bool:
    """True if number is 1, base, base², …"""
    while number > 1 and number % base == 0:
        number //= base
    return number == 1
