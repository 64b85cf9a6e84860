"""A checkpoint: one file with everything that a run needs to continue, written whole or not at all.

The file is a torch zip archive of plain tensors, numbers, strings, lists and dicts. Its sha256 is the comment
of the archive, so that a flipped byte anywhere is noticed before anything is unpacked.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from ponderv2.errors import CheckpointError
from ponderv2.io.files import replacement, share_file, write_through
from ponderv2.io.suggestions import similar_path
from ponderv2.training.weights import ENDING, read_safetensors
from ponderv2.weights import NAMES

FORMAT = "ponder"
FORMAT_VERSION = 1

_OURS = "give the folder of a run, or a .pth file in its checkpoints/"
_RESUME = "free space, then --resume"
_ANOTHER = "give another checkpoint of the run (previous.pth, best.pth), or copy the file again"

RUN_FILES = tuple(
    f"{folder}{name}.pth" for folder in ("checkpoints/", "") for name in ("best", "last", "previous")
)
"""Checkpoints of a run folder, or of its `checkpoints/`; the first that is there stands for the folder."""
CHECKPOINT_ENDINGS = (".pth", ".pt", ENDING)

_MARK = b"ponder-sha256:"
_COMMENT_LENGTH = len(_MARK) + 64


@dataclass(frozen=True)
class Checkpoint:
    """A model in training. Every value is plain, so that reading it can never run code."""

    kind: str
    """Of the settings of the model."""
    config: dict[str, Any]
    """The resolved settings of the run; `config["model"]` builds the model."""
    model: dict[str, Tensor]
    """Parameters and buffers, without the prefix of distributed training."""
    step: int = 0
    """Steps done."""
    seed: int = 0
    optimiser: dict[str, Any] | None = None
    scheduler: dict[str, Any] = field(default_factory=dict)
    """Number of steps that the schedule spans; everything else of it follows from `step`."""
    scaler: dict[str, Any] | None = None
    """State of the loss scale of fp16."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One entry per validation: step and metrics."""
    data: dict[str, Any] = field(default_factory=dict)
    """Fingerprint of the data: name, number of scenes, digest of their names."""
    classes: dict[str, Any] = field(default_factory=dict)
    """Names, colours and label field, where the task has classes."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the software that wrote it."""


def save_checkpoint(
    path: Path, checkpoint: Checkpoint, keep: Path | None = None, also: Sequence[Path] = ()
) -> None:
    """Writes the file whole or not at all. `keep`: name for the file that was at `path` before.

    `also` are further names of the new file. They come first: a run that is killed before the file is at
    `path` does the step again, one that is killed after it does not.
    At every moment there is a whole file at `path`, if there was one before.

    Raises OutputError (disk full, no permission); what stood there is then untouched.
    """
    contents = {"format": FORMAT, "format_version": FORMAT_VERSION, **_shallow(checkpoint)}
    archive = _archive(contents)
    fix = "free space or choose another folder with --out; what was saved before is intact"
    with replacement(path, fix, len(archive)) as temporary:
        write_through(temporary, archive)
        for name in also:
            share_file(temporary, name, _RESUME)
        if keep is not None and path.exists():
            share_file(path, keep, _RESUME)


@dataclass(frozen=True)
class Archive:
    """The dict in a checkpoint file, read and verified once."""

    path: Path
    contents: dict[str, Any]
    digest: str
    """SHA-256 of the file: of its archive where it carries a checksum, which is compared with it."""
    has_checksum: bool
    """Only files of this program have one."""


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint of this program. Raises CheckpointError: missing, damaged, unsafe, of another."""
    return checkpoint_of(open_archive(path))


def checkpoint_of(archive: Archive) -> Checkpoint:
    """The checkpoint in an archive. Raises CheckpointError: incomplete, of another program."""
    path, contents = archive.path, archive.contents
    if contents.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this program", fix=_OURS)
    if path.suffix != ENDING and not archive.has_checksum:
        raise CheckpointError(f"{path} is damaged: its checksum is missing", fix=_ANOTHER)
    version = contents.get("format_version")
    if version != FORMAT_VERSION:
        message = f"{path} has format version {version}; this program reads {FORMAT_VERSION}"
        raise CheckpointError(message, fix="use the version of the program that wrote it")
    known = {entry.name for entry in fields(Checkpoint)}
    missing = {"kind", "config", "model", "step"} - set(contents)
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}", fix=_OURS)
    for name, kind in (("config", dict), ("model", dict), ("step", int)):
        if not isinstance(contents[name], kind):
            raise CheckpointError(
                f"{path} is not a checkpoint of this program: '{name}' is no {kind.__name__}"
            )
    return Checkpoint(**{name: value for name, value in contents.items() if name in known})


def read_archive(path: Path) -> dict[str, Any]:
    """The dict in a torch file of any program, without running code. Raises CheckpointError."""
    return open_archive(path).contents


def open_archive(path: Path) -> Archive:
    """The dict in a torch or safetensors file of any program, without running code, and its digest.

    Raises CheckpointError: missing, damaged, unsafe.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}", fix=similar_checkpoint(path) or _OURS)
    if path.suffix == ENDING:
        digest, _ = _digest_and_checksum(path)
        return Archive(path, read_safetensors(path), digest, has_checksum=False)
    try:
        digest, checksum = _digest_and_checksum(path)
        if checksum is not None and checksum != digest:
            message = f"{path} is damaged: its contents do not match its checksum"
            raise CheckpointError(message, fix=_ANOTHER)
        _refuse_others(path)
        _refuse_bombs(path)
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than plain data and was not opened: {_reason(error)}",
            fix="get a file of plain tensors; nothing in this one was run",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        message = f"{path} is damaged or not a checkpoint: {_reason(error)}"
        raise CheckpointError(message, fix=_ANOTHER) from error
    except (IndexError, MemoryError, struct.error, AssertionError) as error:
        raise CheckpointError(f"{path} is damaged: {_reason(error)}", fix=_ANOTHER) from error
    if not isinstance(contents, dict):
        kind = type(contents).__name__
        raise CheckpointError(f"{path} does not hold a checkpoint but a {kind}", fix=_OURS)
    return Archive(path, contents, digest, has_checksum=checksum is not None)


def similar_checkpoint(missing: Path) -> str | None:
    """What was probably meant: an encoder that ships, or a checkpoint or run beside it; None if nothing."""
    near = get_close_matches(str(missing), NAMES, n=1)
    if near:
        return f"{near[0]}, the encoder that ships with ponder"
    beside = similar_path(missing)
    if beside is None:
        return None
    is_run = any((beside / name).is_file() for name in RUN_FILES)
    return str(beside) if is_run or beside.suffix in CHECKPOINT_ENDINGS else None


def _refuse_others(path: Path) -> None:
    """Raises CheckpointError for meshes, images, text: torch writes zip archives, formerly bare pickles."""
    with path.open("rb") as stream:
        begins = stream.read(2)
    if begins != b"PK" and begins[:1] != b"\x80":
        message = f"{path} is damaged or not a checkpoint: it does not begin as one"
        raise CheckpointError(message, fix=_OURS)


def _digest_and_checksum(path: Path) -> tuple[str, str | None]:
    """SHA-256 of the file without the checksum at its end, and that checksum; None where it has none."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - _COMMENT_LENGTH))
        comment = stream.read()
        found = comment.startswith(_MARK)
        stream.seek(0)
        digest = hashlib.sha256()
        left = size - _COMMENT_LENGTH if found else size
        while left > 0:
            block = stream.read(min(left, 1 << 20))
            if not block:
                break
            digest.update(block)
            left -= len(block)
    checksum = comment[len(_MARK) :].decode("ascii", "replace") if found else None
    return digest.hexdigest(), checksum


def software_versions() -> dict[str, str]:
    """Versions that a result may depend on."""
    import platform

    import numpy

    from ponderv2.version import __version__

    return {
        "ponder": __version__,
        "torch": str(torch.__version__),
        "numpy": str(numpy.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _shallow(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The fields, shallow: `asdict` would copy every tensor."""
    return {entry.name: getattr(checkpoint, entry.name) for entry in fields(checkpoint)}


def _archive(contents: Mapping[str, Any]) -> bytes:
    """A torch zip archive with its own sha256 as the zip comment."""
    stream = io.BytesIO()
    torch.save(dict(contents), stream)
    stream.seek(-2, io.SEEK_END)
    stream.write(struct.pack("<H", _COMMENT_LENGTH))
    digest = hashlib.sha256(stream.getbuffer()).hexdigest()
    stream.write(_MARK + digest.encode())
    return stream.getvalue()


def _refuse_bombs(path: Path) -> None:
    """Torch stores tensors uncompressed: an archive that unpacks to much more than its size is hostile."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, OverflowError) as error:
        raise CheckpointError(f"{path} is damaged: {_reason(error)}") from error
    if unpacked > 20 * path.stat().st_size + (1 << 20):
        raise CheckpointError(f"{path} would unpack to {unpacked / 2**20:.0f} MiB and was not opened")


def _reason(error: BaseException) -> str:
    """The first sentence of an error, in one line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". ")[0][:200]


def checkpoint_file(path: Path) -> Path:
    """The file itself; for the folder of a run its best checkpoint, or its last. Raises CheckpointError."""
    if not path.is_dir():
        return path
    for name in RUN_FILES:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"no checkpoint in {path}", fix="ponder pretrain")


_FORMATS = {
    "f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H",
    "u4": "I", "u8": "Q", "b1": "?",
}  # fmt: skip
_CODE = re.compile(r"[<>|=]?([fiub][1248])")


class StoredType:
    """In place of `numpy.dtype`: a number type by its code, nothing else.

    Foreign checkpoints hold NumPy numbers (an epoch, a best value), which torch's restricted reader refuses.
    This and `stored_number` read them without running NumPy.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        match = _CODE.fullmatch(code) if isinstance(code, str) else None
        if match is None or match[1] not in _FORMATS:
            raise ValueError(f"{code!r} is not the type of a number")
        self.format = _FORMATS[match[1]]
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        """Only the order of the bytes is taken."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
        self.order = ">" if order == ">" else "<"


def stored_number(kind: StoredType, data: bytes) -> float | int | bool:
    """In place of `numpy.core.multiarray.scalar`."""
    if not isinstance(kind, StoredType) or not isinstance(data, bytes):
        raise ValueError("a number is stored as its type and its bytes")
    return struct.unpack(kind.order + kind.format, data)[0]


SAFE_GLOBALS: list[Any] = [
    (StoredType, "numpy.dtype"),
    (stored_number, "numpy.core.multiarray.scalar"),
    (stored_number, "numpy._core.multiarray.scalar"),
]
"""For `torch.serialization.safe_globals`."""
