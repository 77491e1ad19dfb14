"""The file of curves in the run folder."""

from pathlib import Path

import numpy as np
import pytest
from sample_runs import bias, by_timestep, decaying

from bptt.tensorboard_tab.history import MAX_LOOKS, CurveHistory


def history(steps: list[int]) -> CurveHistory:
    made = CurveHistory()
    for step in steps:
        flow = decaying(5 + step % 3, decay=0.5, update=step)
        later = by_timestep(flow, start=step, borders=list(range(step % 3)))
        made.add(step, {"layer1/h/by_lag": flow, "layer1/h/by_timestep": later, "truncation_bias": bias(4, strength=1)})
    return made


def test_arrays_by_tag_and_column(tmp_path: Path) -> None:
    history([1, 2, 3]).save(tmp_path / "curves" / "gradient_flow.npz")
    with np.load(tmp_path / "curves" / "gradient_flow.npz") as file:
        assert file["layer1/h/by_lag/step"].tolist() == [1, 2, 3]
        medians = file["layer1/h/by_lag/median"]
        assert medians.shape == (3, 7)
        np.testing.assert_allclose(medians[1], 0.5 ** np.arange(7))
        assert np.isnan(medians[0]).tolist() == [False] * 6 + [True]
        assert file["layer1/h/by_lag/fact/update"].tolist() == [1, 2, 3]
        assert file["layer1/h/by_timestep/places"][0, 0] == 1
        assert file["truncation_bias/cosine"].shape == (3, 4)
        borders = file["layer1/h/by_timestep/fact/borders"]
        assert np.nan_to_num(borders, nan=-1).tolist() == [[0, -1], [0, 1], [-1, -1]]


def test_a_resumed_run_continues_after_its_checkpoint(tmp_path: Path) -> None:
    """Looks after the checkpoint are taken again, so that the file is that of a run that was not interrupted."""
    path = tmp_path / "curves.npz"
    history([1, 2, 3, 4, 5]).save(path)
    resumed = CurveHistory.load(path, until=3)
    again = history([4, 5])
    for step in (4, 5):
        resumed.add(step, {tag: looks[step] for tag, looks in again.looks.items()})
    resumed.save(tmp_path / "resumed.npz")
    with np.load(path) as whole, np.load(tmp_path / "resumed.npz") as found:
        assert set(whole.files) == set(found.files)
        for name in whole.files:
            np.testing.assert_array_equal(found[name], whole[name])


def test_without_a_file_or_looks_there_is_nothing(tmp_path: Path) -> None:
    empty = CurveHistory.load(tmp_path / "missing.npz", until=9)
    assert empty.looks == {}
    empty.save(tmp_path / "empty.npz")
    assert not (tmp_path / "empty.npz").exists()


@pytest.mark.parametrize("interrupted", [3, MAX_LOOKS, MAX_LOOKS + 1, MAX_LOOKS + 88, 3 * MAX_LOOKS + 1])
def test_a_resumed_run_thins_as_one_that_was_not_interrupted(tmp_path: Path, interrupted: int) -> None:
    curve = {"layer1/h/by_lag": decaying(2, decay=0.5)}
    whole, part = CurveHistory(), CurveHistory()
    for step in range(4 * MAX_LOOKS):
        whole.add(step, curve)
    for step in range(interrupted + 5):  # beyond the checkpoint
        part.add(step, curve)
    part.save(tmp_path / "curves.npz")
    resumed = CurveHistory.load(tmp_path / "curves.npz", until=interrupted - 1)
    for step in range(interrupted, 4 * MAX_LOOKS):
        resumed.add(step, curve)
    assert list(resumed.looks["layer1/h/by_lag"]) == list(whole.looks["layer1/h/by_lag"])


def test_looks_of_long_runs_are_thinned_in_equal_strides() -> None:
    made = CurveHistory()
    curve = decaying(2, decay=0.5)
    for step in range(5 * MAX_LOOKS):
        made.add(step, {"layer1/h/by_lag": curve})
    steps = list(made.looks["layer1/h/by_lag"])
    assert MAX_LOOKS // 2 <= len(steps) <= MAX_LOOKS
    assert len(set(np.diff(steps))) == 1
    assert steps[0] == 0
    assert steps[-1] > 4.9 * MAX_LOOKS
