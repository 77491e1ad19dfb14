"""Peak of allocated memory, as torch's profiler reports it."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], object]) -> int:
    """The largest number of bytes on the CPU that `work` holds in tensors at one time, above what was held before.

    Counts every allocation, also those of kernels and of forward-mode influences, which autograd never saves.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [each for each in profiler.profiler.kineto_results.events() if each.name() == "[memory]"]
    held = peak = 0
    for each in sorted(events, key=lambda each: each.start_ns()):
        held += each.nbytes()
        peak = max(peak, held)
    return peak
