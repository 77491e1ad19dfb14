"""A run in TensorBoard's table of runs."""

import math
import time
from collections.abc import Mapping
from contextlib import suppress

from lightning import Callback, LightningModule, Trainer
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionStartInfo,
)

from bptt.lightning.callbacks.summary import RunSummary
from bptt.lightning.callbacks.truncation_bias import TruncationBias
from bptt.lightning.checkpoint import Checkpoint
from bptt.lightning.loggers import writers
from bptt.lightning.module import BPTTModule


class Hyperparameters(Callback):
    """Enters the run with its hyperparameters in the table under HPARAMS when training begins.

    The table's metrics are the last values of the run's curves: validation/loss, gradient_flow/layer1/horizon and all
    others. Of these TensorBoard shows the first five unasked, and first comes what is logged when training ends, under
    `at_end/`: best_validation_loss, or whatever metric is monitored, truncation_bias (relative, of the chunk size in
    use) and wall_seconds. After these comes the gradient flow of layer 1.

    values: hyperparameters by name. Runs of one table may have different ones.
    """

    # Lightning's log_hyperparams also declares which columns there are, and TensorBoard believes the first run it finds
    # for all. Undeclared, they are gathered from all runs: hyperparameters that differ come first, and metrics in the
    # order of the alphabet, so `at_end/` before the others. It also says that the run has ended, which TensorBoard
    # believes once and for all; but a run may be resumed. Then what was logged at the end is forgotten, as it lies one
    # step beyond the last checkpoint.

    def __init__(self, values: Mapping[str, bool | int | float | str]):
        self.values = values

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        info = SessionStartInfo(start_time_secs=time.time())
        for name, value in self.values.items():
            kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
            setattr(info.hparams[name], f"{kind}_value", value)
        described = metadata.create_summary_metadata(HParamsPluginData(session_start_info=info))
        entry = Summary.Value(tag=metadata.SESSION_START_INFO_TAG, metadata=described, tensor=metadata.NULL_TENSOR)
        for writer in writers(trainer):
            writer._get_file_writer().add_summary(Summary(value=[entry]))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.close(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        with suppress(OSError):  # a full disk must not keep the callbacks after this one from saying so
            self.close(trainer, pl_module)

    def close(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, BPTTModule)
        found: dict[str, float | None] = {}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set behind its annotations
            if isinstance(callback, Checkpoint):
                found[f"best_{callback.monitor.replace('/', '_')}"] = callback.best
            elif isinstance(callback, RunSummary):
                found["wall_seconds"] = time.monotonic() - callback.began
            elif isinstance(callback, TruncationBias):
                found["truncation_bias"] = callback.relative(module)
        for writer in writers(trainer):
            for name, value in found.items():
                if value is not None and math.isfinite(value):
                    writer.add_scalar(f"at_end/{name}", value, module.step_axis + 1)
