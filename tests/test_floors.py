"""Import rules: a file imports only from lower floors and from its own folder."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Floors from the bottom up; a package imports only from lower floors and from itself.
FLOORS = {
    "bptt": 10,  # the package's own __init__: `bptt.load` imports from runs/ when it is called
    "bptt.shapes": 0,
    "bptt.contracts": 0,
    "bptt.random_state": 0,
    "bptt.buffers": 0,
    "bptt.atomic_files": 0,
    "bptt.folder_lock": 0,
    "bptt.run_folder": 1,
    "bptt.parent_process": 0,
    "bptt.metrics_file": 1,
    "bptt.tensorboard_tab": 1,  # loaded into TensorBoard's server, without torch
    "bptt.layers": 1,
    "bptt.tasks": 1,
    "bptt.model": 2,
    "bptt.initial_state": 3,
    "bptt.estimators": 3,
    "bptt.measures": 4,
    "bptt.chunk_size": 5,
    "bptt.figures": 6,
    "bptt.lightning": 7,
    "bptt.configuration": 8,
    "bptt.runs": 9,
    "bptt.sweeps": 10,
    "bptt.reproduction": 11,
    "bptt.benchmarks": 11,
    "bptt.estimator_comparison": 11,
    "hydra_plugins": 11,
    "scripts": 12,
    "docs": 12,
    "tests": 12,
}

# What a room may import beside the standard library and lower rooms. Everything below Lightning works in a notebook
# with torch and torchmetrics alone.
LIBRARIES = {
    "bptt.tasks": {"torch", "jaxtyping", "torchmetrics", "numpy", "polars", "soundfile"},
    "bptt.figures": {"torch", "jaxtyping", "matplotlib"},
    "bptt.tensorboard_tab": {"numpy", "tensorboard", "werkzeug"},
}
BELOW_LIGHTNING = {"torch", "jaxtyping"}
ABOVE_LIGHTNING = FLOORS["bptt.lightning"]
NOT_IN_LIGHTNING = {"matplotlib", "hydra", "omegaconf"}
NOT_ABOVE = {"matplotlib"}
ANYTHING = {"docs", "tests"}

NAMELESS = {"utils", "util", "helpers", "helper", "misc", "common"}


def room(module: str) -> str:
    """The room of a module: the folder or file right below the package, or the folder of another file."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "bptt" else parts[0]


def module_name(path: Path, root: Path) -> str:
    base = root / "src" if path.is_relative_to(root / "src") else root
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path) -> Iterator[tuple[int, str, bool]]:
    """Line, absolute module, and whether for a type checker alone, of every import at any depth."""
    module = module_name(path, root)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    scripts = {script.stem for script in (root / "scripts").glob("*.py")}  # imported by their bare names
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    typing_only = {id(inner) for guard in guards for statement in guard.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            head = name.partition(".")[0]
            yield node.lineno, f"scripts.{name}" if head in scripts else name, id(node) in typing_only


def library_allowed(name: str, own: str) -> bool:
    head = "tensorboard" if name.startswith("torch.utils.tensorboard") else name.partition(".")[0]
    if head in sys.stdlib_module_names or own in ANYTHING:
        return True
    if FLOORS[own] > ABOVE_LIGHTNING:
        return head not in NOT_ABOVE
    if own == "bptt.lightning":
        return head not in NOT_IN_LIGHTNING
    return head in LIBRARIES.get(own, BELOW_LIGHTNING)


def sources(root: Path) -> list[Path]:
    """Every Python file of the project."""
    return sorted(path for folder in ("src", "scripts", "docs", "tests") for path in (root / folder).rglob("*.py"))


def breaches(root: Path) -> list[str]:
    """Every import that goes up or sideways, and every file without a floor."""
    found = []
    for path in sources(root):
        own = room(module_name(path, root))
        where = path.relative_to(root)
        if own not in FLOORS:
            found.append(f"{where}: {own} has no floor")
            continue
        for line, name, typing_only in imports(path, root):
            target = room(name)
            if name.partition(".")[0] not in ("bptt", "scripts", "hydra_plugins"):
                # A type needs no library at run time, so a type checker's import is no dependency.
                if not typing_only and not library_allowed(name, own):
                    found.append(f"{where}:{line}: {own} imports {name}")
            elif target not in FLOORS:
                found.append(f"{where}:{line}: {name} has no floor")
            elif target != own and FLOORS[target] >= FLOORS[own]:
                found.append(f"{where}:{line}: {own} imports {name}, on floor {FLOORS[target]}")
    return found


def test_imports_go_down() -> None:
    assert len(sources(ROOT)) > 100
    assert breaches(ROOT) == []


def test_files_are_named_for_nouns_of_the_field() -> None:
    paths = [path for folder in ("src/bptt", "scripts", "conf", "tests") for path in (ROOT / folder).rglob("*")]
    assert paths
    assert [path for path in paths if path.stem.lower() in NAMELESS] == []


@pytest.mark.parametrize(
    ("path", "source", "caught"),
    [
        ("src/bptt/shapes.py", "from bptt.layers import LSTM", "imports bptt.layers.LSTM"),
        ("src/bptt/layers/cell.py", "import bptt.model", "imports bptt.model"),
        ("src/bptt/layers/cell.py", "from bptt.tasks.base import Batch", "imports bptt.tasks.base.Batch"),
        ("src/bptt/tasks/parity.py", "from bptt import layers", "imports bptt.layers"),
        ("src/bptt/tasks/parity.py", "from ..layers import LSTM", "imports bptt.layers.LSTM"),
        ("src/bptt/tasks/__init__.py", "from ..layers import LSTM", "imports bptt.layers.LSTM"),
        ("src/bptt/tasks/parity.py", "def draw():\n    import lightning.pytorch", "imports lightning.pytorch"),
        ("src/bptt/model.py", "from bptt.estimators import Full", "imports bptt.estimators.Full"),
        ("src/bptt/estimators/full.py", "from bptt.measures import bias", "imports bptt.measures.bias"),
        ("src/bptt/estimators/full.py", "from bptt.figures import draw", "imports bptt.figures.draw"),
        ("src/bptt/measures/flow.py", "import matplotlib.pyplot as plt", "imports matplotlib.pyplot"),
        ("src/bptt/measures/flow.py", "from torch.utils.tensorboard import SummaryWriter", "torch.utils.tensorboard"),
        ("src/bptt/measures/flow.py", "from bptt.figures import draw", "imports bptt.figures.draw"),
        ("src/bptt/model.py", "import numpy", "imports numpy"),
        ("src/bptt/layers/cell.py", "from torchmetrics import Metric", "imports torchmetrics.Metric"),
        ("src/bptt/lightning/module.py", "from omegaconf import DictConfig", "imports omegaconf.DictConfig"),
        ("src/bptt/lightning/module.py", "import train", "imports scripts.train"),
        ("src/bptt/lightning/module.py", "try:\n    import hydra\nexcept ImportError:\n    pass", "imports hydra"),
        ("src/bptt/lightning/module.py", "from matplotlib.figure import Figure", "imports matplotlib.figure.Figure"),
        ("src/bptt/model.py", "if TYPE_CHECKING:\n    from bptt.estimators import Full", "bptt.estimators.Full"),
        ("src/bptt/model.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import lightning", "imports lightning"),
        ("scripts/draw.py", "from matplotlib import pyplot", "imports matplotlib.pyplot"),
        ("src/bptt/runs/reading.py", "from bptt.sweeps.names import digest", "imports bptt.sweeps.names.digest"),
        ("src/bptt/configuration/build.py", "from bptt.runs.reading import Run", "imports bptt.runs.reading.Run"),
        ("tests/test_flow.py", "import train", "imports scripts.train"),
        ("src/bptt/attic.py", "import math", "bptt.attic has no floor"),
    ],
)
def test_a_breach_is_caught(tmp_path: Path, path: str, source: str, caught: str) -> None:
    plant(tmp_path, "scripts/train.py", "")
    plant(tmp_path, path, source)
    found = breaches(tmp_path)
    assert len(found) == 1, found
    assert found[0].startswith(path)
    assert caught in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("src/bptt/layers/cell.py", "import math\nimport torch.nn\nfrom bptt.layers.base import Layer"),
        ("src/bptt/tasks/parity.py", "from .base import Task\nfrom torchmetrics import Metric"),
        ("src/bptt/figures/flow.py", "from matplotlib.figure import Figure\nfrom bptt.measures.flow import by_lag"),
        ("src/bptt/lightning/module.py", "import lightning\nfrom bptt import figures\nimport rich"),
        ("src/bptt/lightning/module.py", "if TYPE_CHECKING:\n    from matplotlib.figure import Figure"),
        ("scripts/evaluate.py", "import hydra\nfrom bptt.runs.training import train\nimport bptt.lightning.module"),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, path: str, source: str) -> None:
    plant(tmp_path, "scripts/train.py", "")
    plant(tmp_path, path, source)
    assert breaches(tmp_path) == []


def plant(root: Path, path: str, source: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(source)
