"""A sweep that goes on where it was left. Hydra finds plugins in packages of this name."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf, open_dict
from resumption import check_configuration, locked, quoted
from sweep_manifest import LAUNCH, Manifest, files_digest, identity, state
from sweep_names import as_written, folder_name


class Job(NamedTuple):
    """name: its folder below the sweep's. state: as in the manifest, or missing."""

    name: str
    overrides: Sequence[str]
    state: str


class Grid(BasicSweeper):
    """Every combination of the swept values, but those that are done already.

    A job is done where a completed run of the same resolved configuration lies in its folder; it goes on from its
    checkpoint where it was interrupted or had failed. Nothing is run where a folder holds another configuration.
    A job that is done may be made longer, not shorter. Ends with one line and exit code 1 where a job is not done.
    """

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        assert self.config is not None
        assert self.launcher is not None
        sweep = Path(self.config.hydra.sweep.dir)
        jobs = self.jobs(sweep, arguments)
        print(f"{sweep}: {counted(jobs)}", flush=True)
        if self.config.sweep.dry_run:
            print(*(f"{job.state:<11} {job.name}" for job in jobs), sep="\n")
            return []
        left = [[*job.overrides, f"hydra.sweep.subdir={quoted(job.name)}"] for job in jobs if job.state != "done"]
        if not left:
            return []
        sweep.mkdir(parents=True, exist_ok=True)
        returns: list[Sequence[JobReturn]] = []
        with locked(sweep, key="hydra.sweep.dir"):
            OmegaConf.save(self.config, sweep / "multirun.yaml")
            Manifest(sweep).add(LAUNCH, jobs=len(left))
            try:
                for batch in self.split_overrides_to_chunks(left, self.max_batch_size):
                    returns.append(self.launcher.launch(batch, initial_job_idx=sum(map(len, returns))))
            finally:
                done = report(sweep, jobs)
        if not done:
            sys.exit(1)
        return returns

    def jobs(self, sweep: Path, arguments: Sequence[str]) -> list[Job]:
        """All jobs with their states; ValueError where a folder holds a run of another configuration."""
        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*self._parse_config(), *arguments])
        swept = {each.get_key_element() for each in overrides if each.is_sweep_override()}
        given = as_written(self.config.hydra.overrides.hydra)
        named = not any(word.startswith("hydra.sweep.subdir=") for word in given)
        files = files_digest(self.config.hydra)
        manifest = Manifest(sweep)
        records = manifest.newest()
        found: dict[str, Job] = {}
        for number, words in enumerate(chain.from_iterable(self.split_arguments(overrides, None))):
            name = folder_name([word for word in words if word.partition("=")[0] in swept])
            now = identity(words, files=files)
            same = checked = named and records.get(name, {}).get("identity") == now
            if not checked:
                config = loader.load_sweep_config(self.config, words)
                with open_dict(config):
                    config.hydra.job.num = number
                    HydraConfig.instance().set_config(config)
                    name = name if named else str(config.hydra.sweep.subdir)
                    del config["hydra"]
                same = check_configuration(config, sweep / name)
            reached = state(sweep / name, records.get(name))
            if reached == "done" and not same:
                reached = "interrupted"  # as it is to be longer now
            elif reached == "done" and not checked:
                manifest.add(**{**records.get(name, {}), "job": name, "state": "done", "identity": now})  # next, faster
            found[name] = Job(name, words, reached)
        return list(found.values())


def report(sweep: Path, jobs: Sequence[Job]) -> bool:
    """Say in one line what became of all jobs, and whether they are done."""
    records = Manifest(sweep).newest()
    ended = [job._replace(state=state(sweep / job.name, records.get(job.name))) for job in jobs]
    failed = [f": {job.name}: {records.get(job.name, {}).get('error')}" for job in ended if job.state == "failed"]
    done = all(job.state == "done" for job in ended)
    line = f"{counted(ended)}{''.join(failed[:1])}"
    print(line if done else f"error: {line}", file=sys.stdout if done else sys.stderr, flush=True)
    return done


def counted(jobs: Sequence[Job]) -> str:
    """How many there are in each state: 11 done, 1 failed."""
    return ", ".join(f"{count} {state}" for state, count in sorted(Counter(job.state for job in jobs).items()))


@dataclass
class GridConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.grid.Grid"


# In place of Hydra's own, so that a study can still choose another sweeper.
ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=GridConf, provider="bptt")
