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
    assert due(LookSchedule(100), 300) == [1, 2, 4, 8, 16, 32, 64, 100, 200, 300]


def test_drawn_updates_are_not_always_the_same_chunk_of_a_batch() -> None:
    """One of each interval, spread over both chunks of a batch; again the same in a resumed run."""
    schedule = LookSchedule(100, log_spaced=False, drawn=True)
    found = due(schedule, 2099)
    assert [update // 100 for update in found] == list(range(1, 21))
    assert 4 <= sum(update % 2 for update in found) <= 16
    assert found == due(LookSchedule(100, log_spaced=False, drawn=True), 2099)
    assert found != due(LookSchedule(100, log_spaced=False, drawn=True, seed=1), 2099)
    assert due(LookSchedule(1, drawn=True), 3) == [1, 2, 3]
    early = due(LookSchedule(10**6, drawn=True), 255)
    assert [update.bit_length() for update in early] == list(range(1, 9))


@pytest.mark.parametrize("wrong", [0, -3, 1.5, True, "often"])
def test_refuses_what_is_no_number_of_updates(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="every_n_updates"):
        LookSchedule(wrong)
