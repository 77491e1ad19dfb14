"""Write predictions of a finished run and their targets to a table, in the units of the data.

    python scripts/predict.py run=FOLDER [input=FILE] [out=FILE]

    input=FILE         another file of the same kind, such as next month's log; by default the run's own data
    out=FILE           .csv or .parquet; by default predictions.csv in the run's folder
    split=test         or validation or train, of the run's own data
    checkpoint=best    or last
    other_data=false   true: use data that have changed since training
    trust=PACKAGE,…    your own packages that the run's configuration may call

The state is carried from batch to batch as in training. If targets are numbers, a figure of the first rows is saved in
the same folder.
"""

from pathlib import Path

from bptt.configuration.arguments import RUN, chosen_run, run_script, script_arguments
from bptt.contracts import one_of


def main() -> None:
    arguments, others = script_arguments({**RUN, "input": None, "out": None, "split": "test"})
    folder, options = chosen_run(arguments, others)
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
