"""The page of comparisons, rendered from their JSON files only."""

from collections.abc import Sequence

from bptt.estimator_comparison.advice import DELTA, DELTAS, NUM_BATCHES, Advice, shares
from bptt.estimator_comparison.results import Results, Row, alignment_correlation, groups
from bptt.runs.comparison import aligned

FIGURES = {"lag_cost.png": "learnt lag against cost", "lag_alignment.png": "alignment against learnt lag"}
HEAD = [
    "estimator",
    "learnt lag",
    "in equal seconds",
    "bias",
    "noise over draws",
    "noise over batches",
    "cosine",
    "µs a timestep",
    "kB a timestep",
]
EXPLANATION = """
Every estimator makes one update per batch, with fixed parameters within it. So estimators differ only by their
gradients.

- **learnt lag**: the largest setting of the task's dial, in timesteps, that is solved within {timesteps} timesteps;
  mean over {seeds} seeds, with each seed's in parentheses if they differ. Settings are tried in ascending order until
  no seed solves one. A run goes on for {timesteps} timesteps or {seconds:g} s of processor time, whichever is longer.
- **in equal seconds**: the same within {seconds:g} s of processor time, without that for data and scores.
- **bias**: ‖E ĝ − g‖ / ‖g‖, **noise over draws**: deviation of single draws, relative to ‖g‖, **cosine**: of a single ĝ
  with the exact gradient g. Measured at the same weights for all estimators, trained with the exact gradient.
  With random numbers, E ĝ is the mean of a few draws, and the variance of this mean is subtracted from the square of
  the bias. What remains for unbiased estimators (randomized, uoro) is chance: with 4 draws .1 to .4 of their noise.
- **noise over batches**: deviation of ĝ over batches and draws, relative to its root mean square.
- **µs, kB a timestep**: processor time and peak memory for the gradient of one batch, divided by its timesteps.
  Processor time depends on the machine's other load: repeated measurements differed by up to a factor of 1.9.
"""


def render(results: Results, *others: Results, figures: str) -> str:
    """The text of the page. others: comparisons of which only the recommendations of chunk sizes are shown.

    figures: the folder of the figures, relative to the page.
    """
    lines = ["# Gradient estimators compared", "", origin(results), EXPLANATION.format(**results.budgets)]
    lines += [*missing(results), f"Settings of all runs: `{' '.join(results.budgets['words'])}`.", ""]
    for (task, cell), rows in groups(results.rows).items():
        lines += [f"## {task}, {cell}", "", *table(rows), ""]
    lines += ["## Does alignment explain the learnt lag?", "", *correlations(results), ""]
    if results.advice:
        lines += ["## Does the recommended chunk size learn?", "", *advice(results, *others), ""]
    lines += [f"![{title}]({figures}/{name})" for name, title in FIGURES.items()]
    refused = [row for row in results.rows if row.error]
    if refused:
        lines += ["", "## Not supported", ""]
        lines += [f"- {row.task}, {row.cell}, {row.estimator}: {row.error}" for row in refused]
    return "\n".join(lines) + "\n"


def origin(results: Results) -> str:
    """The command that made the results, the days of the measurements, and the versions they were made with."""
    libraries = ", ".join(f"{name} {value}" for name, value in results.versions.items())
    made = f", {results.date}; {libraries}" if results.date else ""  # early measurements record neither
    return f"`python scripts/compare_estimators.py form={results.form}`{made}."


def missing(results: Results) -> list[str]:
    if len(results.rows) == results.ladders:
        return []
    return [f"**Not complete: {len(results.rows)} of {results.ladders} rows have been measured.**", ""]


def table(rows: list[Row]) -> list[str]:
    shown = [HEAD, ["---"] * len(HEAD), *(cells(row) for row in rows)]
    return [f"| {line} |" for line in aligned(shown, between=" | ")]


def cells(row: Row) -> list[str]:
    return [
        row.estimator,
        by_seed(row.lags),
        by_seed(row.lags_seconds),
        *(number(each) for each in (row.bias, row.noise, row.batch_noise, row.cosine, row.microseconds)),
        number(None if row.bytes is None else row.bytes / 1000),
    ]


def by_seed(lags: tuple[int, ...]) -> str:
    """The mean over seeds, and the single values if they differ."""
    single = f" ({', '.join(map(str, lags))})" if len(set(lags)) > 1 else ""
    return f"{sum(lags) / len(lags):.3g}{single}"


def number(value: float | None) -> str:
    """Three significant digits, or a whole number from 1000 on; a dash for None."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def advice(results: Results, *others: Results) -> list[str]:
    """The recommended chunk sizes beside the smallest that learn."""
    lines = [
        f"What `scripts/choose_chunk_size.py train=… batches={NUM_BATCHES}` recommends (relative bias below {DELTA:g}) "
        f"at every setting, and the smallest of the compared chunk sizes that solves it within {budget(results)}, for "
        "each seed. T is the whole sequence; a dash: none of them solves it.",
        "",
        *advice_table(results.advice),
        "",
    ]
    for each in others:
        lines += [f"Within {budget(each)}, with `{' '.join(each.budgets['words'])}`: {origin(each)}", ""]
        if any(row.slower for row in each.advice):
            lines += ["The last column has a dash if the exact gradient does not solve the setting.", ""]
        lines += [*missing(each), *advice_table(each.advice), ""]
    rows = [row for each in (results, *others) for row in each.advice]
    known, enough, close = shares(rows)
    return [
        *lines,
        f"Of {known} recommendations with a known answer, {enough} are not below it, and {close} of these are at most "
        "twice as large. Seeds of a setting with equal biases count once: nothing in such a task is drawn.",
        "",
        *other_deltas(rows),
    ]


def budget(results: Results) -> str:
    """How long a run goes on that does not solve its setting."""
    timesteps, seconds = (results.budgets[name] for name in ("timesteps", "seconds"))
    return f"{timesteps:,} timesteps or {seconds:g} s of processor time, whichever is longer"


def advice_table(rows: Sequence[Advice]) -> list[str]:
    head = ["task", "cell", "lag", "T", "recommended", "smallest that learns"]
    shown = [
        [
            each.task,
            each.cell,
            str(each.lag),
            str(each.length),
            sizes(each.recommended, each),
            sizes(each.smallest, each),
            ", ".join(number(value) for value in each.slower),
        ]
        for each in rows
    ]
    if any(each.slower for each in rows):
        head.append("timesteps it takes / exact gradient's")
    shown = [head, ["---"] * len(head), *(line[: len(head)] for line in shown)]
    return [f"| {line} |" for line in aligned(shown, between=" | ")]


def other_deltas(rows: Sequence[Advice]) -> list[str]:
    """How many recommendations would be sufficient, and close, with other limits for the bias."""
    lines = [
        "Whether a chunk size learns does not depend on its bias alone. A state keeps what was read longer ago than a "
        "gradient reaches, and what follows the state can learn to use it: then a smaller size learns, too, as soon or "
        "later. The same measurements, with other limits δ:",
        "",
    ]
    shown = [["δ", "not below", "and at most twice as large"], ["---"] * 3]
    for delta in DELTAS:
        known, enough, close = shares(rows, delta)
        shown.append([f"{delta:g}", f"{enough} of {known}", f"{close} of {known}"])
    return [*lines, *(f"| {line} |" for line in aligned(shown, between=" | "))]


def sizes(values: Sequence[int | None], row: Advice) -> str:
    return ", ".join("–" if value is None else "T" if value == row.length else str(value) for value in values)


def correlations(results: Results) -> list[str]:
    """Spearman's rank correlation of cosine and learnt lag over estimators, for each task and cell."""
    by_group = {key: alignment_correlation(rows) for key, rows in groups(results.rows).items()}
    known = [value for value in by_group.values() if value is not None]
    lines = [
        "Spearman's rank correlation of cosine and mean learnt lag over estimators. A dash: all learn the same lag.",
        "",
    ]
    shown = [["task", "cell", "correlation"], ["---"] * 3]
    shown += [[task, cell, "–" if value is None else f"{value:.2f}"] for (task, cell), value in by_group.items()]
    lines += [f"| {line} |" for line in aligned(shown, between=" | ")]
    if known:
        mean = f"Mean over {len(known)} groups: {sum(known) / len(known):.2f}."
        lines += ["", f"{mean} Marschall, Cho & Savin (2020) saw that alignment does not explain performance."]
    return lines
