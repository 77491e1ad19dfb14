"""Every study of a grid in conf/sweep is a multirun whose jobs all compose and build, each another one."""

import json
import re
from itertools import product, takewhile

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from bptt.configuration.build import build_module
from bptt.configuration.compose import CONF, compose_config
from bptt.configuration.containers import resolved
from bptt.configuration.flat_settings import flat_settings

# All but those where a sweeper chooses the values.
SWEEPS = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml") if "override /sweeper" not in path.read_text())


def jobs(name: str) -> list[list[str]]:
    """The command lines of all jobs: every combination of what Hydra's parser makes of the swept values."""
    with initialize_config_dir(str(CONF), version_base=None):
        params = compose("train", [f"+sweep={name}"], return_hydra_config=True).hydra.sweeper.params
    swept = OverridesParser.create().parse_overrides([f"{key}={values}" for key, values in params.items()])
    assert all(each.is_sweep_override() for each in swept)
    words = [[f"{each.key_or_group}={value}" for value in each.sweep_string_iterator()] for each in swept]
    return [list(job) for job in product(*words)]


def test_sweeps_are_found() -> None:
    assert {"chunk_size_model_copy", "chunk_size_model_text", "initialisation_horizon", "estimator_task"} <= set(SWEEPS)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_job_builds_and_no_two_are_the_same(name: str) -> None:
    """Jobs of one seed are compared."""
    found = []
    for job in (job for job in jobs(name) if "seed=1" in job):
        config = compose_config([f"+sweep={name}", *job])
        found.append(json.dumps(flat_settings(resolved(config)), sort_keys=True))
        build_module(config)
    assert len(found) == len(set(found)) >= 8


@pytest.mark.parametrize("name", SWEEPS)
def test_header_counts_the_jobs_and_says_how_long_they_take(name: str) -> None:
    text = (CONF / "sweep" / f"{name}.yaml").read_text()
    header = "".join(takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    assert f"= {len(jobs(name))} runs" in header
    assert re.search(r"about \d+ minutes on 2 CPU cores", header)
    assert f"python scripts/train.py -m +sweep={name}" in header
    assert "?" in header, "the header contains a question"
