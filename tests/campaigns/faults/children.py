"""The real program in processes of its own, which can be killed; forked, so that torch is imported once."""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ponderv2.training.checkpoint import load_checkpoint
from ponderv2.training.distributed import free_port

CLOCKS = {"seconds", "waited", "points_per_second", "rays_per_second", "memory_gib"}
PATIENCE = 300.0
"""Seconds after which a process that should have ended long ago counts as hanging."""


_FORK = multiprocessing.get_context("fork")
_STARTED: list[Child] = []


@atexit.register
def _end_all() -> None:
    """A test that failed must not leave processes that Python would wait for."""
    for child in _STARTED:
        if child.runs:
            child.send(signal.SIGKILL)


class Child:
    """A process and what it prints."""

    def __init__(self, work: Callable[..., Any], *arguments: Any, log: Path, **environment: str) -> None:
        self.log = log
        # No daemon: those may not have workers of their own.
        self._process = _FORK.Process(target=_logged, args=(log, environment, work, arguments))
        self._process.start()
        self.pid: int = self._process.pid or 0
        _STARTED.append(self)

    def send(self, number: int) -> None:
        """A signal, to this process only."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Exit status; minus the signal that ended it."""
        self._process.join(timeout=seconds)
        if self._process.exitcode is not None and self in _STARTED:
            _STARTED.remove(self)
        assert self._process.exitcode is not None, f"still running after {seconds} s: {self.said}"
        return self._process.exitcode

    def kill_after(self, seconds: float) -> int:
        """Waits, then SIGKILL where it still runs."""
        self._process.join(timeout=seconds)
        self.send(signal.SIGKILL)
        return self.wait()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return bool(self._process.is_alive())

    @property
    def said(self) -> str:
        """Standard output and errors."""
        return self.log.read_text() if self.log.exists() else ""

    @property
    def children(self) -> list[int]:
        """Process ids of its own children."""
        try:
            return [
                int(one) for one in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            ]
        except OSError:
            return []


def _logged(
    log: Path, environment: dict[str, str], work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
    os.environ.update(environment)
    torch.set_num_threads(1)
    work(*arguments)


def run_program(*words: object) -> None:
    """What `ponder WORDS` does, exit status included."""
    from ponder_cli.app import main

    main([str(word) for word in words])


def ponder(log: Path, *words: object, **environment: str) -> Child:
    """`ponder WORDS` in a process of its own."""
    return Child(run_program, *words, log=log, **environment)


def ponder_ranks(log: Path, n: int, *words: object) -> list[Child]:
    """The same as torchrun starts it: `n` processes that know each other by their environment."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(n)}
    place |= {"LOCAL_WORLD_SIZE": str(n), "TORCHELASTIC_RUN_ID": "faults", "GROUP_RANK": "0"}
    return [
        ponder(log.with_name(f"{log.name}-{rank}"), *words, **place, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(n)
    ]


def until(condition: Callable[[], object], child: Child | None = None) -> None:
    """Waits for something that must come soon; gives up when the process ended."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        assert child is None or child.runs or condition(), f"ended too early: {child.said}"
        time.sleep(0.005)


def step_of(run: Path) -> int:
    """The last whole line of the metrics."""
    with contextlib.suppress(OSError):
        for line in reversed((run / "metrics.jsonl").read_text().splitlines()):
            with contextlib.suppress(ValueError):
                return int(json.loads(line)["step"])
    return 0


def lines(run: Path) -> list[dict[str, Any]]:
    """Metrics without what depends on the clock."""
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in read]


def differences(run: Path, truth: Path) -> list[str]:
    """What two finished runs left that is not the same: numbers, states and images, bit for bit."""
    found = []
    if lines(run) != lines(truth):
        found.append("metrics.jsonl")
    for name in ("last", "best"):
        paths = [folder / "checkpoints" / f"{name}.pth" for folder in (run, truth)]
        if paths[0].exists() != paths[1].exists():
            found.append(f"{name}.pth exists")
        elif paths[1].exists():
            one, two = (load_checkpoint(path) for path in paths)
            same = one.step == two.step and one.history == two.history
            if not same or not _equal(one.model, two.model) or not _equal(one.optimiser, two.optimiser):
                found.append(f"{name}.pth")
    pictures = [{path.name: path.read_bytes() for path in (f / "previews").glob("*")} for f in (run, truth)]
    return found + (["previews"] if pictures[0] != pictures[1] else [])


def leftovers(folder: Path) -> list[str]:
    """Temporary files."""
    return [path.name for path in folder.rglob("*") if ".partial" in path.name or path.name.endswith(".tmp")]


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(_equal(a, b) for a, b in zip(one, two, strict=True))
    return bool(one == two)


@contextlib.contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[bool]:
    """A file system of its own that holds so much; False where this user may not make one."""
    import subprocess

    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)]
    mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)
