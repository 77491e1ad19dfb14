"""Published numbers, and the runs of this project that stand beside them."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from bptt.atomic_files import replace_text
from bptt.configuration.compose import ROOT, compose_config
from bptt.configuration.settings import flat_settings, resolved
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.reading import Run, read_run
from bptt.runs.resumption import quoted

PUBLISHED = ROOT / "docs" / "published"
KEYS = sorted(path.stem for path in PUBLISHED.glob("*.yaml"))
DIVERGES = "diverges"
OTHER = "of another configuration"
NONE_KEPT: Mapping[str, Any] = {"updates": None, "scores": {}}


class Row(NamedTuple):
    """One published number.

    words: what sets its runs apart, without the seed. expect: the interval our mean over seeds must lie in, `diverges`,
    or None where nothing can be said. line, size: a curve of numbers against sizes that it belongs to.
    """

    name: str
    words: tuple[str, ...] = ()
    published: Any = None
    deviation: float | None = None
    expect: Any = None
    seeds: tuple[int, ...] = ()
    line: str = ""
    size: int | None = None
    title: str = ""  # of a line of the benchmark

    @property
    def shown(self) -> str:
        return f"{self.published}" + (f" ± {self.deviation}" if self.deviation else "")

    def fits(self, value: float) -> str:
        """Whether a number agrees: yes, no, or a dash where nothing is expected."""
        if self.expect is None:
            return "–"
        return "yes" if self.expect != DIVERGES and self.expect[0] <= value <= self.expect[1] else "no"


class Publication(NamedTuple):
    """What docs/published/KEY.yaml says, with its rows.

    metric: of the split it names, at the best checkpoint there; without a slash a parameter, at the last checkpoint.
    curve, references, log_x, log_y: of the figure. text: the configuration's key for a file that a user must name.
    benchmark: a section of scripts/benchmark.py, in place of runs.
    """

    key: str
    source: str
    says: str
    rows: tuple[Row, ...]
    metric: str = ""
    curve: str = ""
    references: Mapping[str, float] = {}
    log_x: bool = False
    log_y: bool = False
    note: str = ""
    text: str = ""
    benchmark: str = ""


def publication(key: str, *, quick: bool = False, text: str | None = None) -> Publication:
    """The publication of a key. quick: a scale of minutes and one seed. text: the file to train on, where it needs one.

    A row without `expect` and with a standard deviation is expected within three of them.
    """
    content = resolved(OmegaConf.load(PUBLISHED / f"{key}.yaml"))
    seeds, scale = content.pop("seeds", []), content.pop("quick", [])
    rows = []
    for name, entry in content.pop("rows").items():
        words = [f"experiment={key}", *entry.pop("overrides", ()), *(scale if quick else ())]
        words += [f"{content['text']}={quoted(text)}"] if "text" in content and text else []
        own = tuple(entry.pop("seeds", seeds))
        if deviation := entry.get("deviation"):
            spread = 3 * deviation
            entry.setdefault("expect", [entry["published"] - spread, entry["published"] + spread])
        rows.append(Row(name, tuple(words), seeds=own[:1] if quick else own, **entry))
    return Publication(key=key, rows=tuple(rows), **content)


@cache
def expected_settings(words: tuple[str, ...]) -> Mapping[str, Any]:
    return flat_settings(resolved(compose_config(words)))


def read_runs(each: Publication, row: Row, root: Path) -> dict[int, Run]:
    """The runs of a row by seed, as far as there are any; completed ones with their score.

    A run that shapes training in another way than the row says has the status `OTHER`, as has one that has been
    finished with fewer or more epochs. Where a text lies makes no difference.
    """
    found = {}
    for seed in row.seeds:
        folder = run_folder(root, each, row, seed)
        if not RunFolder(folder).summary.is_file():
            continue
        run = read_run(folder, metric=each.curve)
        wanted = expected_settings((*row.words, f"seed={seed}"))
        if any(wanted.get(key) != run.settings.get(key) for key in wanted.keys() | run.settings if key != each.text):
            run = run._replace(status=RunStatus.MISSING, error=OTHER)
        elif run.status.has_score:
            run = run._replace(metrics={**run.metrics, each.metric: score(folder, each.metric)})
        found[seed] = run
    return found


def run_folder(root: Path, each: Publication, row: Row, seed: int) -> Path:
    return root / each.key / row.name / f"seed_{seed}"


def score(folder: Path, metric: str) -> float:
    """The metric of a completed run. Kept in its scores.json, as long as the run does not go on."""
    import json

    updates, path = RunFolder(folder).read_summary()["counters"]["updates"], RunFolder(folder).scores
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else NONE_KEPT
    if kept["updates"] != updates or metric not in kept["scores"]:
        kept = {"updates": updates, "scores": measured(folder, metric)}
        replace_text(path, json.dumps(kept, indent=2) + "\n")
    return float(kept["scores"][metric])


def measured(folder: Path, metric: str) -> dict[str, float]:
    from bptt.runs.evaluation import evaluate
    from bptt.runs.loading import load_run

    split, slash, _ = metric.partition("/")
    if slash:
        return evaluate(folder, split=split)
    return {metric: load_run(folder, checkpoint="last").model.get_parameter(metric).item()}
