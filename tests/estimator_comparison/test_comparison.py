"""The comparison of estimators at its smallest scale: measures against known answers, and resumption."""

import csv
import json
import runpy
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.script_runner import SCRIPTS, refusal

from bptt.configuration.build import build_module
from bptt.configuration.compose import compose_config
from bptt.estimator_comparison import grid
from bptt.estimator_comparison.advice import Advice, shares, smallest_that_learns
from bptt.estimator_comparison.allocations import peak_bytes
from bptt.estimator_comparison.gradients import MEASURES, compare
from bptt.estimator_comparison.grid import days_and_versions, settings_of
from bptt.estimator_comparison.page import render
from bptt.estimator_comparison.plan import FORMS, Ladder, command_line, ladders, read_plan
from bptt.estimator_comparison.results import Results, Row, alignment_correlation, ranks, read_json, spearman
from bptt.estimator_comparison.training import BatchTraining, learn
from bptt.estimators import RTRL, UORO, Chunked, Full

WORDS = ["task=delayed_xor", "task.delay=0", "task.length=6", "task.batch_size=4", "model=gru", "model.hidden_size=3"]
SMALL = ["task.validation_batches=1", "optimizer.lr=0.05"]
PLAN: dict[str, Any] = {
    "words": ["model.hidden_size=3", "task.batch_size=4", *SMALL],
    "timesteps": 12,
    "seconds": 0.001,
    "score_every": 1,
    "gradient_batches": 2,
    "gradient_moments": [0, 1],
    "draws": 2,
    "advice_updates": 2,
    "seeds": [1],
    "cells": {"elman": ["model=elman"]},
    "tasks": {
        "adding": {
            "words": ["task=adding"],
            "metric": "mse",
            "higher": False,
            "reference": 4,
            "settings": {
                8: {"words": ["task.length=8"], "solved": 0.0},
                4: {"words": ["task.length=4"], "solved": 100.0},
                16: {"words": ["task.length=16"], "solved": 100.0},
            },
        }
    },
    "estimators": {
        "full": ["estimator=full"],
        "chunked 1": ["estimator=chunked", "estimator.chunk_size=1"],
        "uoro": ["estimator=uoro"],
        "too large": ["estimator=rtrl", "estimator.max_entries=1"],
    },
}


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_estimators.py", *words])
    runpy.run_path(str(SCRIPTS / "compare_estimators.py"), run_name="__main__")


def test_command_measures_renders_and_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the script sets it; put back afterwards
    form, folder = tmp_path / "small.yaml", tmp_path / "out"
    form.write_text(yaml.safe_dump(PLAN, sort_keys=False), encoding="utf-8")
    words = [f"form={form}", "jobs=1", f"out={folder}"]
    run(monkeypatch, *words)
    page = (folder / "estimators.md").read_text(encoding="utf-8")
    assert "`python scripts/compare_estimators.py form=small`" in page
    assert "Not complete" not in page
    assert f"form=small`, {datetime.now(UTC).date()}; python" in page
    assert "adding, elman, too large: the influence must have <= max_entries = 1" in page
    rows = {row.estimator: row for row in read_json(folder / "estimators.json").rows}
    assert {name: row.lags for name, row in rows.items()} == {
        "full": (4,),
        "chunked 1": (4,),
        "uoro": (4,),
        "too large": (),
    }
    assert rows["full"].bias == 0
    assert rows["full"].noise == rows["chunked 1"].noise == 0
    assert (rows["uoro"].noise or 0) > 0
    assert all((rows[name].bytes or 0) > 0 and (rows[name].microseconds or 0) > 0 for name in ("full", "uoro"))
    with (folder / "estimators.csv").open(encoding="utf-8", newline="") as file:
        assert [line["lags"] for line in csv.DictReader(file)] == ["4", "4", "4", ""]
    assert {path.name for path in folder.glob("*.png")} == {"lag_cost.png", "lag_alignment.png"}
    advice = {each.lag: each for each in read_json(folder / "estimators.json").advice}
    assert {lag: (each.length, each.smallest, each.slower) for lag, each in advice.items()} == {
        4: (4, (1,), (1.0,)),
        8: (8, (None,), (None,)),
        16: (16, (None,), (None,)),
    }
    assert all(len(each.recommended) == 1 and 1 <= each.recommended[0] <= each.length for each in advice.values())
    assert "Of 1 recommendations with a known answer, 1 are not below it" in page
    tried = sorted(path.name for path in (folder / "adding" / "elman" / "full").iterdir())
    assert tried == ["gradient_lag_4_seed_1.json", "learning_lag_4_seed_1.json", "learning_lag_8_seed_1.json"]

    # Killed at any time, it makes what is missing and what was made with other settings, and nothing else.
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*_seed_1.json")}
    lost, changed = (folder / "adding" / "elman" / name for name in ("uoro", "chunked 1"))
    lost, changed = lost / "learning_lag_8_seed_1.json", changed / "learning_lag_4_seed_1.json"
    lost.unlink()
    run(monkeypatch, words[0], "jobs=0", words[2])
    assert "Not complete: 3 of 4 rows" in (folder / "estimators.md").read_text(encoding="utf-8")
    content = json.loads(changed.read_text(encoding="utf-8"))
    changed.write_text(json.dumps({**content, "settings": ["seed=2"]}), encoding="utf-8")
    run(monkeypatch, *words)
    again = {path: path.stat().st_mtime_ns for path in folder.rglob("*_seed_1.json")}
    assert again.keys() == made.keys()
    assert {path for path in made if again[path] != made[path]} == {lost, changed}


def test_settings_of_a_measurement_have_the_direction_of_the_score_and_the_version_of_the_measures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan, ladder = read_plan(FORMS / "quick.yaml"), Ladder("adding", "gru", "full")
    other = plan._replace(tasks={"adding": plan.tasks["adding"]._replace(higher=True)})
    assert settings_of(plan, ladder, "learning", 4, 1) != settings_of(other, ladder, "learning", 4, 1)
    present = settings_of(plan, ladder, "gradient", 4, 1)
    assert present[-1] == MEASURES > 1, "the first version counted the draws of a batch as batches"
    monkeypatch.setattr(grid, "MEASURES", MEASURES + 1)
    assert settings_of(plan, ladder, "gradient", 4, 1) != present


def test_days_and_versions_are_those_of_the_measurements() -> None:
    made: list[dict[str, Any]] = [
        {"date": "2026-11-30", "versions": {"torch": "2.14.0", "processor": "x"}},
        {"date": "2026-11-28", "versions": {"torch": "2.13.0"}},
        {"solved": True},
    ]
    expected = ("2026-11-28 to 2026-11-30", {"torch": "2.13.0 and 2.14.0", "processor": "x"})
    assert days_and_versions(made) == expected
    assert days_and_versions(made[1:]) == ("2026-11-28", {"torch": "2.13.0"})
    assert days_and_versions(made[2:]) == ("", {})


def test_forms_are_complete() -> None:
    """Every combination composes; the full form has the size that was promised."""
    for path in FORMS.glob("*.yaml"):
        plan = read_plan(path)
        parts = [*ladders(plan)]
        assert {each.estimator for each in parts} == set(plan.estimators)
        for group in ("estimator", "task"):
            for ladder in {getattr(each, group): each for each in parts}.values():
                compose_config(command_line(plan, ladder, plan.tasks[ladder.task].reference, 1))
    full = read_plan(FORMS / "full.yaml")
    sizes = (len(full.estimators), len(full.cells), len(full.tasks), len(full.seeds))
    assert all(size >= least for size, least in zip(sizes, (8, 3, 4, 3)))


@pytest.mark.usefixtures("float64")
def test_measures_of_known_estimators() -> None:
    module = build_module(compose_config([*WORDS, *SMALL]))
    model, task = module.model.double(), module.task
    exact = compare(Full(), model, task, 3, 2)
    assert exact["bias"] == exact["noise"] == 0
    assert exact["cosine"] == pytest.approx(1, abs=1e-12)
    rtrl = compare(RTRL(2), model, task, 3, 2)
    assert rtrl["bias"] == pytest.approx(0, abs=1e-10)
    assert rtrl["batch_noise"] == pytest.approx(exact["batch_noise"], abs=1e-10)
    uoro = compare(UORO(6), model, task, 3, 4)
    assert uoro["noise"] is not None
    assert uoro["noise"] > 0
    assert uoro["cosine"] is not None
    assert uoro["cosine"] < 1
    torch.testing.assert_close(compare(UORO(6), model, task, 3, 4), uoro, msg="the draws repeat")


@pytest.mark.usefixtures("float64")
def test_updates_of_a_batch_are_one_step() -> None:
    """Chunks without dependencies between them add up to the exact gradient, and to the same weights."""
    found = []
    for estimator in (Full(), Chunked(6), RTRL(2), Chunked(1)):
        module = build_module(compose_config([*WORDS, *SMALL]))
        module.model.double()
        module.estimator = estimator
        training = BatchTraining(module)
        for _ in range(3):
            training.step()
        assert (training.batches, training.timesteps) == (3, 18)
        found.append(torch.cat([each.detach().flatten() for each in module.model.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=1e-10)
    assert (found[3] - found[0]).abs().max() > 1e-6


def test_training_ends_when_solved_or_when_both_budgets_are_used_up() -> None:
    budgets: dict[str, Any] = {"metric": "loss", "seconds": 1e-6, "score_every": 2}
    module = build_module(compose_config([*WORDS, *SMALL]))
    unsolved = learn(module, solved=lambda _: False, timesteps=24, **budgets)
    assert (unsolved["solved"], unsolved["batches"], unsolved["timesteps"]) == (False, 4, 24)
    solved = learn(module, solved=lambda _: True, timesteps=24, **budgets)
    assert (solved["solved"], solved["batches"]) == (True, 2)


def test_peak_is_that_of_the_tensors_held() -> None:
    def work() -> None:
        first = torch.ones(1000, dtype=torch.float32)
        del first
        second, third = torch.ones(500, dtype=torch.float32), torch.ones(1500, dtype=torch.float32)
        del second, third

    assert peak_bytes(work) == pytest.approx(8000, abs=200)


def test_rank_correlation() -> None:
    assert ranks([3.0, 1.0, 1.0, 2.0]) == [4, 1.5, 1.5, 3]
    assert spearman([1, 2, 3], [10, 100, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert spearman([1, 2, 3], [1, 1, 1]) is None
    rows = [Row("t", "c", str(lag), (lag, lag), (lag, lag), cosine=lag / 10) for lag in (1, 2, 3)]
    assert alignment_correlation(rows) == pytest.approx(1)
    page = render(
        Results("f", "d", {}, {"timesteps": 1, "seconds": 1, "seeds": 2, "words": []}, 3, tuple(rows), ()), figures="."
    )
    assert "Mean over 1 groups: 1.00." in page


def test_recommendations_of_several_comparisons() -> None:
    """Each has its own table; the shares are of all. Here 8 and 16 are recommended where 8 and 4 learn."""
    worst = {"4": 0.5, "8": 0.05, "16": 0.01}
    one = Advice("a", "gru", 8, 20, (8,), (8,), (worst,), (2.5,))
    two = Advice("b", "lru", 9, 20, (16,), (4,), ({"4": 0.5, "8": 0.2, "16": 0.01},))
    budgets = {"timesteps": 1000, "seconds": 1, "seeds": 1, "words": ["x=1"]}
    first, second = (Results(name, "d", {}, budgets, 0, (), (each,)) for name, each in (("f", one), ("g", two)))
    page = render(first, second, figures=".")
    assert page.count("| task | cell | lag | T   | recommended | smallest that learns |") == 2
    assert "| a    | gru  | 8   | 20  | 8           | 8                    | 2.5 |" in page
    budget = "1,000 timesteps or 1 s of processor time, whichever is longer"
    assert f"Within {budget}, with `x=1`: `python scripts/compare_estimators.py form=g`" in page
    assert f"the smallest of the compared chunk sizes that solves it within {budget}, for each seed" in page
    assert "Of 2 recommendations with a known answer, 2 are not below it, and 1 of these are at most" in page


def test_a_task_may_be_for_some_cells_and_estimators(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    some = {**PLAN["tasks"]["adding"], "cells": ["gru"], "estimators": ["full", "uoro"]}
    plan = {**PLAN, "cells": {"elman": ["model=elman"], "gru": ["model=gru"]}, "tasks": {**PLAN["tasks"], "some": some}}
    path.write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
    of_some = [ladder[1:] for ladder in ladders(read_plan(path)) if ladder.task == "some"]
    assert of_some == [("gru", "full"), ("gru", "uoro")]
    some["estimators"] = ["fool"]
    path.write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
    with pytest.raises(ValueError, match=r"estimators of some must be full or chunked 1 or .*, got 'fool'"):
        read_plan(path)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("form=hourly", "form must be quick or full or known_answers or a YAML file"),
        ("out=/dev/null", "out must be a folder that can be created and written, got /dev/null"),
        ("jobs=some", "jobs must be an integer >= 0"),
        ("publish=maybe", "publish must be true or false"),
        ("publish=true", "form of a published page must be full or known_answers, got 'quick'"),
        ("seeds=3", "arguments must be form, jobs, out or publish, got seeds=3"),
    ],
)
def test_refusals(monkeypatch: pytest.MonkeyPatch, argument: str, message: str) -> None:
    assert message in refusal(monkeypatch, "compare_estimators.py", argument)


def test_names_may_be_numbers_and_seeds_may_not_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    task = {**PLAN["tasks"]["adding"], "cells": [3], "estimators": [2]}
    numbers = {"tasks": {1: task}, "cells": {3: ["model=gru"]}, "estimators": {2: ["estimator=full"]}}
    path.write_text(yaml.safe_dump({**PLAN, **numbers}), encoding="utf-8")
    assert ["/".join(each) for each in ladders(read_plan(path))] == ["1/3/2"]
    path.write_text(yaml.safe_dump({**PLAN, "seeds": []}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"seeds must be at least one seed, got \[\]"):
        read_plan(path)


@pytest.mark.parametrize(("text", "cause"), [("some words", ""), ("timesteps: 5", "it lacks 'tasks'"), ("[1]", "")])
def test_a_file_that_is_no_grid(text: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "grid.yaml").write_text(text, encoding="utf-8")
    line = refusal(monkeypatch, "compare_estimators.py", f"form={tmp_path / 'grid.yaml'}")
    assert "error: form must be a grid such as" in line
    assert cause in line


def test_smallest_chunk_that_learns() -> None:
    learnt = [(10, 1), (4, 1), (2, 2), (None, 3), (10, 4)]  # None: an estimator without chunks
    smallest = smallest_that_learns(learnt, (1, 2, 3, 4))
    assert smallest == (4, 2, None, 10)
    worst: tuple[dict[str, float], ...]
    worst = {"2": 0.5, "4": 0.3, "8": 0.04, "10": 0}, {"2": 0.15, "4": 0.3, "8": 0.05}, {}, {"2": 0.5, "4": 0.06}
    advice = Advice("task", "cell", 3, 10, recommended=(8, 8, 1, 4), smallest=smallest, worst=worst)
    assert advice.pairs() == [(8, 4), (8, 2), (4, 10)]
    again = Advice("task", "cell", 3, 10, recommended=(8, 8), smallest=(4, 4), worst=(worst[0], dict(worst[0])))
    assert again.pairs() == [(8, 4)]
    assert shares([advice]) == (3, 2, 1)
    assert advice.pairs(0.4) == [(4, 4), (2, 2), (4, 10)]
    assert advice.pairs(0.01) == [(10, 4), (10, 2), (10, 10)]  # the whole sequence if the largest chunk is above
    assert shares([advice], 0.4) == (3, 2, 2)
