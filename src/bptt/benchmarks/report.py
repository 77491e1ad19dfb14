"""Output of benchmark results as a page, a JSON file and a figure."""

import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Collection, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from bptt.atomic_files import replace_text
from bptt.benchmarks.measure import DEVICE, Curve, Row
from bptt.contracts import refusal

LIBRARIES = ("torch", "lightning", "hydra-core", "pytorch-ignite")
REMARKS = Path(__file__).with_name("remarks.yaml")


def machine() -> dict[str, str]:
    """Processor, threads and versions."""
    cpus = Path("/proc/cpuinfo")
    described = re.search(r"model name\s*: (.*)", cpus.read_text(encoding="utf-8")) if cpus.is_file() else None
    return {
        "processor": f"{described[1] if described else platform.machine()}, {os.cpu_count()} cores",
        "GPU": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "none",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
    } | {name: metadata.version(name) for name in LIBRARIES if any(metadata.distributions(name=name))}


Sections = dict[str, dict[str, Any]]  # by name: its command, its date, its rows and its curves


def store(section: str, found: Sequence[Row | Curve], folder: Path) -> None:
    """Write the results of a section into a folder's benchmark.json.

    Earlier results of other sections there are kept, if they are from the same machine and libraries.
    """
    results = {
        "command": shlex.join(["python", "scripts/benchmark.py", *sys.argv[1:]]),
        "date": str(date.today()),
        "rows": [row._asdict() for row in found if isinstance(row, Row)],
        "curves": [curve._asdict() for curve in found if isinstance(curve, Curve)],
    }
    content = {"machine": machine(), "sections": {**earlier(folder), section: results}}
    replace_text(folder / "benchmark.json", json.dumps(content, indent=2) + "\n")


def render(folder: Path, page: Path) -> None:
    """Write benchmark.png into a folder, and the page, from its benchmark.json."""
    from bptt import figures

    sections = earlier(folder)
    rows, curves = rows_and_curves(sections)
    bars = {each.title: (each.ratio, each.low, each.high, each.target) for each in rows}
    lines = {f"{each.title}, {each.unit}: {each.size}^{each.exponent:.2f}": (each.unit, each.points) for each in curves}
    figures.save(figures.benchmark(bars, lines), folder / "benchmark.png")
    replace_text(page, text(sections))


def check_complete(chosen: Collection[str], folder: Path, page: Path) -> None:
    """Raise ValueError if the page has sections that would be lost."""
    on_page = re.findall(r"^\| (\w+)[,:]", page.read_text(encoding="utf-8"), re.MULTILINE) if page.is_file() else []
    lost = set(on_page) - set(chosen) - set(earlier(folder))
    if lost:
        there = f"{', '.join(sorted(lost))} on the page and not in {folder}"
        raise ValueError(refusal("publish", "false, unless all of the page's sections are measured", there, "say all"))


def earlier(folder: Path) -> Sections:
    """The sections in a folder's benchmark.json that are from this machine and these libraries."""
    path = folder / "benchmark.json"
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        sections: Sections = content["sections"] if content["machine"] == machine() else {}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be a file of this script, got one that is damaged; move it away") from error
    return sections


def rows_and_curves(sections: Sections) -> tuple[list[Row], list[Curve]]:
    rows = [Row(**row) for section in sections.values() for row in section["rows"]]
    curves = [Curve(**curve) for section in sections.values() for curve in section["curves"]]
    sized = [curve._replace(points={int(size): value for size, value in curve.points.items()}) for curve in curves]
    return rows, sized


def text(sections: Sections) -> str:
    """Text of the page: machine, commands, table, remarks, exponents."""
    rows, curves = rows_and_curves(sections)
    commands = dict.fromkeys((section["command"], section["date"]) for section in sections.values())
    lines = ["# Benchmarks", "", *(f"- `{command}`, {day}" for command, day in commands)]
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
        f"- **{title!s}**: {remark}"
        for title, remark in OmegaConf.load(REMARKS).items()
        if any(each.title.startswith(str(title)) for each in rows)
    ]
    lines += ["", "## Remarks", "", *remarks] if remarks else []
    if curves:
        lines += ["", "## Costs against sizes", "", "| | exponent | |", "|---|---|---|"]
    for curve in curves:
        values = ", ".join(f"{size:g}: {value:.3g}" for size, value in curve.points.items())
        lines.append(f"| {curve.title} | {curve.size}^{curve.exponent:.2f} | {curve.unit}: {values} |")
    return "\n".join(lines) + "\n"
