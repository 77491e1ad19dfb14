"""Event files, against TensorBoard's own reader and writer."""

import io
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from bptt.lightning.events import EventFile, EventWriter, record
from bptt.run_folder import RunFolder
from bptt.runs.reading import read_curves


def steps(folder: Path) -> list[list[int]]:
    """Steps of the points of each file; the oldest file comes first."""
    files = sorted(folder.glob("events.out.tfevents.*"), key=lambda path: int(path.name.split(".")[-2]))
    loaded = ([event for event in EventFileLoader(str(path)).Load() if event.summary.value] for path in files)
    return [[event.step for event in events] for events in loaded]


@given(st.binary(max_size=5000))
def test_records_are_those_of_tensorboard(data: bytes) -> None:
    expected = io.BytesIO()
    RecordWriter(expected).write(data)
    assert record(data) == expected.getvalue()


def test_each_event_is_on_the_disk_once_it_is_added(tmp_path: Path) -> None:
    file = EventFile(tmp_path)
    for step in range(3):
        file.add_event(Event(step=step, summary=Summary(value=[Summary.Value(tag="loss", simple_value=0.5)])))
        assert steps(tmp_path) == [list(range(step + 1))]
    file.close()


def test_the_first_value_of_each_tag_is_described(tmp_path: Path) -> None:
    """TensorBoard reads it from there; the values are read as before."""
    file = EventFile(tmp_path)
    tags = ("gradient_flow/layer2/horizon", "validation/loss")
    for step in range(2):
        values = [Summary.Value(tag=tag, simple_value=0.5 + step) for tag in tags]
        file.add_event(Event(step=step, summary=Summary(value=values)))
    file.close()
    (path,) = tmp_path.iterdir()
    described = [
        [value.metadata.summary_description for value in event.summary.value]
        for event in EventFileLoader(str(path)).Load()
        if event.summary.value
    ]
    assert described[0][0].startswith("Largest lag, in timesteps")
    assert [described[0][1], *described[1]] == ["", "", ""]
    read = EventAccumulator(str(path)).Reload()
    assert [[point.value for point in read.Scalars(tag)] for tag in tags] == [[0.5, 1.5]] * 2


def test_writer_goes_on_in_a_new_file_once_closed(tmp_path: Path) -> None:
    writer = EventWriter(str(tmp_path))
    writer.add_scalar("loss", 1.0, 3)
    writer.close()
    writer.add_scalar("loss", 1.0, 4)
    assert steps(tmp_path) == [[3], [4]]
    assert writer.get_logdir() == str(tmp_path)
    writer.close()


def test_files_are_in_order_although_the_clock_was_set_back(tmp_path: Path) -> None:
    """Points of the resumed run come after those of the killed one, both for our reader and for TensorBoard's."""
    ahead = int(time.time()) + 3600
    killed = EventWriter(str(tmp_path))
    for step in (1, 2, 3):
        killed.add_scalar("loss", 1.0, step)
    killed.close()
    (file,) = RunFolder(tmp_path).events
    file.rename(tmp_path / f"events.out.tfevents.{ahead}.host.1.0.bptt")
    resumed = EventWriter(str(tmp_path))
    resumed.add_scalar("loss", 0.5, 2)
    resumed._get_file_writer().event_writer.add_event(Event(step=2, session_log=SessionLog(status=SessionLog.START)))
    resumed.add_scalar("loss", 0.5, 2)
    resumed.close()
    assert [path.name.split(".")[3] for path in RunFolder(tmp_path).events] == [str(ahead), str(ahead + 1)]
    assert read_curves(tmp_path, wanted=re.compile("loss")) == {"loss": {1: 1.0, 2: 0.5}}
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert [(point.step, point.value) for point in shown.Scalars("loss")] == [(1, 1.0), (2, 0.5)]


def test_where_no_file_can_be_each_point_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writer = EventWriter(str(tmp_path / "folder"))
    writer.close()
    writer.log_dir = str(tmp_path / "file")
    for _ in range(2):
        with pytest.raises(OSError, match="File exists"):
            writer.add_scalar("loss", 1.0, 3)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    events = EventFile(tmp_path)
    path = Path(events.file.name)
    events.close()
    path.unlink()
    path.symlink_to("/dev/full")
    events.file = path.open("wb", buffering=0)
    with pytest.raises(OSError, match="No space left on device") as full:
        events.add_event(Event(step=1))
    assert full.value.filename == str(path)
    events.close()
