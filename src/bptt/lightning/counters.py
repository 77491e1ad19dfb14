"""Counters of training progress."""

from dataclasses import dataclass


@dataclass
class Counters:
    """Amount of training so far, logged with every point of a curve.

    updates: optimizer steps. batches: complete batches. timesteps: sum of T·B, over all processes.
    """

    updates: int = 0
    batches: int = 0
    timesteps: int = 0


@dataclass
class StreamPosition:
    """The next batch to read: `batch`, counted within `epoch`."""

    epoch: int = 0
    batch: int = 0
