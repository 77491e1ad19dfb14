"""A grid sweep that can be resumed: the sweeper of every multirun, unless `sweeper=` chooses another."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from omegaconf import open_dict

from bptt.atomic_files import replace_text
from bptt.configuration.compose import quoted
from bptt.configuration.errors import LOST_WORKER, one_line
from bptt.contracts import refusal
from bptt.lightning.stop_signals import exit_code, handled_by
from bptt.lightning.terminal import lasting_output, say
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.hydra_files import TornConfigurationError, as_yaml
from bptt.runs.resumption import check_configuration
from bptt.sweeps.composition import CheckedJobs
from bptt.sweeps.local_workers import runs_in_workers
from bptt.sweeps.manifest import LAUNCH, Manifest, files_digest, identity, job_state, recorded_state
from bptt.sweeps.names import as_written, folder_name
from bptt.sweeps.report import Job, counted, details, print_best, report
from bptt.sweeps.slurm import SubmittedJobs, with_remedy

LAUNCH_FILE = "multirun.yaml"
PAUSE = 15.0  # seconds between two lines about the jobs that have been composed


class GridSweeper(BasicSweeper):
    """Runs every combination of the swept values whose job is not finished.

    A job is finished if its folder holds a finished run of the same resolved configuration. An interrupted or failed
    job resumes from its checkpoint. A job that still runs, or waits in Slurm's queue, is not started again. Nothing
    runs if a folder holds another configuration, or if two jobs have the same folder. A finished job may be made
    longer, not shorter. The sweep ends with one line, and with exit code 1 if a job did not finish.
    """

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        assert self.config is not None
        assert self.launcher is not None
        sweep = Path(self.config.hydra.sweep.dir).absolute()
        jobs = self.jobs(sweep, arguments)
        if not jobs:
            raise ValueError(refusal("a sweep", "one job or more", 0, "a range or glob in it has no values"))
        heading = f"{self.config.hydra.sweep.dir}: {counted(jobs)}"
        if self.config.sweep.dry_run:
            with lasting_output():
                print(heading, *(f"{job.state:<11} {job.name}" for job in jobs), sep="\n")
            return []
        say(heading)
        left = [
            [*job.overrides, f"hydra.sweep.subdir={quoted(job.name)}"]
            for job in jobs
            if not (job.state.is_finished or job.state == RunStatus.RUNNING)
        ]
        if not left:
            if not all(job.state.is_finished for job in jobs):
                sys.exit(f"error: {counted(jobs)}{''.join(details(jobs, {}))}")
            return []
        if str(self.config.hydra.launcher._target_).endswith(".BasicLauncher"):
            import bptt.lightning.module  # noqa: F401  # here, because Ctrl-C while libraries are imported ends all at once
        sweep.mkdir(parents=True, exist_ok=True)
        returns: list[Sequence[JobReturn]] = []
        code = 1
        repeatable = True
        # The launcher of workers passes signals on to them.
        signals = () if runs_in_workers(self.config.hydra.launcher) else (signal.SIGTERM, signal.SIGHUP)
        with RunFolder(sweep).locked(key="hydra.sweep.dir"), handled_by(interrupt, *signals):
            replace_text(sweep / LAUNCH_FILE, as_yaml(self.config))
            Manifest(sweep).add(LAUNCH, jobs=len(left))
            try:
                for batch in self.split_overrides_to_chunks(left, self.max_batch_size):
                    returns.append(self.launcher.launch(batch, initial_job_idx=sum(map(len, returns))))
            except KeyboardInterrupt as error:  # raised between jobs, or in a launcher that waits for other processes
                say(f"interrupted by {str(error) or 'Ctrl-C'}", error=True)
                code = exit_code(error)
            except Exception as error:  # a launcher's worker processes died; `report` names the jobs that are left
                say(f"{type(error).__name__}: {with_remedy(one_line(error)[:500])}", error=True)
                repeatable = type(error).__name__ == LOST_WORKER
            finally:
                print_best(self.config, jobs)
                finished = report(sweep, jobs, interrupted=code != 1, repeatable=repeatable)
        if not finished:
            sys.exit(code)
        return returns

    def jobs(self, sweep: Path, arguments: Sequence[str]) -> list[Job]:
        """All jobs with their states; ValueError if a folder holds another configuration or would hold two jobs."""
        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*self._parse_config(), *arguments])
        swept = {each.get_key_element() for each in overrides if each.is_sweep_override()}
        for name in ("sweep", "sweeper"):
            if swept & {name, f"+{name}"}:  # jobs are composed without their sweep's values
                raise ValueError(refusal(name, "one choice in a command", "several", "launch one after the other"))
        given = as_written(self.config.hydra.overrides.hydra)
        default_names = not any(word.startswith("hydra.sweep.subdir=") for word in given)
        files = files_digest(self.config.hydra)
        manifest = Manifest(sweep)
        submitted = SubmittedJobs(sweep)
        in_queue = submitted.in_queue()  # first: it takes time, and jobs may end meanwhile
        records = manifest.newest()
        own_files = (manifest.path.name, submitted.path.name, LAUNCH_FILE)
        composed = CheckedJobs(loader, self.config)
        jobs_by_name: dict[str, Job] = {}
        combinations = list(chain.from_iterable(self.split_arguments(overrides, None)))
        said = time.monotonic()
        for number, job_overrides in enumerate(combinations):
            if time.monotonic() - said > PAUSE:
                said = time.monotonic()
                say(f"composed {number:,} of {len(combinations):,} jobs", error=True)
            name = folder_name([word for word in job_overrides if word.partition("=")[0] in swept])
            now = identity(job_overrides, files=files)
            record = records.get(name, {})
            same = checked = default_names and record.get("identity") == now and recorded_state(record).is_finished
            if not (checked or (default_names and composed.covers(job_overrides) and not (sweep / name).exists())):
                config = composed.compose(job_overrides)
                with open_dict(config):
                    config.hydra.job.num = number
                    HydraConfig.instance().set_config(config)
                    name = name if default_names else str(config.hydra.sweep.subdir)
                    del config["hydra"]
                with suppress(TornConfigurationError):  # the job itself fails with it, and the other jobs run
                    same = check_configuration(config, sweep / name)
            if not default_names and os.path.normpath(name).startswith((".", "/")):
                raise ValueError(refusal("hydra.sweep.subdir", "a folder inside the sweep's", name, "leave it out"))
            if (sweep / name).is_file() or name in own_files:
                raise ValueError(refusal("hydra.sweep.subdir", "no file of the sweep", name, "leave it out"))
            if name in jobs_by_name:
                other = jobs_by_name[name].overrides
                if list(other) == list(job_overrides):
                    raise ValueError(refusal("a sweep", "one of different jobs", name, "give each value once"))
                both = " and ".join(" ".join(job) for job in (other, job_overrides))
                wanted = "a folder of its own for every job"
                raise ValueError(refusal("hydra.sweep.subdir", wanted, name, f"it is that of {both}; leave it out"))
            state = job_state(sweep / name, records.get(name))
            if state.is_finished and not same:
                state = RunStatus.INTERRUPTED  # the job has more epochs or updates now
            elif not state.is_finished and (name in in_queue or RunFolder(sweep / name).is_locked):
                state = RunStatus.RUNNING  # submitted by a launch that was killed, or started as a single run
            elif state.is_finished and not (checked and recorded_state(records[name]) == state):
                # The next launch need not compose the job. The record may also lack its end, if its process was killed.
                manifest.add(**{**records.get(name, {}), "job": name, "state": state, "identity": now})
            jobs_by_name[name] = Job(name, job_overrides, state)
        return list(jobs_by_name.values())


def interrupt(number: int, _: Any) -> NoReturn:
    """A handler that raises KeyboardInterrupt with the signal's name."""
    raise KeyboardInterrupt(signal.Signals(number).name)
