"""Picture files in and out, as arrays; a damaged file is named in a SceneError."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from numpy import ndarray

from ponderv2.errors import SceneError

LARGEST_SIDE = 32768
"""Pixels. A larger picture is a damaged header."""


def read_color(path: Path) -> UInt8[ndarray, "row column 3"]:
    """RGB 0..255."""
    return decode_color(_bytes(path), str(path))


def decode_color(data: bytes, name: str) -> UInt8[ndarray, "row column 3"]:
    """RGB 0..255 of an encoded picture."""

    with _open(data, name) as image:
        return np.asarray(_pixels(image.convert, name, "RGB") if image.mode != "RGB" else _load(image, name))


def read_integers(path: Path) -> UInt16[ndarray, "row column"]:
    """An 8- or 16-bit picture of one channel: depth or class numbers."""
    return decode_integers(_bytes(path), str(path))


def decode_integers(data: bytes, name: str) -> UInt16[ndarray, "row column"]:
    """Whole numbers of an encoded picture of one channel."""
    with _open(data, name) as image:
        mode = image.mode
        values = np.asarray(_load(image, name))
    if mode == "P" or values.ndim != 2 or values.dtype.kind not in "iub":
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


def encode_jpeg(color: UInt8[ndarray, "row column 3"], quality: int = 95) -> bytes:
    """A JPEG file without chroma subsampling."""
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(color).save(target, format="JPEG", quality=quality, subsampling=0)
    return target.getvalue()


def encode_png16(values: UInt16[ndarray, "row column"]) -> bytes:
    """A 16-bit PNG file; fast compression, since depth noise does not compress well anyway."""
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(values.astype(np.uint16)).save(target, format="PNG", compress_level=1)
    return target.getvalue()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error


def _open(data: bytes, name: str):
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _damaged(name, error) from error
    if max(image.size) > LARGEST_SIDE:
        raise SceneError(f"{name} claims to have {image.size[0]} x {image.size[1]} pixels")
    return image


def _load(image, name: str):
    _pixels(image.load, name)
    return image


def _pixels(decode, name: str, *arguments: str):
    """Runs one of PIL's decoding steps; what a damaged file makes it raise becomes a SceneError."""
    import struct
    import zlib

    try:
        return decode(*arguments)
    except (OSError, SyntaxError, ValueError, IndexError, struct.error, zlib.error, EOFError) as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> SceneError:
    return SceneError(f"{name} is not a readable picture ({error})", fix="copy the file again or delete it")
