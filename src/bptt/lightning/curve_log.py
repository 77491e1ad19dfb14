"""Output of a callback's curves to TensorBoard's tab "Gradient flow" and to a file in the run folder."""

from collections.abc import Mapping
from pathlib import Path

from lightning import Trainer
from tensorboard.compat.proto.summary_pb2 import Summary

from bptt.lightning.folder_place import FolderPlace
from bptt.lightning.loggers import writers
from bptt.lightning.module import BPTTModule
from bptt.lightning.terminal import say
from bptt.run_folder import RunFolder
from bptt.tensorboard_tab.curve import Curve
from bptt.tensorboard_tab.history import CurveHistory
from bptt.tensorboard_tab.summary import summary_value


class CurveLog:
    """Curves of all looks of one callback, kept on the first process.

    name: stem of the file `curves/NAME.npz`. `start` must be called when training starts, `save` with every checkpoint
    and at the end. A resumed run continues with the curves up to its checkpoint.
    """

    def __init__(self, name: str):
        self.name = name
        self.history = CurveHistory()
        self._place: FolderPlace | None = None

    def path(self, trainer: Trainer) -> Path:
        return RunFolder(Path(trainer.default_root_dir)).curves(self.name)

    def start(self, trainer: Trainer, module: BPTTModule) -> None:
        """Start empty, or with the looks up to the checkpoint that the run is resumed from."""
        self.history = CurveHistory()
        self._place = FolderPlace(Path(trainer.default_root_dir))
        if trainer.ckpt_path is not None and trainer.is_global_zero:
            try:
                self.history = CurveHistory.load(self.path(trainer), until=module.step_axis)
            except ValueError as error:
                say(f"skipped, so that its curves begin anew: {error}", error=True)

    def add(self, trainer: Trainer, module: BPTTModule, curves: Mapping[str, Curve]) -> None:
        """Log the curves of a look by tag, in one event."""
        if not trainer.is_global_zero or not curves:
            return
        self.history.add(module.step_axis, curves)
        event_writers = writers(trainer)
        if event_writers:
            values = [summary_value(tag, curve) for tag, curve in curves.items()]
            for writer in event_writers:
                writer._get_file_writer().add_summary(Summary(value=values), module.step_axis)

    def save(self, trainer: Trainer) -> None:
        """Write the file; FileNotFoundError if the run folder was moved or replaced."""
        if trainer.is_global_zero:
            if self._place is not None:
                self._place.check()
            self.history.save(self.path(trainer))
