"""Content of the event files of a run."""

from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

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
