"""Peak memory against the length of the sequence, each measured in a process of its own.

The data are one timestep expanded to T timesteps with stride 0, so that they take no memory.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from bptt.benchmarks.exact import VOCABULARY, Passes
from bptt.benchmarks.measure import DEVICE, Found, curve, row
from bptt.estimators import Adaptive, Chunked, Full, Randomized, Sliding
from bptt.layers import Elman
from bptt.tasks.base import Batch

LENGTHS = (10_000, 100_000, 1_000_000)
ESTIMATORS = {
    "chunked": lambda: Chunked(100),
    "sliding": lambda: Sliding(50, 100),
    "randomized": lambda: Randomized(100, block=10),
    "adaptive": lambda: Adaptive(1e-6, max_chunk_size=50),  # chooses chunks of 22 timesteps here
    "full": lambda: Full(),
}
BOUNDED = ("chunked", "sliding", "randomized", "adaptive")  # full keeps one graph until it reaches its budget, 256 MB


def rows(repetitions: int) -> Found:
    """Each length is measured once: peak memory does not depend on the load of the machine."""
    for name in ESTIMATORS:
        peaks = {length: in_a_process(name, length) for length in LENGTHS}
        process = {length: peak for length, (peak, _) in peaks.items()}
        own = {length: above for length, (_, above) in peaks.items()}
        target = 1.05 if name in BOUNDED else None
        longest, shorter = max(LENGTHS), min(LENGTHS)
        title = f"memory, {name}: T = {longest} / {shorter}"
        yield row(f"{title}, process", [process[longest]], [process[shorter]], unit="MB", target=target)
        yield row(f"{title}, above start", [own[longest]], [own[shorter]], unit="MB")
        yield curve(f"peak memory above start, {name}", "T", own, unit="MB")


def in_a_process(name: str, num_timesteps: int) -> tuple[float, float]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(peak, name, num_timesteps, torch.get_num_threads()).result()


def peak(name: str, num_timesteps: int, threads: int) -> tuple[float, float]:
    """Peak MB of the process (on a GPU: of its tensors there), and its increase over the peak before the passes."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    passes = Passes.of(Elman, num_timesteps=1, batch_size=1, hidden_size=16)
    shown = torch.randint(VOCABULARY, (1, 1), device=DEVICE).expand(num_timesteps, 1)
    passes.seconds(Full())  # warm-up, for memory that only the first pass allocates
    before = high_water()
    passes._replace(batch=Batch(shown, shown)).seconds(ESTIMATORS[name]())
    return high_water(), high_water() - before


def high_water() -> float:
    """Peak MB so far. Not from `ru_maxrss`, which on Linux includes the peak of the parent process."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6
