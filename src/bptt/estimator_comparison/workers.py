"""Parts of a comparison in several processes, each on one thread, which all stop together."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch

from bptt.configuration import interruption
from bptt.parent_process import announced_parent, stop_with_parent

Part = TypeVar("Part")


def finished(
    work: Callable[[Part], None], parts: Sequence[Part], *, jobs: int
) -> Iterator[tuple[Part, BaseException | None]]:
    """Work on `jobs` parts at a time, and yield each when it has ended, with its error if it failed.

    With one job, in this process. If the caller stops, for example by Ctrl-C, running parts are stopped and no others
    begin.
    """
    if jobs == 1:
        for part in parts:
            try:
                work(part)
            except Exception as error:  # the other parts still run
                yield part, error
            else:
                yield part, None
        return
    context = multiprocessing.get_context("spawn")
    with announced_parent(), ProcessPoolExecutor(jobs, mp_context=context, initializer=begin_worker) as pool:
        try:
            running = {pool.submit(work, part): part for part in parts}
            for done in as_completed(running):
                yield running[done], done.exception()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()  # the pool itself waits for running parts, and for others that it has handed out
            raise


def begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; `finished` stops the workers
    interruption.restore()  # the script's own line is enough
    stop_with_parent()
    torch.set_num_threads(1)
