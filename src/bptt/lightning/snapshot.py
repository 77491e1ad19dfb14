"""The part of a checkpoint that Lightning does not keep: what exact resumption needs beside weights and optimizer."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bptt.lightning.counters import Counters
from bptt.lightning.processes import gathered
from bptt.random_state import random_state, restore_random_state

if TYPE_CHECKING:
    from bptt.lightning.module import BPTTModule

FORMAT = 1  # version of what `snapshot` returns
KEY = "bptt"  # its entry in a checkpoint
ALL = 1 << 62  # more timesteps than any batch has
KEPT = {  # entries that every snapshot of this format has
    "counters": dict,
    "place": dict,
    "loss": tuple,
    "estimator": dict,
    "processes": list,
}


def snapshot(module: "BPTTModule") -> dict[str, Any]:
    """Counters, stream position, estimator, and each process's carried state and random state.

    Plain containers and tensors only, so that `torch.load(weights_only=True)` reads it. Collective: every process must
    call it. While a validation runs, the batch before it counts as not complete: training has passed all of its
    timesteps, so a resumed run trains none of them again, but repeats the validation.
    """
    counters, place, timestep = asdict(module.counters), asdict(module.stream_position), module.timestep_in_batch
    if module.validation_runs:
        counters["batches"] -= 1
        place["batch"] -= 1
        timestep = ALL
    return {
        "format": FORMAT,
        "data": module.task.identity,
        "encoding": module.task.encoding,
        "counters": counters,
        "place": place,
        "timestep": timestep,
        "loss": module.mean_loss.state(),
        "estimator": module.estimator.state_dict(),
        "processes": gathered({"carry": module.carry.tensors(), "random": random_state(module.device)}),
    }


def restore(module: "BPTTModule", content: dict[str, Any], *, num_processes: int) -> None:
    """Continue from `snapshot`, but for carry and random state, which `restore_process` sets when training starts.

    ValueError if the run had another number of processes.
    """
    if len(content["processes"]) != num_processes:
        raise ValueError(
            f"a run must be resumed with as many processes as it had, {len(content['processes'])}, got "
            f"{num_processes}; set trainer.devices and trainer.num_nodes as they were"
        )
    module.counters = Counters(**content["counters"])
    # Changed in place, because the data streams share this object.
    module.stream_position.epoch, module.stream_position.batch = content["place"]["epoch"], content["place"]["batch"]
    module.timestep_in_batch = content.get("timestep", 0)  # missing in the first checkpoints of format 1
    module.mean_loss.restore(*content["loss"])
    module.estimator.load_state_dict(content["estimator"])


def restore_process(module: "BPTTModule", content: dict[str, Any], *, rank: int) -> None:
    """Set the carried state and the random state of one process. Model and optimizer must be on their device."""
    own = content["processes"][rank]
    module.carry.restore(own["carry"], module.model)
    restore_random_state(own["random"], module.device)


def correct_loop_counters(checkpoint: dict[str, Any]) -> None:
    """Set Lightning's counts of batches and epochs in a checkpoint to those of the snapshot in it.

    It counts an interrupted epoch and an interrupted batch as completed, and keeps the previous epoch's batch counts
    until the next epoch starts. Resuming would skip the rest of the epoch or batch, or batches of the next one.
    """
    place, counters = checkpoint[KEY]["place"], checkpoint[KEY]["counters"]
    loops = checkpoint["loops"]["fit_loop"]
    batches = loops["epoch_loop.batch_progress"]
    batches["current"] = dict.fromkeys(batches["current"], place["batch"])
    batches["total"] = dict.fromkeys(batches["total"], counters["batches"])
    batches["is_last_batch"] = False
    epochs_ahead = loops["epoch_progress"]["current"]["processed"] - place["epoch"]
    if epochs_ahead > 0:
        for counts in loops["epoch_progress"].values():
            counts["processed"] = counts["completed"] = counts["processed"] - epochs_ahead
        checkpoint["epoch"] -= epochs_ahead
