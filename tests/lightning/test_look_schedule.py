"""When callbacks look."""

from typing import Any

import pytest

from bptt.lightning.callbacks.look_schedule import LookSchedule


def due(schedule: LookSchedule, last: int) -> list[int]:
    return [update for update in range(1, last + 1) if schedule.due(update)]


def test_every_so_many_updates() -> None:
    assert due(LookSchedule(10, log_spaced=False), 35) == [10, 20, 30]
    assert due(LookSchedule(1, log_spaced=False), 4) == [1, 2, 3, 4]


def test_log_spaced_at_the_beginning_too() -> None:
    """Most happens in the first updates."""
    assert due(LookSchedule(100), 300) == [1, 2, 4, 8, 16, 32, 64, 100, 128, 200, 256, 300]


@pytest.mark.parametrize("wrong", [0, -3, 1.5, True, "often"])
def test_refuses_what_is_no_number_of_updates(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="every_n_updates"):
        LookSchedule(wrong)
