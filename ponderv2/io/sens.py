"""ScanNet's .sens recordings, versions 3 and 4: an index of offsets, then random access to single frames.

The header is trusted in nothing: every size is compared with the size of the file before memory is taken.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, Int64, UInt8, UInt16
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.io.images import LARGEST_SIDE, ColorImage, decode_color, refuse_bomb

_FRAME_HEAD = np.dtype([("pose", "<f4", 16), ("timestamps", "<u8", 2), ("n_bytes", "<u8", 2)])
_LENGTHS = struct.Struct("<2Q")
_HEAD = struct.Struct("<64f2i4IfQ")
COLOR_KINDS = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH_KINDS = {0: "raw", 1: "zlib", 2: "occi"}
LONGEST_NAME = 4096


@dataclass(frozen=True)
class SensHeader:
    """What stands before the frames."""

    version: int
    sensor: str
    intrinsic_color: Float[ndarray, "4 4"]
    extrinsic_color: Float[ndarray, "4 4"]
    intrinsic_depth: Float[ndarray, "4 4"]
    extrinsic_depth: Float[ndarray, "4 4"]
    color_kind: str
    depth_kind: str
    color_size: tuple[int, int]
    """Width and height."""
    depth_size: tuple[int, int]
    depth_shift: float
    """Units per metre."""
    n_frames: int


@dataclass(frozen=True)
class SensFile:
    """A recording of which only the index is in memory: 100 bytes a frame."""

    path: Path
    header: SensHeader
    camera_to_world: Float[ndarray, "frame 4 4"]
    timestamps: Int64[ndarray, "frame 2"]
    """Colour and depth, microseconds."""
    offset: Int64[ndarray, " frame"]
    """Of the colour image; the depth image follows."""
    n_bytes: Int64[ndarray, "frame 2"]
    """Of the colour and the depth image."""

    def __len__(self) -> int:
        return len(self.offset)

    def color_bytes(self, index: int) -> bytes:
        """The encoded colour image."""
        return self._read(index, int(self.offset[index]), int(self.n_bytes[index, 0]))

    def color(self, index: int) -> UInt8[ndarray, "row column 3"]:
        """RGB 0..255."""
        data, name = self.color_bytes(index), f"{self.path} frame {index} (colour)"
        width, height = self.header.color_size
        if self.header.color_kind == "raw":
            if len(data) != width * height * 3:
                raise SceneError(f"{name} has {len(data)} bytes, expected {width} x {height} x 3")
            return np.frombuffer(data, np.uint8).reshape(height, width, 3)
        color = decode_color(data, name)
        if color.shape[:2] != (height, width):
            raise SceneError(
                f"{name} has {color.shape[1]} x {color.shape[0]} pixels, expected {width} x {height}"
            )
        return color

    def depth(self, index: int) -> UInt16[ndarray, "row column"]:
        """Raw numbers; metres = number / depth_shift."""
        start = int(self.offset[index] + self.n_bytes[index, 0])
        data, name = (
            self._read(index, start, int(self.n_bytes[index, 1])),
            f"{self.path} frame {index} (depth)",
        )
        width, height = self.header.depth_size
        expected = width * height * 2
        if self.header.depth_kind == "occi":
            raise SceneError(f"{name} uses the 'occi' compression, which only its recording software reads")
        if self.header.depth_kind == "zlib":
            refuse_bomb(expected, len(data), name)
            data = _inflate(data, expected, name)
        if len(data) != expected:
            raise SceneError(f"{name} has {len(data)} bytes, expected {width} x {height} x 2")
        return np.frombuffer(data, "<u2").astype(np.uint16).reshape(height, width)

    def _read(self, index: int, start: int, count: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                data = file.read(count)
        except OSError as error:
            raise SceneError(f"cannot read {self.path}: {error.strerror or error}") from error
        if len(data) != count:
            raise SceneError(f"{self.path} is cut off at frame {index}", fix="copy the file again")
        return data


@dataclass(frozen=True)
class SensImage:
    """The colour or depth image of one frame."""

    sens: SensFile
    index: int

    @property
    def name(self) -> str:
        """For error messages."""
        return f"{self.sens.path} frame {self.index}"

    def color(self) -> ColorImage:
        """RGB 0..255."""
        return ColorImage(self.sens.color(self.index))

    def depth(self) -> UInt16[ndarray, "row column"]:
        """Raw numbers of the depth image."""
        return self.sens.depth(self.index)

    def jpeg(self) -> bytes | None:
        """The encoded colour image, when it is a JPEG."""
        return self.sens.color_bytes(self.index) if self.sens.header.color_kind == "jpeg" else None


def open_sens(path: Path) -> SensFile:
    """Read header and index. Raises SceneError for anything that is not a whole recording."""
    try:
        size = path.stat().st_size
        with path.open("rb", buffering=0) as file:
            header = _read_header(file, path, size)
            return _read_index(file, path, size, header)
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error


def _read_header(file: BinaryIO, path: Path, size: int) -> SensHeader:
    version, name_length = struct.unpack("<IQ", _exactly(file, 12, path))
    if version not in (3, 4):
        raise SceneError(f"{path} is a .sens file of version {version}; 3 and 4 are known")
    if name_length > LONGEST_NAME:
        raise SceneError(f"{path} claims a sensor name of {name_length} bytes: the header is damaged")
    sensor = _exactly(file, name_length, path).decode(errors="replace")
    values = _HEAD.unpack(_exactly(file, _HEAD.size, path))
    matrices = np.array(values[:64], np.float64).reshape(4, 4, 4)
    color_kind, depth_kind, *sizes = values[64:70]
    depth_shift, n_frames = values[70:]
    room = (size - file.tell()) // _FRAME_HEAD.itemsize
    if n_frames > room:
        raise SceneError(
            f"{path} claims {n_frames} frames but has room for {room}", fix="copy the file again"
        )
    if color_kind not in COLOR_KINDS or depth_kind not in DEPTH_KINDS:
        raise SceneError(f"{path} uses unknown compressions {color_kind} (colour) and {depth_kind} (depth)")
    if not all(0 < side <= LARGEST_SIDE for side in sizes):
        raise SceneError(
            f"{path} claims images of {sizes[0]} x {sizes[1]} and {sizes[2]} x {sizes[3]} pixels"
        )
    if not (np.isfinite(depth_shift) and depth_shift > 0):
        raise SceneError(f"{path} has a depth shift of {depth_shift}")
    return SensHeader(
        version, sensor, matrices[0], matrices[1], matrices[2], matrices[3],
        COLOR_KINDS[color_kind], DEPTH_KINDS[depth_kind],
        (sizes[0], sizes[1]), (sizes[2], sizes[3]), float(depth_shift), int(n_frames),
    )  # fmt: skip


def _read_index(file: BinaryIO, path: Path, size: int, header: SensHeader) -> SensFile:
    """Hops from frame to frame; the numbers before each image are taken apart together at the end."""
    heads: list[bytes] = []
    offset = np.empty(header.n_frames, np.int64)
    position = file.tell()
    for index in range(header.n_frames):
        file.seek(position)
        head = _exactly(file, _FRAME_HEAD.itemsize, path, index)
        start = position + len(head)
        color_bytes, depth_bytes = _LENGTHS.unpack_from(head, _FRAME_HEAD.itemsize - _LENGTHS.size)
        if color_bytes + depth_bytes > size - start:
            raise SceneError(
                f"{path} is cut off at frame {index} of {header.n_frames}", fix="copy the file again"
            )
        heads.append(head)
        offset[index] = start
        position = start + color_bytes + depth_bytes
    table = np.frombuffer(b"".join(heads), _FRAME_HEAD)
    poses = table["pose"].astype(np.float64).reshape(-1, 4, 4)
    timestamps = (table["timestamps"] & np.uint64(2**63 - 1)).astype(np.int64)
    return SensFile(path, header, poses, timestamps, offset, table["n_bytes"].astype(np.int64))


def _exactly(file: BinaryIO, count: int, path: Path, frame: int | None = None) -> bytes:
    data = file.read(count)
    if len(data) != count:
        where = "in its header" if frame is None else f"at frame {frame}"
        raise SceneError(f"{path} is cut off {where}", fix="copy the file again")
    return data


def _inflate(data: bytes, expected: int, name: str) -> bytes:
    """Never more than was promised, however much the stream would give."""
    try:
        return zlib.decompressobj().decompress(data, expected + 1)
    except zlib.error as error:
        raise SceneError(f"{name} is damaged ({error})", fix="copy the file again") from error
