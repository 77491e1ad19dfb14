"""Peak of allocated memory, as torch's profiler reports it."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], object]) -> int:
    """Largest number of bytes that tensors on the CPU occupy during `work`, minus those at its start.

    Counts every allocation, including those of kernels and of forward-mode influences, which autograd does not save.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [each for each in profiler.profiler.kineto_results.events() if each.name() == "[memory]"]
    allocated = peak = 0
    for each in sorted(events, key=lambda each: each.start_ns()):
        allocated += each.nbytes()
        peak = max(peak, allocated)
    return peak
