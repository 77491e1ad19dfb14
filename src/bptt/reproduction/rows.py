"""Published numbers, read from docs/published/KEY.yaml."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from bptt.configuration.compose import CONF, ROOT, quoted
from bptt.configuration.containers import resolved

PUBLISHED = ROOT / "docs" / "published"
KEYS = sorted(path.stem for path in PUBLISHED.glob("*.yaml"))
DIVERGES = "diverges"


class Row(NamedTuple):
    """One published number.

    overrides: of its runs, without the seed. expect: interval for our mean over seeds, `diverges`, or None if
    nothing is expected. line, size: curve of scores against sizes, and the size of this point on it. title: title of
    the benchmark row that measures it.
    """

    name: str
    overrides: tuple[str, ...] = ()
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
        """`yes` if the value agrees, `no` if it does not; a dash if nothing is expected."""
        if self.expect is None:
            return "–"
        return "yes" if self.expect != DIVERGES and self.expect[0] <= value <= self.expect[1] else "no"


class Publication(NamedTuple):
    """Content of docs/published/KEY.yaml.

    metric: SPLIT/NAME, evaluated at the best checkpoint; without a slash, a model parameter at the last checkpoint.
    curve, references, log_x, log_y: metric, horizontal lines and axes of the figure. file: configuration key of a file
    that the user must provide. recommended: the size that choose_chunk_size.py names, marked on the curve of scores
    against sizes. benchmark: section of scripts/benchmark.py that is measured instead of runs.
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
    file: str = ""
    recommended: int | None = None
    benchmark: str = ""

    @property
    def experiment(self) -> str:
        """Fingerprint of the settings in conf/experiment/KEY.yaml, which no command shows; empty without the file."""
        path = CONF / "experiment" / f"{self.key}.yaml"
        if not path.is_file():
            return ""
        settings = json.dumps(OmegaConf.to_container(OmegaConf.load(path)), sort_keys=True)
        return hashlib.sha256(settings.encode()).hexdigest()[:12]

    def command(self, row: Row) -> str:
        """Command line of a row's runs. The path of a user's file is replaced by FILE."""
        if self.benchmark:
            return f"python scripts/benchmark.py {self.benchmark}"
        overrides = [word for word in row.overrides if not (self.file and word.startswith(f"{self.file}="))]
        overrides += [f"{self.file}=FILE"] if self.file else []
        multirun = "-m " if len(row.seeds) > 1 else ""
        return f"python scripts/train.py {multirun}{' '.join(overrides)} seed={','.join(map(str, row.seeds))}"


def publication(key: str, *, quick: bool = False, file: str | None = None) -> Publication:
    """Load a publication. quick: reduce it to a few minutes and one seed. file: data that it may need.

    A row with a standard deviation and without `expect` is expected within three standard deviations.
    """
    content = resolved(OmegaConf.load(PUBLISHED / f"{key}.yaml"))
    seeds, scale = content.pop("seeds", []), content.pop("quick", [])
    rows = []
    for name, entry in content.pop("rows").items():
        overrides = [f"experiment={key}", *entry.pop("overrides", ()), *(scale if quick else ())]
        overrides += [f"{content['file']}={quoted(file)}"] if "file" in content and file else []
        row_seeds = tuple(entry.pop("seeds", seeds))
        if deviation := entry.get("deviation"):
            margin = 3 * deviation
            entry.setdefault("expect", [entry["published"] - margin, entry["published"] + margin])
        rows.append(Row(name, tuple(overrides), seeds=row_seeds[:1] if quick else row_seeds, **entry))
    return Publication(key=key, rows=tuple(rows), **content)
