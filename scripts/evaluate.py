"""Evaluate a finished run.

python scripts/evaluate.py run=FOLDER [split=test] [checkpoint=best] [other_data=false] [trust=PACKAGE,…]

split=test         or validation
checkpoint=best    or last
other_data=false   true: use data that have changed since training
trust=PACKAGE,…    your own packages that the run's configuration may call
"""

from bptt.configuration.arguments import RUN, chosen_run, run_script, script_arguments
from bptt.runs.evaluation import evaluate


def main() -> None:
    arguments, overrides = script_arguments({**RUN, "split": "test"})
    folder, options = chosen_run(arguments, overrides)
    for name, score in evaluate(folder, split=arguments["split"], **options).items():
        print(f"{name} {score:.6g}")


if __name__ == "__main__":
    run_script(main, __doc__)
