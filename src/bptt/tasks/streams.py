"""Division of series into B contiguous streams, and of those into batches."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple


class Stretch(NamedTuple):
    """Rows start … stop − 1 of a series that begins at row `origin`; its targets lie before row `limit`."""

    start: int
    stop: int
    origin: int
    limit: int

    def windows(self, length: int) -> Iterator["Stretch"]:
        """The stretch in parts of `length` rows, the last one shorter."""
        for start in range(self.start, self.stop, length):
            yield self._replace(start=start, stop=min(start + length, self.stop))


def divide(stretches: Sequence[Stretch], num_streams: int) -> list[list[Stretch]]:
    """Cut the stretches into pieces and put them into streams of about the same number of rows; nothing is left out.

    A single stretch becomes one contiguous piece per stream. Each stream is in the order of its rows; streams may be
    empty if there are fewer rows than streams.
    """
    total = sum(stretch.stop - stretch.start for stretch in stretches)
    pieces: list[Stretch] = []
    for stretch in stretches:
        size = stretch.stop - stretch.start
        parts = min(size, -(-size * num_streams // max(total, 1)))  # rounded up
        borders = [stretch.start + size * part // max(parts, 1) for part in range(parts + 1)]
        pieces += [stretch._replace(start=start, stop=stop) for start, stop in pairwise(borders)]
    streams: list[list[Stretch]] = [[] for _ in range(num_streams)]
    loads = [0] * num_streams
    for piece in sorted(pieces, key=lambda piece: piece.start - piece.stop):  # longest first, to the emptiest stream
        emptiest = loads.index(min(loads))
        streams[emptiest].append(piece)
        loads[emptiest] += piece.stop - piece.start
    return sorted((sorted(stream) for stream in streams), key=lambda stream: stream[:1])
