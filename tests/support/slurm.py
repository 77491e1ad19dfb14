"""A real Slurm on this machine: one node, one partition, in a temporary folder, stopped at the end."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "mungekey", "sbatch", "srun", "scontrol")
MISSING = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
PATIENCE = 60  # seconds, for a daemon to come up or go away

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PriorityType=priority/basic
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=5
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=60 State=UP
"""


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """Yields the environment variables by which Slurm's commands find this cluster; its partition is called `test`."""
    with ExitStack() as stack:
        # Munge's socket has a path of at most 107 letters, in a folder that others may enter.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm")))
        folder.chmod(0o755)
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir()
        host = socket.gethostname().partition(".")[0]
        controller_port, node_port = free_ports(2)
        file = folder / "slurm.conf"
        names = {"folder": folder, "host": host, "user": getpass.getuser()}
        file.write_text(CONFIGURATION.format(**names, controller_port=controller_port, node_port=node_port))
        variables = {
            **os.environ,
            "SLURM_CONF": str(file),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "GLOO_SOCKET_IFNAME": "lo",  # whatever the name of this machine leads to
            "MASTER_ADDR": "127.0.0.1",
        }

        def daemon(*command: str) -> None:
            log = stack.enter_context((folder / f"{command[0]}.out").open("w"))
            process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
            stack.callback(stop, process)

        key = folder / "munge" / "key"
        subprocess.run(["mungekey", "--create", f"--keyfile={key}"], env=variables, check=True)
        places = [f"--{name}={folder}/munge/{name.split('-')[0]}" for name in ("socket", "pid-file", "log-file")]
        daemon("munged", "--foreground", f"--key-file={key}", f"--seed-file={folder}/munge/seed", *places)
        wait_until((folder / "munge" / "socket").exists, folder)
        daemon("slurmctld", "-D")
        daemon("slurmd", "-D", "-N", host)

        def idle() -> bool:
            shown = subprocess.run(["sinfo", "-h", "-o", "%T"], env=variables, capture_output=True, text=True)
            return shown.stdout.strip() == "idle"

        wait_until(idle, folder)
        stack.callback(cancel_all, variables)
        yield variables


def cancel_all(variables: dict[str, str]) -> None:
    """End all jobs, so that none outlives the node's daemon."""
    subprocess.run(["scancel", "--full", "--partition=test"], env=variables, check=True)

    def quiet() -> bool:
        shown = subprocess.run(["squeue", "-h"], env=variables, capture_output=True, text=True)
        return shown.returncode == 0 and not shown.stdout.strip()

    wait_until(quiet, Path(variables["SLURM_CONF"]).parent)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(happened: Callable[[], bool], folder: Path, *, patience: float = PATIENCE) -> None:
    """Wait until a condition is true. On timeout, raises an error with the ends of all logs in a folder."""
    end = time.monotonic() + patience
    while not happened():
        if time.monotonic() > end:
            logs = [path for pattern in ("*.log", "*.out") for path in folder.rglob(pattern)]
            ends = "".join(f"\n{path}:\n{path.read_text()[-2000:]}" for path in logs)
            raise TimeoutError(f"it must happen within {patience} s; the logs:{ends}")
        time.sleep(0.05)


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
