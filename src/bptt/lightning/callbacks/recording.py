"""What callbacks that watch the gradient have in common."""

from lightning import Callback, LightningModule, Trainer

from bptt.measures.passes import PassRecorder


class RecordingCallback(Callback):
    """Closes its `watch`, which it opens when a fit starts, where the fit ends, however that comes."""

    recorder: PassRecorder | None = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.close()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.close()

    def close(self) -> None:
        if self.recorder is not None:
            self.recorder.close()
