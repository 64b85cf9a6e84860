"""The folder of a run: who works in it, one JSON line per step, curves, log and environment."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ponderv2.errors import OutputError
from ponderv2.training.checkpoint import remove_leftovers, software_versions


class RunLock:
    """At most one process works in a run folder. Ends with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        """Raises OutputError where another run works in the folder or the folder cannot be written."""
        self._path = folder / "run.lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._stream: TextIO | None = self._path.open("a+")
        except OSError as error:
            raise OutputError(
                f"cannot write to {folder}: {error.strerror}", fix="choose another folder with --out"
            ) from error
        if not _lock(self._stream):
            owner = self._owner()
            self._stream.close()
            raise OutputError(
                f"another run works in {folder} ({owner})",
                fix="wait for it, stop it, or choose another --name",
            )
        self._stream.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname()}, self._stream)
        self._stream.flush()

    def _owner(self) -> str:
        assert self._stream is not None
        self._stream.seek(0)
        try:
            owner = json.load(self._stream)
            return f"process {owner['pid']} on {owner['host']}"
        except (ValueError, KeyError, TypeError):
            return "owner unknown"

    def release(self) -> None:
        """Lets the next run in."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _lock(stream: TextIO) -> bool:
    """A record lock: the system drops it when the process dies, and forked workers do not inherit it."""
    try:
        import fcntl
    except ImportError:  # Windows has none; there two runs in one folder are not noticed.
        return True
    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Logbook:
    """Writes what a run does into its folder. Only the first process of a run has one."""

    def __init__(self, folder: Path, config: Mapping[str, Any], first_step: int, tensorboard: bool) -> None:
        """`first_step`: steps that are already done; later lines of an interrupted run are dropped."""
        self.folder = folder
        self._curves: Any = None
        self._tensorboard = tensorboard
        self._first_step = first_step
        try:
            remove_leftovers(folder / "checkpoints")
            _keep_until(folder / "metrics.jsonl", first_step)
            self._metrics = (folder / "metrics.jsonl").open("a")
            self._log = (folder / "log.txt").open("a")
            write_yaml(folder / "config.yaml", config)
            environment = json.dumps(_environment(), indent=2)
            (folder / "environment.json").write_text(environment + "\n")
        except OSError as error:
            raise OutputError(f"cannot write to {folder}: {error.strerror}") from error

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """One line of `metrics.jsonl`, and the same numbers as curves."""
        with _reported(self.folder):
            self._metrics.write(json.dumps({"step": step, **_plain(values)}) + "\n")
            self._metrics.flush()
        for name, value in values.items():
            self.curve(f"train/{name}", value, step)

    def note(self, text: str) -> None:
        """One line of `log.txt`, with the time."""
        with _reported(self.folder):
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            self._log.flush()

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of one validation."""
        with _reported(self.folder):
            self._metrics.write(json.dumps({"step": step, "evaluation": _plain(values)}) + "\n")
            self._metrics.flush()
        for name, value in values.items():
            self.curve(f"evaluation/{name}", value, step)

    def curve(self, name: str, value: float, step: int) -> None:
        """One point of a TensorBoard curve."""
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, pixels: Any, step: int) -> None:
        """An 8-bit picture [row, column, 3] for TensorBoard."""
        if self._writer is not None:
            self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes everything."""
        self._metrics.close()
        self._log.close()
        if self._curves is not None:
            self._curves.close()

    @property
    def _writer(self) -> Any:
        if self._tensorboard and self._curves is None:
            from torch.utils.tensorboard import SummaryWriter

            self._curves = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self._first_step + 1)
        return self._curves


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Plain values as YAML, keys in their own order."""
    import yaml

    path.write_text(yaml.safe_dump(dict(values), sort_keys=False))


@contextlib.contextmanager
def _reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror}",
            fix="free space, then run the same command with --resume",
        ) from error


def _keep_until(path: Path, step: int) -> None:
    """Drops the lines of later steps, and a line that was cut off."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in kept))
    os.replace(temporary, path)


def _step_of(line: str) -> float:
    """Step of a line; infinity for one that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: null instead."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _environment() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "host": platform.node(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "versions": software_versions(),
    }
