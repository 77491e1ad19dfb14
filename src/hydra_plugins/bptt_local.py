"""The launcher `hydra/launcher=local`, which Hydra finds in the installed package."""

from collections.abc import Sequence
from contextlib import suppress

from hydra.core.utils import JobReturn

from bptt.sweeps.local_workers import begin_worker, signals_for_workers

with suppress(ImportError):  # without the extra `launchers`
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

    class Local(JoblibLauncher):  # type: ignore[misc]  # the launcher has no types
        """Runs jobs like its base class, and stops them after a checkpoint. joblib itself would kill its workers."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            self.joblib["initializer"] = begin_worker
            with signals_for_workers():
                returns: Sequence[JobReturn] = super().launch(job_overrides, initial_job_idx)
            return returns
