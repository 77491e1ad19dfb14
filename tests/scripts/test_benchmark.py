"""The benchmark as a user calls it; what it measures is not judged here."""

import json
from pathlib import Path

import benchmark
import pytest
from command import in_a_process, refusal


def test_exact_section(tmp_path: Path) -> None:
    done = in_a_process("benchmark.py", "exact", "repetitions=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "outputs" / "benchmarks" / "benchmark.json").read_text())
    titles = [row["title"] for row in written["rows"]]
    assert titles == [
        f"exact, {layer}: {what}" for layer in ("Elman", "GRU", "LSTM") for what in ("time", "saved tensors")
    ]
    assert all(title in done.stdout for title in titles)
    assert all(row["ratio"] <= 0.06 for row in written["rows"] if "saved" in row["title"]), "memory does not vary"


def test_ratios_are_of_neighbours() -> None:
    found = benchmark.row("example", [2.0, 30.0, 4.0], [1.0, 10.0, 4.0])
    assert found["ratio"] == 2.0
    assert (found["measured"], found["baseline"]) == (4.0, 4.0)


def test_variants_take_turns() -> None:
    order: list[str] = []
    variants = {name: lambda name=name: float(order.append(name) or len(order)) for name in "ab"}
    assert benchmark.interleaved(variants, 2) == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
    assert "".join(order) == "ababab"


@pytest.mark.parametrize(
    ("word", "said"), [("speed", "sections must be of step, watch, exact"), ("repetitions=0", "above 0")]
)
def test_refusals(monkeypatch: pytest.MonkeyPatch, word: str, said: str) -> None:
    assert said in refusal(monkeypatch, "benchmark.py", word)
