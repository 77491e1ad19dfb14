"""What was found, as a page, as numbers and as a picture."""

import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from importlib import metadata
from pathlib import Path

import torch
from omegaconf import OmegaConf

from benchmarks.measure import DEVICE, Curve, Row

LIBRARIES = ("torch", "lightning", "hydra-core", "pytorch-ignite")
REMARKS = Path(__file__).with_name("remarks.yaml")


def machine() -> dict[str, str]:
    """Processor, threads and versions."""
    cpus = Path("/proc/cpuinfo")
    described = re.search(r"model name\s*: (.*)", cpus.read_text()) if cpus.is_file() else None
    return {
        "processor": f"{described[1] if described else platform.machine()}, {os.cpu_count()} cores",
        "GPU": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "none",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
    } | {name: metadata.version(name) for name in LIBRARIES if any(metadata.distributions(name=name))}


def write(found: Sequence[Row | Curve], folder: Path, page: Path) -> None:
    """benchmark.json and benchmark.png in a folder, and the page."""
    from bptt import figures

    rows = [each for each in found if isinstance(each, Row)]
    curves = [each for each in found if isinstance(each, Curve)]
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {"machine": machine(), "rows": [each._asdict() for each in rows]}
    numbers["curves"] = [each._asdict() for each in curves]
    (folder / "benchmark.json").write_text(json.dumps(numbers, indent=2) + "\n")
    bars = {each.title: (each.ratio, each.low, each.high, each.target) for each in rows}
    lines = {f"{each.title}, {each.unit}: {each.size}^{each.exponent:.2f}": (each.unit, each.points) for each in curves}
    figures.save(figures.benchmark(bars, lines), folder / "benchmark.png")
    page.write_text(text(rows, curves))


def text(rows: Sequence[Row], curves: Sequence[Curve]) -> str:
    """The page: machine, command, table, remarks, exponents."""
    command = shlex.join(["python", "scripts/benchmark.py", *sys.argv[1:]])
    lines = ["# Benchmarks", "", f"`{command}`, {date.today()}.", ""]
    lines += [f"- {name}: {value}" for name, value in machine().items()]
    lines += ["", "Ratios of neighbouring repetitions: median, with the quartiles, beside the two medians.", ""]
    lines += ["| | ratio | quartiles | target | | measured / baseline |", "|---|---|---|---|---|---|"]
    for each in rows:
        target = "" if each.target is None else f"{each.target:g}"
        values = f"{each.measured:.3g} / {each.baseline:.3g} {each.unit}"
        verdict = each.verdict.partition(",")[0]
        lines.append(
            f"| {each.title} | {each.ratio:.3f} | {each.low:.3f} – {each.high:.3f} | {target} | {verdict} | {values} |"
        )
    remarks = [
        f"- **{title!s}**: {said}"
        for title, said in OmegaConf.load(REMARKS).items()
        if any(each.title.startswith(str(title)) for each in rows)
    ]
    lines += ["", "## Remarks", "", *remarks] if remarks else []
    if curves:
        lines += ["", "## Costs against sizes", "", "| | exponent | |", "|---|---|---|"]
    for curve in curves:
        values = ", ".join(f"{size:g}: {value:.3g}" for size, value in curve.points.items())
        lines.append(f"| {curve.title} | {curve.size}^{curve.exponent:.2f} | {curve.unit}: {values} |")
    return "\n".join(lines) + "\n"
