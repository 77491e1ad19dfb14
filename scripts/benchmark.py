"""Measure what this project adds to the cost of training: python scripts/benchmark.py [SECTION …]

    step       a training step through Lightning, against bare loops on the same kernel and against pytorch-ignite
    watch      a training step with GradientFlow, against one without and against a loop over cells with retain_grad
    cells      Elman and GRU against the LSTM; own cells that only state a step, against the layers
    exact      full BPTT in segments, against plain autograd over the whole sequence; costs against T, H and chunk size
    linear     a linear recurrence by a scan, against a loop and torch's GRU; RTRL of it against BPTT; time against T
    sequences  resets inside a batch, against none; the gradient of every sequence, against that of their sum
    memory     peak memory of the estimators up to a million timesteps
    sweep      8 jobs, one after another, in two processes, and started by hand; overhead of many jobs
    startup    seconds to the first update and to --help
    all        all of them, which is the default and takes 20 to 60 minutes on two cores

Variants are interleaved, so that other load on the machine affects all of them equally. Each line gives the median and
the quartiles of the ratios of neighbouring repetitions. With a GPU, all sections except sweep and startup use it. The
results of a section are stored when it ends, so an interrupted benchmark is completed by its other sections.

    repetitions=4    repetitions of each variant
    threads=N        threads of torch; by default the number of cores
    out=FOLDER       folder for benchmark.json, .png and .md; results of other sections there are kept; by default
                     outputs/benchmarks
    publish=false    true: write the page to BENCHMARKS.md instead
"""

import importlib
import os
from pathlib import Path

from bptt.configuration.arguments import positive_argument, run_script, script_arguments
from bptt.configuration.compose import ROOT
from bptt.configuration.paths import check_folder
from bptt.contracts import one_of

SECTIONS = ("step", "watch", "cells", "exact", "linear", "sequences", "memory", "sweep", "startup")
PUBLISHED = ROOT / "BENCHMARKS.md"


def main() -> None:
    arguments, sections = script_arguments(
        {"repetitions": "4", "threads": str(os.cpu_count()), "out": "outputs/benchmarks", "publish": "false"}
    )
    repetitions = positive_argument(int, repetitions=arguments["repetitions"])
    threads = positive_argument(int, threads=arguments["threads"])
    one_of(("true", "false"), publish=arguments["publish"])
    for section in sections:
        one_of((*SECTIONS, "all"), section=section)
    chosen = SECTIONS if not sections or "all" in sections else sections
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported, here and in child processes
    from bptt.benchmarks import report

    folder, publish = Path(arguments["out"]), arguments["publish"] == "true"
    check_folder("out", arguments["out"])
    report.earlier(folder)  # refuses a damaged file, before measuring
    if publish:
        report.check_complete(chosen, folder, PUBLISHED)
    print(", ".join(f"{name} {value}" for name, value in report.machine().items()))
    for name in chosen:
        found = []
        for each in importlib.import_module(f"bptt.benchmarks.{name}").rows(repetitions):
            print(each, flush=True)
            found.append(each)
        report.store(name, found, folder)
    report.render(folder, PUBLISHED if publish else folder / "benchmark.md")


if __name__ == "__main__":
    run_script(main, __doc__)
