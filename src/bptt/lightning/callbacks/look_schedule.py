"""Schedule of a callback's measurements."""

import random

from bptt.contracts import at_least, true_or_false


class LookSchedule:
    """Due at every multiple of `every_n_updates`, and with `log_spaced` at updates 1, 2, 4, 8, … too.

    drawn: instead of its first update, a random one of each interval between these is due. With a fixed number of
        updates a batch, the looks would otherwise always fall on the same chunk of a batch. The draw depends on the
        interval and `seed` alone, so a resumed run looks at the same updates.
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
        """True if the callback looks at update number `update`, counted from 1."""
        begin = update - update % self.every_n_updates
        power = 1 << (update.bit_length() - 1)
        return (begin > 0 and update == self._chosen(begin, self.every_n_updates)) or (
            self.log_spaced and update == self._chosen(power, power)
        )

    def _chosen(self, begin: int, length: int) -> int:
        """The update of begin … begin + length − 1 that is due."""
        return begin + random.Random(f"{self.seed} {begin} {length}").randrange(length) if self.drawn else begin


def power_of(base: int, number: int) -> bool:
    """True if number is 1, base, base², …"""
    while number > 1 and number % base == 0:
        number //= base
    return number == 1
