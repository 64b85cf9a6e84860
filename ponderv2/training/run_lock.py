"""Who works in a run folder: at most one process."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import TextIO

from ponderv2.errors import OutputError


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
        with contextlib.suppress(OSError):  # on a full disk the owner stays unknown, the lock holds
            self._stream.truncate(0)
            self._stream.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
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
            with contextlib.suppress(OSError):
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
