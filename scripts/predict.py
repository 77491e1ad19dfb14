"""Write the predictions of a finished run beside their targets, in the data's own units.

    python scripts/predict.py run=FOLDER [input=FILE] [out=FILE]

    input=FILE         another file of the same kind, such as next month's log; by default the run's own data
    out=FILE           .csv or .parquet; by default predictions.csv in the run's folder
    split=test         or validation or train, of the run's own data
    checkpoint=best    or last
    other_data=false   true: take data that have changed since training
    trust=PACKAGE,…    your own packages that the run's configuration may call

The state is carried from batch to batch as in training. Beside the table lies a picture of its first rows, if targets
are numbers.
"""

from pathlib import Path

from bptt.configuration.arguments import (
    RUN,
    loading_options,
    refuse_overrides,
    run_argument,
    run_script,
    script_arguments,
)
from bptt.contracts import one_of


def main() -> None:
    arguments, words = script_arguments({**RUN, "input": None, "out": None, "split": "test"})
    refuse_overrides(words)
    folder, options = run_argument(arguments["run"]), loading_options(arguments)
    one_of(("train", "validation", "test"), split=arguments["split"])
    out = Path(arguments["out"] or folder / "predictions.csv")
    from bptt import figures
    from bptt.runs.prediction import predict

    given = Path(arguments["input"]) if arguments["input"] else None
    columns = predict(folder, out, input=given, split=arguments["split"], **options)
    print(out)
    figure = figures.predictions(columns, title=str(folder))
    if figure is not None:
        figures.save(figure, out.with_suffix(".png"))
        print(out.with_suffix(".png"))


if __name__ == "__main__":
    run_script(main, __doc__)
