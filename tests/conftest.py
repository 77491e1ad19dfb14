"""Settings of all tests: runtime shape checks, one thread, reproducible examples, allowed warnings."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from shape_checks import calls, check_shapes_of

# Before anything imports the package: every annotated shape becomes a check.
check_shapes_of("bptt")

# One thread: the tensors are tiny, and reproducible to the bit only if their sums are never divided.
torch.set_num_threads(1)

# No deadline, as the first call of a kernel is slow; the same examples on every run.
settings.register_profile("bptt", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile("bptt")

# Warnings are errors; these few come from libraries, and nothing in this project could avoid them.
EXCEPTIONS = (
    # Lightning 2.6 asks torch's pytree for leaves in a way that torch 2.13 has deprecated.
    "ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning",
    # Lightning asks to be started by srun wherever Slurm is installed.
    "ignore:The `srun` command is available on your system but is not used",
)


def pytest_configure(config: pytest.Config) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):  # ignored in the background of a shell, or under nohup
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for exception in EXCEPTIONS:
        config.addinivalue_line("filterwarnings", exception)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes more than cores, as tests of scripts wait for other processes."""
    return (os.cpu_count() or 1) + 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of scripts and of Lightning take longest. They come first, so that no process is alone at the end."""
    items.sort(key=lambda item: not {"scripts", "lightning"} & set(item.path.parts))


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Begin every test with the same random numbers and no counted calls, whichever tests ran before."""
    torch.manual_seed(1)
    calls.clear()


@pytest.fixture(scope="module")
def float64() -> Iterator[None]:
    """Double precision for every tensor that a module of tests makes, so that 1e-10 means a wrong formula."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter; those of pytest are the user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)
