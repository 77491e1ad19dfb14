"""Evaluate a finished run.

python scripts/evaluate.py run=FOLDER [input=FILE] [split=test] [checkpoint=best] [other_data=false] [trust=PACKAGE,…]

input=FILE         another file of the same kind with targets; by default the run's own data
split=test         or validation
checkpoint=best    or last
other_data=false   true: use data that have changed since training
trust=PACKAGE,…    your own packages that the run's configuration may call
"""

from pathlib import Path

from bptt.configuration.arguments import RUN, chosen_run, run_script, script_arguments
from bptt.runs.evaluation import evaluate


def main() -> None:
    arguments, overrides = script_arguments({**RUN, "input": None, "split": "test"})
    folder, options = chosen_run(arguments, overrides)
    given = Path(arguments["input"]) if arguments["input"] else None
    for name, score in evaluate(folder, input=given, split=arguments["split"], **options).items():
        print(f"{name} {score:.6g}")


if __name__ == "__main__":
    run_script(main, __doc__)
