"""Picture files in and out, as arrays; a damaged file is named in a SceneError."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from numpy import ndarray

from ponderv2.errors import SceneError

LARGEST_SIDE = 32768
"""Pixels. A larger picture is a damaged header."""
MOST_UNPACKED = 32 * 2**20
"""Bytes that a file of any size may be unpacked to."""
LARGEST_RATIO = 100
"""Beyond that, bytes that may be made of each byte of a file. Photographs and depth have 2 to 20."""


def read_color(path: Path) -> UInt8[ndarray, "row column 3"]:
    """RGB 0..255."""
    return decode_color(_bytes(path), str(path))


def decode_color(
    data: bytes, name: str, at_least: tuple[int, int] | None = None
) -> UInt8[ndarray, "row column 3"]:
    """RGB 0..255 of an encoded picture.

    `at_least`, width and height, allows a JPEG to be decoded at a half, a quarter or an eighth of its size as
    long as it stays that large, which takes a fraction of the time.
    """
    with _open(data, name) as image:
        if at_least is not None:
            image.draft("RGB", at_least)
        return np.asarray(_pixels(image.convert, name, "RGB") if image.mode != "RGB" else _load(image, name))


def read_integers(path: Path) -> UInt16[ndarray, "row column"]:
    """An 8- or 16-bit picture of one channel: depth or class numbers."""
    return decode_integers(_bytes(path), str(path))


def decode_integers(data: bytes, name: str, indexed: bool = False) -> UInt16[ndarray, "row column"]:
    """Whole numbers of an encoded picture of one channel; `indexed`: places in a palette are numbers."""
    with _open(data, name) as image:
        mode = image.mode
        values = np.asarray(_load(image, name))
    if (mode == "P" and not indexed) or values.ndim != 2 or values.dtype.kind not in "iub":
        raise SceneError(f"{name} holds {mode} pixels, expected one channel of 8 or 16 bits")
    if values.dtype.itemsize > 2 and (values.min(initial=0) < 0 or values.max(initial=0) > 65535):
        raise SceneError(f"{name} holds numbers outside 0..65535")
    return values.astype(np.uint16)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height from the header alone."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise _damaged(str(path), error) from error


def encoded_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height of an encoded picture, from its header alone."""
    with _open(data, name) as image:
        return image.size


def encode_jpeg(color: UInt8[ndarray, "row column 3"], quality: int = 95) -> bytes:
    """A JPEG file without chroma subsampling."""
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(color).save(target, format="JPEG", quality=quality, subsampling=0)
    return target.getvalue()


def encode_png16(values: UInt16[ndarray, "row column"]) -> bytes:
    """A 16-bit PNG file, made for depth: differences of neighbours, and matches of equal bytes only.

    Half the time of searching for longer matches, and noisy depth hardly has any.
    """
    height, width = values.shape
    pixels = np.ascontiguousarray(values, ">u2").view(np.uint8).reshape(height, 2 * width)
    rows = np.empty((height, 1 + 2 * width), np.uint8)
    rows[:, 0] = 1  # every row starts with its filter: minus the pixel to the left
    rows[:, 1:3] = pixels[:, :2]
    np.subtract(pixels[:, 2:], pixels[:, :-2], out=rows[:, 3:])
    packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    body = packer.compress(rows.tobytes()) + packer.flush()
    header = struct.pack(">2I5B", width, height, 16, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_part(kind, data) for kind, data in parts)


def _png_part(kind: bytes, data: bytes) -> bytes:
    """Length, kind, contents and check sum (PNG specification, section 5.3)."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a list of pictures names one with a zero byte
        raise SceneError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _open(data: bytes, name: str):
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _damaged(name, error) from error
    width, height = image.size
    if max(width, height) > LARGEST_SIDE:
        raise SceneError(f"{name} claims to have {width} x {height} pixels")
    refuse_bomb(4 * width * height, len(data), name)
    return image


def refuse_bomb(unpacked: int, packed: int, name: str) -> None:
    """Raises SceneError for a file that would fill memory with next to nothing in it."""
    if unpacked > max(MOST_UNPACKED, LARGEST_RATIO * packed):
        raise SceneError(
            f"{name} would unpack {packed} bytes to {unpacked / 2**20:.0f} MiB and was not opened",
            fix="copy the file again or delete it",
        )


def _load(image, name: str):
    _pixels(image.load, name)
    return image


def _pixels(decode, name: str, *arguments: str):
    """Runs one of PIL's decoding steps; what a damaged file makes it raise becomes a SceneError."""
    try:
        return decode(*arguments)
    except (OSError, SyntaxError, ValueError, IndexError, struct.error, zlib.error, EOFError) as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> SceneError:
    return SceneError(f"{name} is not a readable picture ({error})", fix="copy the file again or delete it")
