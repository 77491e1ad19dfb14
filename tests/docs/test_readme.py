"""The code blocks of README.md run, and the parity task is ready to be put into the tree as printed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from support.code_blocks import CodeBlock, code_blocks, run_blocks

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """Names defined by the Python blocks, which run one after another."""
    definitions: dict[str, Any] = {"__name__": "readme"}
    run_blocks(README, definitions)
    return definitions


def parity() -> CodeBlock:
    (block,) = [block for block in code_blocks(README, "python") if "class Parity" in block.text]
    return block


def test_blocks_run(names: dict[str, Any]) -> None:
    (flow,) = names["flows"]
    assert flow.by_timestep["h"].shape == (120, 32)


def test_the_parity_task_counts_ones(names: dict[str, Any]) -> None:
    (yaml,) = [block.text for block in code_blocks(README, "yaml") if "parity" in block.text]
    settings = OmegaConf.to_container(OmegaConf.create(yaml))
    assert isinstance(settings, dict)
    assert settings["_target_"] == "bptt.tasks.parity.Parity"
    counts = {"train_batches": 1, "validation_batches": 1, "test_batches": 1}
    task = names["Parity"](length=settings["length"], batch_size=settings["batch_size"], seed=1, **counts)
    batch = task.batch("train", 0)
    assert batch.inputs.shape == batch.targets.shape == (50, 32, 1)
    odd = [sum(int(bit) for bit in batch.inputs[: t + 1, 0, 0]) % 2 for t in range(50)]
    assert batch.targets[:, 0, 0].tolist() == odd
    certain = (batch.targets.float() - 0.5) * 1000
    assert task.loss(certain, batch) == 0
    assert torch.equal(task.errors(-certain, batch.targets), torch.full((50, 32), 500.0))


def test_the_parity_task_passes_linter_formatter_and_type_checker(tmp_path: Path) -> None:
    path = tmp_path / "parity.py"
    path.write_text(parity().text, encoding="utf-8")
    config = ["--config", str(ROOT / "pyproject.toml")]
    for command in (
        ["ruff", "check", "--no-cache", *config, str(path)],
        ["ruff", "format", "--check", "--no-cache", *config, str(path)],
        ["mypy", "--config-file", str(ROOT / "pyproject.toml"), str(path)],
    ):
        process = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
        assert process.returncode == 0, process.stdout + process.stderr
