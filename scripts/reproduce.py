"""Run published experiments, and compare our numbers with the published ones.

    python scripts/reproduce.py [KEY …] [KEY/ROW …]     all of docs/published, some, or single rows

Prints the estimated cost, then trains every row with every seed, each in its own process, in
outputs/reproduce/KEY/ROW/seed_S. Collects the results in docs/results/KEY.json, with a figure for each key, and renders
RESULTS.md from them, both in the checkout. Finished runs are not repeated, and interrupted ones are resumed. SIGTERM,
SIGHUP and Ctrl-C stop all runs after a checkpoint.

    --quick        reduce the experiments to minutes and one seed, in outputs/reproduce_quick with separate results
    jobs=1         number of runs at a time; 0: run nothing, collect and render existing results
    file=FILE      the data of the named keys that need a file: the header of conf/experiment/KEY.yaml says which
"""

from pathlib import Path

from bptt.atomic_files import replace_text
from bptt.configuration.arguments import run_script, script_arguments
from bptt.configuration.compose import ROOT
from bptt.contracts import at_least, one_of, refusal
from bptt.reproduction.collection import collect
from bptt.reproduction.cost import announcement, costs
from bptt.reproduction.page import render
from bptt.reproduction.processes import run_all
from bptt.reproduction.row_runs import chosen_rows, lacks_file, waiting_runs
from bptt.reproduction.rows import KEYS, publication


def main() -> None:
    arguments, keys = script_arguments({"jobs": "1", "file": None})
    quick = "--quick" in keys
    keys = [key for key in keys if key != "--quick"] or KEYS
    file = str(Path(arguments["file"]).resolve()) if arguments["file"] else None
    jobs = int(arguments["jobs"]) if arguments["jobs"].isdecimal() else arguments["jobs"]
    at_least(0, jobs=jobs)
    publications = [publication(key, quick=quick, file=file) for key in KEYS]
    rows = [f"{each.key}/{row.name}" for each in publications if not each.benchmark for row in each.rows]
    for key in keys:
        if "=" in key or key.startswith("-"):
            raise ValueError(refusal("arguments", "KEY, KEY/ROW, --quick, jobs or file", key, "leave it out"))
        name, slash, _ = key.partition("/")
        one_of(KEYS, KEY=name)
        rows_of_key = [row for row in rows if row.startswith(f"{name}/")]
        if slash and not rows_of_key:
            raise ValueError(refusal("KEY", f"{name}, whose rows are measured together", key, f"say {name}"))
        if slash:
            one_of(rows_of_key, KEY=key)
    root = Path("outputs", "reproduce_quick" if quick else "reproduce")
    page, folder = (root / "RESULTS.md", root) if quick else (ROOT / "RESULTS.md", ROOT / "docs" / "results")
    unfinished = []
    if jobs:
        chosen = [each for each in publications if chosen_rows(each, keys)]
        for each in filter(lacks_file, chosen):
            print(f"{each.key}: not run, because it needs a file; say file=FILE")
        waiting = {each.key: waiting_runs(each, root, keys=keys) for each in chosen}
        cost_by_key = {
            each.key: costs(each, keys, waiting[each.key], root, folder) for each in chosen if not each.benchmark
        }
        print(*announcement(cost_by_key), sep="\n", flush=True)
        unfinished = run_all({path: command for runs in waiting.values() for path, command in runs.items()}, jobs=jobs)
    collect(publications, root, folder)
    replace_text(page, render(publications, folder, page=page, quick=quick))
    print(page)
    if unfinished:
        first = unfinished[0]
        got = f"got {len(unfinished)} that did not: {first} …"
        raise ValueError(f"all runs must finish, {got}; see {first}.out; the same command goes on")


if __name__ == "__main__":
    run_script(main, __doc__)
