"""The launcher `hydra/launcher=slurm`, which Hydra finds in the installed package."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus

from bptt.configuration.errors import one_line
from bptt.lightning.terminal import say
from bptt.sweeps.manifest import Manifest
from bptt.sweeps.slurm import SubmittedJobs, ended

LONGEST = 300  # characters of a reason

with suppress(ImportError):  # without the extra `launchers`
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher

    class Slurm(SlurmLauncher):  # type: ignore[misc]  # submitit's launcher has no types
        """Submits jobs like its base class, writes their numbers to the sweep's folder, and uses squeue to see their
        ends.

        The base class uses sacct. Without accounting it waits for a cancelled job for ever. With accounting it raises
        an error for a cancelled job, although the others still run.
        """

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            import submitit
            from submitit.core.utils import JobPaths

            assert self.config is not None
            sweep = Path(str(self.config.hydra.sweep.dir))
            sweep.mkdir(parents=True, exist_ok=True)
            options = dict(self.params)
            folder, timeouts = options.pop("submitit_folder"), options.pop("max_num_timeout")
            SubmittedJobs(sweep).check_all_recorded(JobPaths.get_first_id_independent_folder(folder))
            executor = submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=timeouts)
            shared = BaseQueueConf.__dataclass_fields__
            executor.update_parameters(**{key if key in shared else f"slurm_{key}": options[key] for key in options})
            calls = [
                ([*words], "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state())
                for number, words in enumerate(job_overrides, initial_job_idx)
            ]
            names = [folder_of(words) or f"job {number}" for words, _, number, *_ in calls]
            jobs = dict(zip(names, executor.map_array(self, *zip(*calls))))
            SubmittedJobs(sweep).add({name: job.job_id for name, job in jobs.items()})
            returns = {}
            for name, has_result in ended(jobs):
                recorded = str(Manifest(sweep).newest().get(name, {}).get("error", ""))
                returns[name] = job_return(name, jobs[name], has_result=has_result, recorded=recorded)
            return [returns[name] for name in names]


def folder_of(overrides: Sequence[str]) -> str | None:
    """A job's folder relative to the sweep's, or None if its overrides do not set it."""
    given = [word for word in overrides if word.startswith("hydra.sweep.subdir=")]
    return str(OverridesParser.create().parse_override(given[-1]).value()) if given else None


def job_return(name: str, job: Any, *, has_result: bool, recorded: str = "") -> JobReturn:
    """The result of one of submitit's jobs; a failure if the job was lost. Prints a line to stderr for each failure.

    recorded: the error in the sweep's record. What submitit brings back of an exception lacks the exception's cause.
    """
    result = None
    try:
        if has_result:
            result = job.task(0).result()
            if result.status != JobStatus.FAILED:
                return result
            error = recorded or one_line(result._return_value)  # the latter if submitit raised it, out of time
            line = f"failed: {error[:LONGEST]}"
        else:
            line = "was cancelled or lost"
    except Exception as error:  # submitit raises it if it ended the job's process
        line = f"ended without a result: {one_line(error)[:LONGEST]}"
    line = f"Slurm's job {job.job_id} {line}"
    say(f"{name}: {line}; its log is {job.task(0).paths.stderr}", error=True)
    return result or JobReturn(status=JobStatus.FAILED, _return_value=RuntimeError(line))
