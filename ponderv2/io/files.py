"""One way to write a file whole or not at all, one digest of a file, one cache folder.

What is being written has a temporary name in the folder of its target, of one process and one call, so that
any number of processes and threads may write one path: each succeeds, the last one stays, and a reader sees
a whole file at every moment. `remove_leftovers` deletes what killed processes left behind.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ponderv2.errors import OutputError

PARTIAL = ".partial"
"""Ending of what is being written."""
ASIDE = ".old"
"""Ending of a folder that steps aside for a new one of its name."""
MOST_RENAMES = 100
"""Attempts at a folder's name that other processes take again and again."""
SMALL = 2**20
"""Bytes of a file that is read at once for its digest: thousands of poses are a matter of calls."""
LONGEST_STEM = 120
"""Bytes of the target's name in a temporary one: most systems allow 255 for all of it."""
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)
"""What file systems and folders answer that cannot be flushed; the rename stands all the same."""


def write_bytes(path: Path, data: bytes, fix: str | None = None) -> None:
    """Replaces a file whole or not at all, and makes its folder. A device or a pipe is written as it is.

    Raises OutputError with the bytes needed and free on a full disk; `fix` replaces the usual advice.
    """
    if _is_special(path):
        with reported(path, fix, len(data)):
            path.write_bytes(data)
        return
    with replacement(path, fix=fix, n_bytes=len(data)) as temporary:
        write_through(temporary, data)


@contextlib.contextmanager
def replacement(
    path: Path, fix: str | None = None, n_bytes: int | None = None, ending: str = ""
) -> Iterator[Path]:
    """A free temporary path to write a file to, which replaces `path` when the block ends without an error.

    For writers that need a path or write more than the memory holds. `ending`: of the temporary name, where
    the writer chooses the format by it. An OSError in the block becomes an OutputError.
    """
    temporary = temporary_path(path, f"{PARTIAL}{ending}")
    try:
        with reported(path, fix, n_bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers_once(path.parent.absolute(), os.getpid())
            yield temporary
            _sync_file(temporary)
            os.replace(temporary, path)
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # what went wrong was reported above
            temporary.unlink(missing_ok=True)


def share_file(source: Path, target: Path, fix: str | None = None) -> None:
    """Gives a file a second name, whole or not at all; copies where the file system has no links.

    Raises OutputError.
    """
    with reported(target, fix):
        n_bytes = source.stat().st_size
    with replacement(target, fix=fix, n_bytes=n_bytes) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


@contextlib.contextmanager
def exclusively(path: Path, seconds: float = 30.0) -> Iterator[None]:
    """One process at a time reads a file, changes it and writes it again.

    The lock lies in the cache folder. Where none can be had within `seconds` the block runs all the same: the
    file stays whole, only what another process writes in the same moment may be lost.
    """
    from filelock import FileLock, Timeout

    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:24]
    folder = cache_folder() / "locks"
    lock = FileLock(folder / f"{name}.lock", thread_local=False)
    with contextlib.suppress(OSError, Timeout):
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=seconds)
    try:
        yield
    finally:
        if lock.is_locked:
            lock.release()


def write_through(path: Path, data: bytes) -> None:
    """Writes a file that nobody else knows of yet, to the disk. Raises OSError."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Makes renames and new names survive a loss of power, where the system can do that. Raises OSError."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


@contextlib.contextmanager
def reported(path: Path, fix: str | None = None, n_bytes: int | None = None) -> Iterator[None]:
    """Turns OSError into OutputError. `n_bytes`: size of what is written, for the message of a full disk."""
    try:
        yield
    except OSError as error:
        raise output_error(path, error, n_bytes, fix) from error


def output_error(
    path: Path, error: OSError, n_bytes: int | None = None, fix: str | None = None
) -> OutputError:
    """What the system reported, with what a user can do; `n_bytes`: size of the file that did not fit."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    usual = (
        "free some space and run the command again; finished scenes are kept"
        if full
        else "choose another --out"
    )
    room = needed_and_free(path.parent, n_bytes) if full and n_bytes is not None else ""
    return OutputError(f"cannot write {path}: {error.strerror or error}{room}", fix=fix or usual)


def needed_and_free(folder: Path, n_bytes: int) -> str:
    """For messages: how much was to be written, and how much the disk takes."""
    try:
        free = f", {_megabytes(shutil.disk_usage(folder).free)} free on the disk"
    except OSError:
        free = ""
    return f" ({_megabytes(n_bytes)} needed{free})"


def temporary_path(target: Path, ending: str = PARTIAL) -> Path:
    """A name beside the target that no other call gives: it holds machine and process."""
    return target.with_name(f".{_stem(target)}.{machine()}-{os.getpid()}-{_token()}{ending}")


def replace_folder(new: Path, target: Path) -> None:
    """Renames a folder to `target`; one that stands there steps aside first, as none replaces a full one.

    A process that is killed in between leaves the old folder under a name that `has_ended` knows. Of several
    that do this at once each succeeds and the last stays. Raises OSError.
    """
    asides: list[Path] = []
    for attempt in range(MOST_RENAMES):
        try:
            new.rename(target)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt == MOST_RENAMES - 1:
                raise
        aside = temporary_path(target, ASIDE)
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            target.rename(aside)
        asides.append(aside)
    sync_folder(target.parent)
    for aside in asides:
        shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path, owned: bool = False) -> None:
    """Deletes what processes that have ended left half written in a folder; those that run are left alone.

    A process of another machine cannot be asked, and its files stay. `owned`: nobody else may write in the
    folder, and everything half written in it goes. A folder that stepped aside goes once its successor is
    there.
    """
    for path in _entries(folder):
        writer = _writer(path.name, PARTIAL, any_machine=owned)
        aside = _writer(path.name, ASIDE)
        if aside is not None and path.with_name(aside.target).exists():
            writer = aside
        if writer is None or not (owned or writer.has_ended):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def has_ended(name: str, end: str) -> bool:
    """Whether a temporary name that ends so was given by a process of this machine that no longer runs."""
    writer = _writer(name, end)
    return writer is not None and writer.has_ended


@functools.cache
def machine() -> str:
    """Name of the machine; containers that share a name but not their process ids are told apart."""
    name = re.sub(r"[^\w.]", "_", platform.node())[:40]
    try:
        return f"{name}_{os.stat('/proc/self/ns/pid').st_ino % 16**6:x}"
    except OSError:
        return name


def digest_of_file(path: Path) -> str:
    """SHA-256 of its bytes, as text. Raises OSError."""
    with path.open("rb", buffering=0) as stream:
        if os.fstat(stream.fileno()).st_size > SMALL:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        return hashlib.sha256(stream.readall()).hexdigest()


def digest_of_files(files: Iterable[tuple[str, Path]], *texts: str) -> str:
    """SHA-256 of texts, and of name and every byte of files. The times of files do not count.

    A file that is missing or cannot be read counts as such. Each pair is the name that counts and the path.
    """
    digest = hashlib.sha256()
    for text in texts:
        _add(digest, text.encode("utf-8", "surrogateescape"))
    for name, path in files:
        _add(digest, name.encode("utf-8", "surrogateescape"))
        try:
            _add(digest, digest_of_file(path).encode())
        except OSError:
            _add(digest, b"unreadable")
    return digest.hexdigest()


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted, hidden ones left out; linked folders are followed, each once."""
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(one for one in folders if not one.startswith("."))
        if real not in seen:
            found += [Path(place, name) for name in names if not name.startswith(".")]
        seen.add(real)
    return sorted(found)


def cache_folder() -> Path:
    """$PONDER_CACHE, or ponder/ in $XDG_CACHE_HOME or ~/.cache. It need not exist."""
    named = os.environ.get("PONDER_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path(os.path.expanduser("~")) / ".cache") / "ponder"


def _add(digest: hashlib._Hash, data: bytes) -> None:
    digest.update(len(data).to_bytes(8, "big"))
    digest.update(data)


def _is_special(path: Path) -> bool:
    """Something other than a file or a folder that stands there: it must not be replaced by a file."""
    try:
        return path.exists() and not path.is_file() and not path.is_dir()
    except OSError:
        return False


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@functools.lru_cache(maxsize=256)
def _remove_leftovers_once(folder: Path, process: int) -> None:
    """The first write of a process into a folder cleans it: not every write of many reads the folder."""
    remove_leftovers(folder)


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(one.path) for one in entries if one.name.startswith(".")]
    except OSError:
        return []


@dataclass(frozen=True)
class _Writer:
    """Who writes under a temporary name."""

    target: str
    """Name of what it is for, the beginning of a long one."""
    process: int

    @property
    def has_ended(self) -> bool:
        """Of this machine's processes. Windows cannot be asked like this: there none counts as ended."""
        if os.name == "nt":  # signal 0 is Ctrl-C there
            return False
        try:
            os.kill(self.process, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:  # somebody else's
            return False
        return False


def _writer(name: str, end: str, any_machine: bool = False) -> _Writer | None:
    """None where the name is no temporary one, or of another machine."""
    place = r"[\w.]+" if any_machine else re.escape(machine())
    writer = rf"{place}-(\d{{1,10}})(?:-[0-9a-f]+)?"
    found = re.fullmatch(rf"\.(.+)\.{writer}{re.escape(end)}(?:\.\w+)?", name, re.DOTALL)
    return _Writer(found[1], int(found[2])) if found else None


def _stem(target: Path) -> str:
    name = os.fsencode(target.name)
    return target.name if len(name) <= LONGEST_STEM else name[:LONGEST_STEM].decode("utf-8", "ignore")


def _token() -> str:
    return secrets.token_hex(4)


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes} bytes" if n_bytes < 2**17 else f"{n_bytes / 2**20:.1f} MiB"
