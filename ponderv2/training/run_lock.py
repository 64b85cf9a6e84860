"""The lock of a run folder: at most one process trains in it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from ponderv2.errors import OutputError
from ponderv2.io.files import write_bytes

LOCK_FILE = "run.lock"
OWNER_FILE = "run.lock.json"
"""Process and host of who holds the lock, for messages only."""


class RunLock:
    """Held by the process that trains in a run folder; released with the process, however that ends.

    The system holds the lock and drops it with the process; forked workers do not inherit it. Where the file
    system knows no locks (some of clusters do not), the file itself is the lock, and the message for the next
    run says which file to delete where a killed process left it.
    """

    def __init__(self, folder: Path) -> None:
        """Raises OutputError where another run works in the folder or the folder cannot be written."""
        self._lock = FileLock(folder / LOCK_FILE, thread_local=False)
        self._owner_file = folder / OWNER_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(f"another run works in {folder} ({self._owner()})", fix=self._fix()) from None
        except OSError as error:
            raise OutputError(
                f"cannot write to {folder}: {error.strerror or error}", fix="choose another folder with --out"
            ) from error
        owner = {"pid": os.getpid(), "host": socket.gethostname()}
        with contextlib.suppress(OutputError):  # on a full disk the owner stays unknown, the lock holds
            write_bytes(self._owner_file, json.dumps(owner).encode())

    def _owner(self) -> str:
        try:
            owner = json.loads(self._owner_file.read_bytes())
            return f"process {owner['pid']} on {owner['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "owner unknown"

    def _fix(self) -> str:
        fix = "wait for it, stop it, or choose another --name"
        path = Path(self._lock.lock_file)
        with contextlib.suppress(OSError):
            if path.read_bytes()[:1].isdigit():  # the file is the lock and begins with the process
                return f"{fix}; where no such process runs, delete {path}"
        return fix

    def release(self) -> None:
        """Lets the next run in."""
        with contextlib.suppress(OSError):
            if self._lock.is_locked:
                self._owner_file.unlink(missing_ok=True)
            self._lock.release()
