"""One composed job answers for all that differ in plain values only, and for no other."""

from collections.abc import Iterator

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from bptt.configuration.compose import CONF
from bptt.sweeps.composition import CheckedJobs


class Counted(CheckedJobs):
    """Counts the configurations that are composed."""

    count = 0

    def compose(self, overrides: list[str]) -> DictConfig:  # type: ignore[override]
        self.count += 1
        return super().compose(overrides)


@pytest.fixture
def jobs() -> Iterator[Counted]:
    setup_globals()
    with initialize_config_dir(str(CONF), version_base=None):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        loader = hydra.config_loader
        yield Counted(loader, loader.load_configuration("train", [], run_mode=RunMode.MULTIRUN))


def check(jobs: Counted, overrides: list[str]) -> None:
    if not jobs.covers(overrides):
        jobs.compose(overrides)


def test_seeds_and_numbers_need_one_job(jobs: Counted) -> None:
    for seed in range(500):
        check(jobs, [f"seed={seed}", f"optimizer.lr={10**-seed}", "estimator.chunk_size=null", "+task.note='a,b'"])
    assert jobs.count == 1


def test_every_combination_of_choices_is_composed(jobs: Counted) -> None:
    for seed in range(3):
        for model in ("gru", "lstm"):
            for estimator in ("chunked", "full"):
                check(jobs, [f"model={model}", f"seed={seed}", f"estimator={estimator}"])
    assert jobs.count == 4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["seed=1", "model=gru"], ["seed=2", "model=none_such"]),
        (["seed=1", "estimator=chunked"], ["seed=2", "estimator=full", "estimator.chunk_size=3"]),
        (["task=copy_memory", "task.delay=3"], ["task=adding", "task.delay=3"]),
        (["hydra.launcher._target_=hydra._internal.core_plugins.basic_launcher.BasicLauncher"], ["hydra.launcher.x=1"]),
        (["hydra.job.num=1"], ["hydra.job.num=one"]),
        (["+model@other=gru"], ["+model@other=none_such"]),
        (["model.hidden_size=4"], ["model.hidden_sise=4"]),
    ],
)
def test_a_job_that_does_not_compose_is_found(jobs: Counted, first: list[str], second: list[str]) -> None:
    check(jobs, first)
    with pytest.raises((ValueError, HydraException)):
        check(jobs, second)


def test_lists_and_sections_are_composed(jobs: Counted) -> None:
    for value in ("1", "[1,2]", "{a:1}", "2", "[1,3]"):
        check(jobs, ["task=copy_memory", f"task.delay={value}"])
    assert jobs.count == 4
