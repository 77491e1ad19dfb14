"""A run's row in TensorBoard's HParams table."""

import time
from collections.abc import Mapping

from lightning import Trainer
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionStartInfo,
)

from bptt.lightning.callbacks.base import TrainingCallback
from bptt.lightning.loggers import writers
from bptt.lightning.module import BPTTModule


class Hyperparameters(TrainingCallback):
    """Writes the run's hyperparameters to TensorBoard's HParams table when training starts.

    The table's metrics are the last values of all curves of the run, such as validation/loss or
    gradient_flow/layer1/horizon. By default TensorBoard shows the first five in alphabetical order. They begin with
    best/validation_loss (or the monitored metric) and cost/wall_seconds.

    values: hyperparameters by name. Runs in the same table may have different names.
    """

    # Why not `log_hyperparams`? (1) It declares columns, and TensorBoard uses the first run's columns for all. Without
    # a declaration it collects them from all runs. (2) It marks the run as finished, which cannot be undone on resume.

    def __init__(self, values: Mapping[str, bool | int | float | str]):
        self.values = values

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None:
        info = SessionStartInfo(start_time_secs=time.time())
        for name, value in self.values.items():
            kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
            setattr(info.hparams[name], f"{kind}_value", value)
        described = metadata.create_summary_metadata(HParamsPluginData(session_start_info=info))
        entry = Summary.Value(tag=metadata.SESSION_START_INFO_TAG, metadata=described, tensor=metadata.NULL_TENSOR)
        for writer in writers(trainer):
            writer._get_file_writer().add_summary(Summary(value=[entry]))
