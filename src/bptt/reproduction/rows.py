"""Published numbers, row by row, as docs/published/KEY.yaml states them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from bptt.configuration.compose import ROOT
from bptt.configuration.settings import resolved
from bptt.runs.resumption import quoted

PUBLISHED = ROOT / "docs" / "published"
KEYS = sorted(path.stem for path in PUBLISHED.glob("*.yaml"))
DIVERGES = "diverges"


class Row(NamedTuple):
    """One published number.

    words: the command line of its runs, without the seed. expect: the interval that our mean over seeds must lie in,
    `diverges`, or None if nothing can be said. line, size: the curve of numbers against sizes that it is a point of.
    title: the line of the benchmark that measures it.
    """

    name: str
    words: tuple[str, ...] = ()
    published: Any = None
    deviation: float | None = None
    expect: Any = None
    seeds: tuple[int, ...] = ()
    line: str = ""
    size: int | None = None
    title: str = ""

    @property
    def shown(self) -> str:
        return f"{self.published}" + (f" ± {self.deviation}" if self.deviation else "")

    def fits(self, value: float) -> str:
        """`yes` or `no`: the number agrees or does not; a dash if nothing is expected."""
        if self.expect is None:
            return "–"
        return "yes" if self.expect != DIVERGES and self.expect[0] <= value <= self.expect[1] else "no"


class Publication(NamedTuple):
    """The content of docs/published/KEY.yaml.

    metric: of the split it names, at the best checkpoint; without a slash a parameter, at the last checkpoint.
    curve, references, log_x, log_y: the figure's metric, horizontal lines and axes. text: the configuration's key for a
    file that a user must name. benchmark: a section of scripts/benchmark.py that is measured instead of runs.
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

    def command(self, row: Row) -> str:
        """The command line of a row's runs; a text is FILE there, wherever it lies on this machine."""
        if self.benchmark:
            return f"python scripts/benchmark.py {self.benchmark}"
        words = [word for word in row.words if not (self.text and word.startswith(f"{self.text}="))]
        words += [f"{self.text}=FILE"] if self.text else []
        multirun = "-m " if len(row.seeds) > 1 else ""
        return f"python scripts/train.py {multirun}{' '.join(words)} seed={','.join(map(str, row.seeds))}"


def publication(key: str, *, quick: bool = False, text: str | None = None) -> Publication:
    """The publication of a key. quick: a scale of minutes and one seed. text: the file to train on, if it needs one.

    A row with a standard deviation and without `expect` is expected within three deviations.
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
