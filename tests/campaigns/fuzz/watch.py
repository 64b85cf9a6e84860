"""Runs a reader on one input and says what it should not have done: raise, hang, write, call, take memory."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 1.0
"""Of processor time per input."""
MEMORY = 64 << 20
"""Bytes beyond what the process had after reading sound files, and beyond twice the input."""
_WRITES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
)
_CALLS = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect",
    "socket.getaddrinfo", "shutil.unpack_archive",
)  # fmt: skip


class TooSlow(BaseException):
    """An input took more than its time. Not an Exception: no reader must catch it."""


@dataclass(frozen=True)
class Fault:
    """What a reader did wrong."""

    kind: str
    """raised, hung, wrote, called, took memory."""
    where: str
    """Exception and the last line of ours."""
    text: str


class Watch:
    """Limits of this process; `run` reads one input under them."""

    def __init__(self, folder: Path, clean: type[Exception]) -> None:
        self.folder = str(folder.resolve())
        self.clean = clean
        self.armed = False
        self.deeds: list[str] = []
        sys.addaudithook(self._heard)
        signal.signal(signal.SIGPROF, _stop)

    def limit_memory(self, largest_input: int) -> None:
        """From now on no more than the process has, and what an input may cost."""
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY + 2 * largest_input
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

    def run(self, read: Callable[[bytes], Any], data: bytes) -> Fault | None:
        """None when the input was read, or refused by the clean error."""
        self.deeds.clear()
        self.armed = True
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        start = time.process_time()
        fault = None
        try:
            read(data)
        except self.clean:
            pass
        except TooSlow as slow:
            fault = _fault("hung", slow)
        except MemoryError as error:
            fault = _fault("took memory", error)
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            fault = _fault("raised", error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.armed = False
        if fault is None and time.process_time() - start > SECONDS:
            fault = Fault("hung", "in compiled code", f"{time.process_time() - start:.2f} s")
        if self.deeds:
            fault = Fault("called", self.deeds[0], "; ".join(self.deeds[:5]))
        return fault

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event == "open":
            path, mode, flags = (*arguments, None, None, None)[:3]
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not self._inside(path):
                self.deeds.append(f"open for writing {path!r} {mode}")
        elif event in _CALLS or (event in _WRITES and not self._inside(arguments[0])):
            self.deeds.append(f"{event} {str(arguments)[:200]}")

    def _inside(self, path: Any) -> bool:
        if isinstance(path, int):
            return True
        return os.path.abspath(os.fsdecode(path)).startswith(self.folder)


def _stop(*_: Any) -> None:
    raise TooSlow


def _fault(kind: str, error: BaseException) -> Fault:
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "/ponder" in one.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
    text = "".join(traceback.format_exception(error))[-1500:]
    return Fault(kind, f"{type(error).__name__} in {place}", text)
