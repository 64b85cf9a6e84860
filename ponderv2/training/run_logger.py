"""What a run writes into its folder: one JSON line per step, curves, log and environment, all bounded."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from ponderv2.errors import OutputError
from ponderv2.io.files import needed_and_free, remove_leftovers, write_bytes
from ponderv2.training.checkpoint import software_versions

OLDER = ".older"
"""Suffix of the rotated file: the lines before those of a file that reached half of its limit."""


class BoundedFile(RotatingFileHandler):
    """Appends lines to a file of bounded size: two files of half the size, the older one is dropped."""

    def __init__(self, path: Path, megabytes: float) -> None:
        """`megabytes`: of 10^6 bytes, of both files together. Raises OSError."""
        most = 0 if math.isinf(megabytes) else int(megabytes * 1e6 / 2)  # 0: without bound
        super().__init__(path, maxBytes=most, backupCount=1, encoding="utf-8")

    def line(self, text: str) -> None:
        """Appends a line, at once. Raises OSError."""
        self.handle(logging.makeLogRecord({"msg": text}))

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        """Whether the line would not fit, in bytes; `logging` counts characters."""
        stream = self.stream
        if stream is None or self.maxBytes <= 0 or stream.tell() == 0:
            return False
        return stream.tell() + len(self.format(record).encode()) + 1 > self.maxBytes

    def rotation_filename(self, default_name: str) -> str:
        """Of the older lines."""
        return f"{self.baseFilename}{OLDER}"

    def handleError(self, record: logging.LogRecord) -> None:
        """A failed write ends the run; logging would print it and continue."""
        raise

    def close(self) -> None:
        """A failed write was reported before."""
        with contextlib.suppress(OSError):
            super().close()


class RunLogger:
    """Writes metrics, log and curves of a run. Only the first process of a run has one."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        first_step: int,
        tensorboard: bool,
        megabytes: float = math.inf,
        environment: Mapping[str, str] | None = None,
        is_validated: bool = True,
    ) -> None:
        """`first_step`: steps that are already done; later lines of an interrupted run are dropped.

        `megabytes`: most that each of metrics, log and curves may take. `environment`: what is written into
        `environment.json` beside machine and versions. `is_validated`: whether the line of a validation after
        `first_step` counts as done too.
        """
        self.folder = folder
        self._curves = Curves(folder / "tensorboard", first_step, megabytes) if tensorboard else None
        try:
            for place in (folder, folder / "checkpoints"):
                remove_leftovers(place, owned=True)
            for name in ("metrics.jsonl", f"metrics.jsonl{OLDER}"):
                _keep_until(folder / name, first_step, is_validated)
            self._metrics = BoundedFile(folder / "metrics.jsonl", megabytes)
            self._log = BoundedFile(folder / "log.txt", megabytes)
            write_yaml(folder / "config.yaml", config)
            facts = {**_environment(), **(environment or {})}
            write_bytes(folder / "environment.json", (json.dumps(facts, indent=2) + "\n").encode())
        except OSError as error:
            raise OutputError(f"cannot write to {folder}: {error.strerror}") from error

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """One line of `metrics.jsonl`, and the same numbers as curves."""
        with _reported(self.folder):
            self._metrics.line(json.dumps({"step": step, **_plain(values)}))
        for name, value in values.items():
            self.curve(f"train/{name}", value, step)

    def note(self, text: str) -> None:
        """One line of `log.txt`, with the time."""
        with _reported(self.folder):
            self._log.line(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of one validation."""
        with _reported(self.folder):
            self._metrics.line(json.dumps({"step": step, "evaluation": _plain(values)}))
        for name, value in values.items():
            self.curve(f"evaluation/{name}", value, step)

    def curve(self, name: str, value: float, step: int) -> None:
        """One point of a TensorBoard curve."""
        if self._curves is not None:
            with _reported(self.folder):
                self._curves.writer.add_scalar(name, value, step)

    def image(self, name: str, pixels: Any, step: int) -> None:
        """An 8-bit image [row, column, 3] for TensorBoard."""
        if self._curves is not None:
            with _reported(self.folder):
                self._curves.writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes everything."""
        self._metrics.close()
        self._log.close()
        if self._curves is not None:
            self._curves.close()


class Curves:
    """TensorBoard's event files, of bounded size: rotated at half the limit, the older ones are dropped."""

    def __init__(self, folder: Path, first_step: int, megabytes: float) -> None:
        self._folder, self._most = folder, megabytes * 1e6 / 2
        self._purge_step: int | None = first_step + 1
        self._newest: Path | None = None
        self._writer: Any = None
        self._calls = 0
        self._report = threading.excepthook
        threading.excepthook = self._without_traceback

    @property
    def writer(self) -> Any:
        """A `SummaryWriter`; imported late, as that takes seconds."""
        self._calls += 1
        if self._writer is not None and self._calls % 1000 == 0 and self._size() > self._most:
            self._end_file()
            for path in self._files() - {self._newest}:
                with contextlib.suppress(OSError):
                    path.unlink()
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            before = self._files()
            self._writer = SummaryWriter(str(self._folder), purge_step=self._purge_step)
            self._newest = next(iter(self._files() - before), None)
            self._purge_step = None  # a later file of this call continues this one
        return self._writer

    def close(self) -> None:
        """Flushes; an error here must not hide why the run ends."""
        self._end_file()
        threading.excepthook = self._report

    def _end_file(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
        self._writer = None

    def _without_traceback(self, failure: threading.ExceptHookArgs) -> None:
        """A full disk ends TensorBoard's thread; the next point raises the same error."""
        if not isinstance(failure.exc_value, OSError):
            self._report(failure)

    def _files(self) -> set[Path]:
        return set(self._folder.glob("events*"))

    def _size(self) -> int:
        """Of the file that is being written."""
        try:
            return self._newest.stat().st_size if self._newest is not None else 0
        except OSError:  # somebody removed it
            return 0


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Plain values as YAML, keys in their own order."""
    import yaml

    write_bytes(path, yaml.safe_dump(dict(values), sort_keys=False).encode())


@contextlib.contextmanager
def _reported(folder: Path, n_bytes: int = 1000) -> Iterator[None]:
    """`n_bytes`: about what is to be written."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror}{needed_and_free(folder, n_bytes)}",
            fix="free space, then run the same command with --resume",
        ) from error


def _keep_until(path: Path, step: int, is_validated: bool) -> None:
    """Drops lines of later steps and of a validation that will be repeated, and a truncated line."""
    if not path.exists():
        return
    end = (step, is_validated)
    kept = [line for line in path.read_text("utf-8", "replace").splitlines() if _place_of(line) <= end]
    write_bytes(path, "".join(line + "\n" for line in kept).encode())


def _place_of(line: str) -> tuple[float, bool]:
    """Step of a line and whether it is that of its validation; infinity for a truncated one."""
    try:
        values = json.loads(line)
        return float(values["step"]), "evaluation" in values
    except (ValueError, KeyError, TypeError):
        return math.inf, True


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
