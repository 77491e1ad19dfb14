"""A process as it was before a job, for the job that follows."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def restored_settings() -> Iterator[None]:
    """Restore process-wide settings (environment, torch's threads, dtype, determinism) after a job."""
    import torch

    environment = dict(os.environ)
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    deterministic, precision = torch.get_deterministic_debug_mode(), torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_deterministic_debug_mode(deterministic)
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn


@contextmanager
def freed_memory() -> Iterator[None]:
    """Free a job's memory after it.

    The first job in a process leaves the libraries' objects frozen, among which a collection would search for .2 s.
    """
    first = not gc.get_freeze_count()
    try:
        yield
    finally:
        if first:
            gc.unfreeze()  # training froze the job's objects too, and leaves them frozen if it is interrupted
        gc.collect()
        if first:
            gc.freeze()
