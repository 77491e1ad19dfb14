"""Division of series into B contiguous streams, and of streams into batches."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class Stretch(NamedTuple):
    """Rows start … stop − 1 of a series that begins at row `origin`; its targets lie before row `limit`.

    Rows before `due` only advance the state: no prediction is due there.
    """

    start: int
    stop: int
    origin: int
    limit: int
    due: int = 0

    @property
    def size(self) -> int:
        return self.stop - self.start

    def warmed_up(self, num_rows: int) -> "Stretch":
        """The stretch with at most `num_rows` rows of its series before it, at which no prediction is due."""
        return self._replace(start=max(self.origin, self.start - num_rows), due=self.start)


class Window(NamedTuple):
    """Rows that a stream reads in one batch, at timesteps from `timestep` on. begins: true if a piece begins there."""

    stretch: Stretch
    timestep: int
    begins: bool


def batches_of(stream: Sequence[Stretch], length: int) -> list[list[Window]]:
    """The windows of each batch: `length` consecutive rows of the stream's pieces; the last batch may be shorter."""
    batches: list[list[Window]] = []
    room = 0
    for piece in stream:
        start = piece.start
        while start < piece.stop:
            if room == 0:
                batches.append([])
                room = length
            stop = min(piece.stop, start + room)
            window = Window(piece._replace(start=start, stop=stop), length - room, start == piece.start)
            batches[-1].append(window)
            room -= stop - start
            start = stop
    return batches


def divide(stretches: Sequence[Stretch], num_streams: int) -> list[list[Stretch]]:
    """Cut stretches into pieces and distribute them over streams of about the same number of rows.

    A single stretch becomes one contiguous piece per stream. Each stream is sorted by rows. Streams may be empty if
    there are fewer rows than streams.
    """
    total = sum(stretch.size for stretch in stretches)
    pieces: list[Stretch] = []
    for stretch in stretches:
        size = stretch.size
        parts = min(size, -(-size * num_streams // max(total, 1)))  # rounded up
        borders = [stretch.start + size * part // max(parts, 1) for part in range(parts + 1)]
        pieces += [stretch._replace(start=start, stop=stop) for start, stop in pairwise(borders)]
    streams: list[list[Stretch]] = [[] for _ in range(num_streams)]
    loads = [0] * num_streams
    for piece in sorted(pieces, key=lambda piece: piece.start - piece.stop):  # longest first, to the emptiest stream
        emptiest = loads.index(min(loads))
        streams[emptiest].append(piece)
        loads[emptiest] += piece.size
    return sorted((sorted(stream) for stream in streams), key=lambda stream: stream[:1])
