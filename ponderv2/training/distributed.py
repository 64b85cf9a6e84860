"""Several processes that train one model: started here, by torchrun or by SLURM; on Lightning Fabric."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ponderv2.errors import Interrupted, PonderError, ResourceError
from ponderv2.training.config import TrainingConfig
from ponderv2.training.devices import precision_in_use

if TYPE_CHECKING:
    import lightning_fabric


@dataclass(frozen=True)
class Launch:
    """The processes that a launcher started for one run."""

    world_size: int
    """On all machines together."""
    per_machine: int

    @property
    def n_machines(self) -> int:
        """Each with the same number of processes."""
        return self.world_size // self.per_machine


def launch() -> Launch | None:
    """The processes that this one was started with; None where it was started alone.

    An interactive job of SLURM counts as a shell: what is typed there is started once.
    """
    if (world_size := _number("WORLD_SIZE")) is not None:
        return _launch(world_size, _number("LOCAL_WORLD_SIZE"))
    world_size = _number("SLURM_NTASKS")
    if world_size is None or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    found = _launch(world_size, _number("SLURM_NTASKS_PER_NODE") or _tasks_of_nodes())
    if found is not None:
        # Lightning Fabric refuses to do without it.
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(found.per_machine))
    return found


def under_launcher() -> bool:
    """Whether torchrun, SLURM or the like started this process as one of several."""
    return launch() is not None


def _launch(world_size: int, per_machine: int | None) -> Launch | None:
    return Launch(world_size, per_machine or world_size) if world_size > 1 else None


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None


def _tasks_of_nodes() -> int | None:
    """From the list of tasks per node, such as `4(x2)`; nodes all have the same number."""
    found = re.match(r"\d+", os.environ.get("SLURM_TASKS_PER_NODE", ""))
    return int(found[0]) if found else None


Value = TypeVar("Value")

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class Member:
    """One of the processes that share a run on this machine."""

    rank: int = 0
    world_size: int = 1
    port: int = 0
    """Where process 0 listens; free when the run was started."""


def start_together(world_size: int, work: Callable[..., Value], *arguments: Any, first: Any = None) -> Value:
    """Runs `work(member, *arguments, first)` in this process as rank 0 and in `world_size - 1` new ones.

    Returns what rank 0 returned, and raises what it raised. `work` and the arguments must be picklable;
    `first` stays in this process, the others get None in its place. When a process dies the others end too:
    their next exchange fails.
    """
    if world_size == 1 or under_launcher():
        return work(Member(), *arguments, first)
    context = torch.multiprocessing.get_context("spawn")
    with _steady_store():
        port = free_port()
        complaints, started = context.SimpleQueue(), context.Semaphore(0)
        others = [
            context.Process(
                target=_run_other,
                args=(Member(rank, world_size, port), work, arguments, complaints, started),
                daemon=True,
            )
            for rank in range(1, world_size)
        ]
        for process in others:
            process.start()
        patience = 0.0
        try:
            _wait_for_start(others, started)
            result = work(Member(0, world_size, port), *arguments, first)
            patience = 30.0
        except Interrupted:
            patience = 30.0
            raise
        except ResourceError as error:
            if complaints.empty():
                raise
            rank, message, fix = complaints.get()
            raise ResourceError(f"training process {rank} of {world_size}: {message}", fix=fix) from error
        finally:
            _end(others, patience)
    return result


def free_port() -> int:
    """A free port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def make_fabric(
    config: TrainingConfig, member: Member, devices: int, nodes: int = 1
) -> "lightning_fabric.Fabric":
    """Fabric for this process, its process group joined. Under torchrun or SLURM their world is used.

    Raises ResourceError where the devices that were asked for are not there, where processes do not find
    each other, and where a launcher started unequal numbers of them on its machines.
    """
    from lightning_fabric import Fabric

    for name in ("lightning_fabric", "lightning.fabric", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if launched := launch():
        devices, nodes = launched.per_machine, launched.n_machines
        if devices * nodes != launched.world_size:
            raise ResourceError(
                f"{launched.world_size} processes were started, {devices} of them on one machine: all need "
                "equally many",
                fix="start as many on each: --ntasks-per-node of SLURM, --nproc-per-node of torchrun",
            )
    _check_devices(config, devices, nodes)
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    several = devices > 1 or launched is not None
    accelerator = _accelerator(config)
    precision = precision_in_use(config, accelerator).name
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=_strategy(config) if several else "auto",
        precision=_PRECISION[precision],  # pyright: ignore[reportArgumentType]
        plugins=[_environment(member)] if member.world_size > 1 else None,
    )
    if several:
        try:
            fabric.launch()
        except torch.distributed.DistError as error:
            raise ResourceError(
                f"the training processes did not find each other within {config.timeout:g} s: "
                f"{str(error).splitlines()[0][:200]}",
                fix="start all of them; --set training.timeout=SECONDS waits longer",
            ) from error
    return fabric


def _accelerator(config: TrainingConfig) -> str:
    """CUDA where available, else the CPU."""
    return config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _strategy(config: TrainingConfig) -> Any:
    from lightning_fabric.strategies.ddp import DDPStrategy

    # Heads that a step does not use get no gradient.
    return DDPStrategy(timeout=timedelta(seconds=config.timeout), find_unused_parameters=True)


def _environment(member: Member) -> Any:
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    class SpawnedProcess(LightningEnvironment):
        """A process that was started by `start_together`."""

        @property
        def creates_processes_externally(self) -> bool:
            return True

        @property
        def main_address(self) -> str:
            return "127.0.0.1"

        @property
        def main_port(self) -> int:
            return member.port

        def local_rank(self) -> int:
            return member.rank

        def node_rank(self) -> int:
            return 0

    return SpawnedProcess()


def _check_devices(config: TrainingConfig, devices: int, nodes: int) -> None:
    if nodes > 1 and not under_launcher():
        raise ResourceError(
            f"{nodes} machines were asked for, but nothing started this process on all of them",
            fix=f"torchrun --nnodes {nodes} --nproc-per-node {devices} -m ponder_cli ...",
        )
    there = torch.cuda.device_count()
    if config.device == "cuda" and there < devices:
        raise ResourceError(
            f"{devices} CUDA devices were asked for and {there} are there", fix="--set training.device=cpu"
        )
    if config.device == "auto" and 0 < there < devices:
        raise ResourceError(
            f"{devices} devices were asked for and {there} are there", fix=f"--devices {there}"
        )


def _wait_for_start(others: list[Any], started: Any) -> None:
    """Waits until every process has started. Raises ResourceError where one ends before that."""
    for _ in others:
        while not started.acquire(timeout=0.2):
            for rank, process in enumerate(others, 1):
                if process.exitcode:
                    raise ResourceError(
                        f"training process {rank} of {len(others) + 1} ended with status {process.exitcode} "
                        "before it could start",
                        fix="see its message above; fewer --devices where memory is short",
                    )


def _run_other(
    member: Member, work: Callable[..., Any], arguments: tuple[Any, ...], complaints: Any, started: Any
) -> None:
    """A process other than the first: prints nothing; the first one reports errors."""
    import signal

    started.release()
    # Ctrl-C reaches all processes of a terminal: the first one decides and informs the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // member.world_size))
    try:
        work(member, *arguments, None)
    except PonderError as error:
        if not isinstance(error, Interrupted):
            complaints.put((member.rank, error.message, error.fix))
        sys.exit(2)
    finally:
        _leave()


def _end(others: list[Any], patience: float) -> None:
    """Leaves the group, waits for the other processes, and kills those that do not end."""
    end = time.monotonic() + patience
    if patience:
        _leave()
    for process in others:
        process.join(timeout=max(0.0, end - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    if not patience:
        _leave()


def restart_trouble() -> str | None:
    """A warning where torchrun cannot restart a run within its job; None where it can.

    A store that is shared with torchrun itself still holds the addresses of the dead processes (pytorch issue
    135712); it can only be chosen before torchrun starts.
    """
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if restarts == "0" or not shared:
        return None
    return (
        f"torchrun was asked for {restarts} restarts, which may hang: start it with "
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
    )


def _leave() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def _steady_store() -> Iterator[None]:
    """The environment of the process group; restored at the end.

    A store shared between launches hands stale addresses to restarted processes (pytorch issue 135712).
    """
    names = (
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
    )
    before = {name: os.environ.get(name) for name in names}
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
