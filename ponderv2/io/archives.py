"""Members of zip archives: indexed once, read in place, sizes and checksums verified.

An archive is input from outside: names, sizes and methods of its members are checked before anything is
read, no member is decompressed beyond the size that was announced, and nothing is ever extracted.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from ponderv2.errors import SceneError

LARGEST_IMAGE = 64 * 2**20
"""Bytes of a member, decompressed. The largest of the dataset have a few megabytes."""
LARGEST_TEXT = 64 * 2**10
LARGEST_RATIO = 1100
"""Deflate cannot compress further than about 1 : 1032."""
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """The bytes of one file: a member of an archive or a file of its own."""

    archive: Path
    name: str
    """Of the member; empty for a file of its own."""
    offset: int = 0
    """Of the member's local header."""
    packed: int = 0
    """Bytes in the archive."""
    size: int = 0
    """Bytes of the contents."""
    crc: int = 0
    method: int = STORED
    fault: str = ""
    """Why the member must not be read; empty when it may."""

    def __str__(self) -> str:
        return f"{self.archive.name}: {self.name}" if self.name else str(self.archive)

    def read(self) -> bytes:
        """The contents. Raises SceneError naming archive and member when they are not what was announced."""
        if self.fault:
            raise _damaged(self, self.fault)
        try:
            return self._member() if self.name else self.archive.read_bytes()
        except (OSError, zlib.error, struct.error, ValueError) as error:
            raise _damaged(self, str(error)) from error

    def _member(self) -> bytes:
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            header = file.read(LOCAL_HEADER.size)
            if len(header) < LOCAL_HEADER.size:
                raise ValueError("the archive ends before it")
            fields = LOCAL_HEADER.unpack(header)
            if fields[0] != b"PK\x03\x04":
                raise ValueError("there is no member where the directory says")
            name, extra = file.read(fields[9]), fields[10]
            if name.decode("utf-8", "replace") != self.name:
                raise ValueError("the directory names another member")
            file.seek(extra, os.SEEK_CUR)
            packed = file.read(self.packed)
        if len(packed) < self.packed:
            raise ValueError("the archive ends within it")
        data = packed if self.method == STORED else _inflated(packed, self.size)
        if len(data) != self.size:
            raise ValueError(f"{len(data)} bytes instead of {self.size}")
        if zlib.crc32(data) != self.crc:
            raise ValueError("its checksum is wrong")
        return data


def archive_members(archive: Path) -> Iterator[tuple[str, ArchiveMember]]:
    """Path inside the dataset and bytes of every file of an archive, from its directory alone.

    Members that must not be read carry their fault. Raises SceneError when the directory cannot be read,
    which is what an interrupted download looks like.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
        members = [member for member in members if member.filename]
    except (OSError, zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, LookupError) as error:
        raise SceneError(
            f"{archive} is not a whole zip archive ({error})", fix="download it again or move it away"
        ) from error
    end = archive.stat().st_size
    order = sorted(members, key=lambda one: one.header_offset)
    follower = {id(one): two.header_offset for one, two in pairwise(order)}
    for member in members:
        if not member.is_dir():
            fault = _fault(member, follower.get(id(member), end))
            yield (
                member.filename,
                ArchiveMember(
                    archive,
                    member.filename,
                    member.header_offset,
                    member.compress_size,
                    member.file_size,
                    member.CRC,
                    member.compress_type,
                    fault,
                ),
            )


def folder_members(root: Path) -> Iterator[tuple[str, ArchiveMember]]:
    """Path inside the folder and bytes of every file below it. Links are followed, as for any folder."""
    for folder, _, names in os.walk(root, followlinks=True):
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_file():
                size = path.stat().st_size
                fault = "is too large" if size > _limit(name) else ""
                yield (
                    path.relative_to(root).as_posix(),
                    ArchiveMember(path, "", packed=size, size=size, fault=fault),
                )


def _fault(member: zipfile.ZipInfo, end: int) -> str:
    """Why a member must not be read: it is not what the dataset's writers produce."""
    parts = PurePosixPath(member.filename).parts
    checks = (
        (member.filename.startswith("/") or ".." in parts or "\\" in member.filename, "leaves the archive"),
        (bool(member.flag_bits & 0x1), "is encrypted"),
        (member.compress_type not in (STORED, DEFLATED), "is compressed in an unknown way"),
        (member.file_size > _limit(member.filename), f"claims to have {member.file_size} bytes"),
        (member.file_size > LARGEST_RATIO * (member.compress_size + 1), "claims an impossible size"),
        (member.header_offset + LOCAL_HEADER.size + member.compress_size > end, "overlaps with another"),
    )
    return next((text for wrong, text in checks if wrong), "")


def _limit(name: str) -> int:
    return LARGEST_TEXT if name.endswith(".txt") else LARGEST_IMAGE


def _inflated(packed: bytes, size: int) -> bytes:
    """Decompress at most one byte more than announced."""
    stream = zlib.decompressobj(-15)
    data = stream.decompress(packed, size + 1)
    if len(data) > size:
        raise ValueError(f"it holds more than the announced {size} bytes")
    if not stream.eof:
        raise ValueError("its data end too early")
    return data


def _damaged(member: ArchiveMember, reason: str) -> SceneError:
    return SceneError(
        f"{member} is damaged: {reason}", fix="download the archive again or leave the room out"
    )
