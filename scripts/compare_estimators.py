"""Compare gradient estimators: bias, noise, cost, and the longest lag that each one learns.

    python scripts/compare_estimators.py form=quick    minutes; shows that everything runs
    python scripts/compare_estimators.py form=full     hours on two cores
    python scripts/compare_estimators.py form=known_answers   half an hour: chunk sizes on tasks of known dependencies
    python scripts/compare_estimators.py form=FILE     your own grid of tasks, cells, estimators and seeds

Every measurement is a small JSON file in the folder `out`. The script can be stopped at any time. Started again, it
makes only the measurements that are missing or have other settings in the grid. It renders a page, a CSV file and two
figures of the complete ones.

    jobs=2         processes, each on one thread; 0 measures nothing and renders existing results
    out=FOLDER     by default outputs/estimators/FORM
    publish=false  true, for full and known_answers: the results go to docs/estimators, and ESTIMATORS.md has them
"""

import os
from pathlib import Path

from bptt.configuration.arguments import run_script, script_arguments
from bptt.configuration.compose import ROOT
from bptt.configuration.paths import check_folder
from bptt.contracts import at_least, one_of

PUBLISHED = ("full", "known_answers")  # the first one's tables and figures, and the recommendations of both
NAMES = ("quick", *PUBLISHED)
DOCS = ROOT / "docs" / "estimators"


def main() -> None:
    arguments, others = script_arguments({"form": "quick", "jobs": "2", "out": None, "publish": "false"})
    if others:
        raise ValueError(f"arguments must be form, jobs, out or publish, got {others[0]}; a grid is a file: form=FILE")
    one_of(("true", "false"), publish=arguments["publish"])
    jobs = int(arguments["jobs"]) if arguments["jobs"].isdecimal() else arguments["jobs"]
    at_least(0, jobs=jobs)
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is loaded, here and in other processes
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch's profiler, which measures memory, prints nothing
    from bptt.atomic_files import replace_text
    from bptt.estimator_comparison import grid, pictures, results
    from bptt.estimator_comparison.page import render
    from bptt.estimator_comparison.plan import FORMS, read_plan

    form = arguments["form"]
    if arguments["publish"] == "true":
        one_of(PUBLISHED, **{"form of a published page": form})
    if form not in NAMES and not Path(form).is_file():
        one_of((*NAMES, "a YAML file"), form=form)
    plan = read_plan(FORMS / f"{form}.yaml" if form in NAMES else Path(form))
    folder = Path(arguments["out"] or Path("outputs", "estimators", plan.form))
    check_folder("out", str(folder))
    failed = grid.run_grid(plan, folder, jobs=jobs) if jobs else []
    collected = results.collect(plan, folder)
    if arguments["publish"] == "true":
        folder, page = DOCS, ROOT / "ESTIMATORS.md"
        results.write(collected, folder, plan.form)
        shown = [results.read_json(path) for name in PUBLISHED if (path := folder / f"{name}.json").is_file()]
    else:
        page = folder / "estimators.md"
        results.write(collected, folder, "estimators")
        shown = [results.read_json(folder / "estimators.json")]
    pictures.draw(shown[0], folder)
    replace_text(page, render(*shown, figures=os.path.relpath(folder, page.parent)))
    print(page)
    if failed:
        raise ValueError(f"all measurements must succeed, got {len(failed)} ladders that failed: {failed[0]}")


if __name__ == "__main__":
    run_script(main, __doc__)
