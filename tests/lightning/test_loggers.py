"""Content of the files of scalars of a run."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from bptt import metrics_file
from bptt.lightning.loggers import EventLogger


def test_scalars_of_one_step_are_one_event(tmp_path: Path) -> None:
    logger = EventLogger(tmp_path)
    logger.log_metrics({"one": 1.5, "other": -2.0}, step=3)
    logger.log_metrics({"one": float("inf")}, step=2**40)
    logger.finalize("success")
    (path,) = tmp_path.glob("events.out.tfevents.*")
    events = [event for event in EventFileLoader(str(path)).Load() if event.summary.value]
    found = [(event.step, {value.tag: value.tensor.float_val[0] for value in event.summary.value}) for event in events]
    assert found == [(3, {"one": 1.5, "other": -2.0}), (2**40, {"one": float("inf")})]


@pytest.mark.parametrize(
    "tail", [b"3,lo", b"\xd7\xff\x00,", b"\0" * 40, b"4,loss,?\n5,loss,1.0\n", b'3,"' + b"y" * 200_000]
)
@pytest.mark.parametrize("with_head", [True, False])
def test_a_damaged_end_of_scalars(tmp_path: Path, tail: bytes, with_head: bool) -> None:
    """What is before it stays, also without the head, and the next lines follow."""
    path = tmp_path / "metrics.csv"
    lines = [(1, "loss", 0.5), (2, "loss", 0.25)]
    metrics_file.add(path, lines)
    path.write_bytes((path.read_bytes() if with_head else b"1,loss,0.5\r\n2,loss,0.25\r\n") + tail)
    assert list(metrics_file.read(path)) == lines
    metrics_file.discard_after(path, 1)
    metrics_file.add(path, [(3, "loss", 0.75)])
    assert path.read_text(encoding="utf-8").split() == ["step,tag,value", "1,loss,0.5", "3,loss,0.75"]
