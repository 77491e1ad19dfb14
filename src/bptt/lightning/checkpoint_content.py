"""The part of a checkpoint that Lightning does not save, and that exact resumption needs."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bptt.lightning.counters import Counters
from bptt.lightning.processes import gathered
from bptt.random_state import random_state, restore_random_state

if TYPE_CHECKING:
    from bptt.lightning.module import BPTTModule

FORMAT = 1  # version of the dictionary that `content_of` returns
KEY = "bptt"  # key of that dictionary in a checkpoint
ALL = 1 << 62  # larger than any number of timesteps
ENTRIES = {  # keys and types that the content of this format has
    "counters": dict,
    "place": dict,
    "loss": tuple,
    "estimator": dict,
    "processes": list,
}


def content_of(module: "BPTTModule") -> dict[str, Any]:
    """Counters, stream position, estimator, newest metrics, and each process's carried state and random state.

    Plain containers and tensors only, so that `torch.load(weights_only=True)` reads it. Collective: every process must
    call it.

    A checkpoint during a validation counts the last batch as incomplete, with all of its timesteps trained. A resumed
    run therefore trains none of them again, but repeats the validation.
    """
    counters, position, timestep = asdict(module.counters), asdict(module.stream_position), module.timestep_in_batch
    if module.validation_runs:
        counters["batches"] -= 1
        position["batch"] -= 1
        timestep = ALL
    return {
        "format": FORMAT,
        "data": module.task.identity,
        "encoding": module.task.encoding,
        "counters": counters,
        "place": position,
        "timestep": timestep,
        "loss": module.mean_loss.state(),
        "estimator": module.estimator.state_dict(),
        "metrics": {name: value.detach().cpu() for name, value in module.trainer.callback_metrics.items()},
        "processes": gathered({"carry": module.carry.tensors(), "random": random_state(module.device)}),
    }


def restore(module: "BPTTModule", content: dict[str, Any], *, num_processes: int) -> None:
    """Restore all of the content but metrics, carry and random state; `restore_process` does that at training start.

    ValueError if the run had another number of processes.
    """
    if len(content["processes"]) != num_processes:
        raise ValueError(
            f"a run must be resumed with as many processes as it had, {len(content['processes'])}, got "
            f"{num_processes}; set trainer.devices and trainer.num_nodes as they were"
        )
    module.counters = Counters(**content["counters"])
    # in place, because the data streams share this object
    module.stream_position.epoch, module.stream_position.batch = content["place"]["epoch"], content["place"]["batch"]
    module.timestep_in_batch = content.get("timestep", 0)  # missing in early checkpoints of format 1
    module.mean_loss.restore(*content["loss"])
    module.estimator.load_state_dict(content["estimator"])


def restore_process(module: "BPTTModule", content: dict[str, Any], *, rank: int) -> None:
    """Restore carried state, random state and metrics of one process. The model must already be on its device.

    Callbacks of Lightning may look at the metrics at the end of an epoch, after the validation before the checkpoint.
    """
    metrics = content.get("metrics", {})  # missing in early checkpoints of format 1
    module.trainer.callback_metrics.update({name: value.to(module.device) for name, value in metrics.items()})
    own = content["processes"][rank]
    module.carry.restore(own["carry"], module.model)
    restore_random_state(own["random"], module.device)


def correct_loop_counters(checkpoint: dict[str, Any]) -> None:
    """Replace Lightning's counts of batches and epochs in a checkpoint by ours.

    Lightning counts an interrupted epoch and an interrupted batch as completed, and keeps the previous epoch's batch
    counts until the next epoch starts. Resuming would skip the rest of the epoch or batch, or batches of the next one.
    """
    position, counters = checkpoint[KEY]["place"], checkpoint[KEY]["counters"]
    loops = checkpoint["loops"]["fit_loop"]
    batches = loops["epoch_loop.batch_progress"]
    batches["current"] = dict.fromkeys(batches["current"], position["batch"])
    batches["total"] = dict.fromkeys(batches["total"], counters["batches"])
    batches["is_last_batch"] = False
    epochs_ahead = loops["epoch_progress"]["current"]["processed"] - position["epoch"]
    if epochs_ahead > 0:
        for counts in loops["epoch_progress"].values():
            counts["processed"] = counts["completed"] = counts["processed"] - epochs_ahead
        checkpoint["epoch"] -= epochs_ahead
