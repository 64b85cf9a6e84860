"""Image files in and out, as arrays; a damaged file is named in a SceneError. Depth: `depth_images.py`."""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8, UInt16
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.io.colors import read_colors
from ponderv2.io.suggestions import actual_file_type

MOST_UNPACKED = 32 * 2**20
"""Bytes that a file of any size may be unpacked to."""
LARGEST_RATIO = 100
"""Beyond that, bytes that may be made of each byte of a file. Images and depth have 2 to 20."""
HALF_OPAQUE = 128
"""Alpha from which a pixel counts. Less of it, and most of what the pixel shows is not there."""
COLOR_ENDINGS = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
"""Of colour images that can be read, lower case."""
_ORIENTATION = 0x0112
"""Number of the EXIF tag."""


@dataclass(frozen=True)
class ColorImage:
    """A decoded colour image of any kind of file."""

    rgb: UInt8[ndarray, "row column 3"]
    """0..255, in the order of the stored pixels: an EXIF orientation is not applied."""
    visible: Bool[ndarray, "row column"] | None = None
    """False where alpha hides a pixel; None = every pixel counts."""
    notes: tuple[str, ...] = ()
    """How the pixels were understood, where they are not plain 8-bit RGB. One phrase each."""
    orientation: int = 1
    """EXIF: 1 = as stored, 3 = half a turn, 5 to 8 = rows and columns are exchanged."""
    is_plain_jpeg: bool = False
    """Whether another program reads the same pixels from the file: a JPEG of RGB or grey, not turned."""


def read_color(path: Path) -> UInt8[ndarray, "row column 3"]:
    """RGB 0..255."""
    return decode_color(read_bytes(path), str(path))


def decode_color(
    data: bytes, name: str, at_least: tuple[int, int] | None = None
) -> UInt8[ndarray, "row column 3"]:
    """RGB 0..255 of an encoded image.

    `at_least`, width and height, allows a JPEG to be decoded at a half, a quarter or an eighth of its size as
    long as it stays that large, which takes a fraction of the time.
    """
    with open_image(data, name) as image:
        if at_least is not None:
            image.draft("RGB", at_least)
        return np.asarray(
            _pixels(image.convert, name, "RGB") if image.mode != "RGB" else load_pixels(image, name)
        )


def read_image(path: Path) -> ColorImage:
    """A colour image of any kind: 8 and 16 bits, grey, palettes, alpha, CMYK, floats."""
    return decode_image(read_bytes(path), str(path))


def decode_image(data: bytes, name: str, at_least: tuple[int, int] | None = None) -> ColorImage:
    """Like `read_image`, of an encoded image; `at_least` as in `decode_color`."""
    with open_image(data, name) as image:
        orientation = _orientation(image)
        plain = image.format == "JPEG" and image.mode in ("RGB", "L") and orientation == 1
        if at_least is not None and image.format == "JPEG":
            image.draft("RGB", at_least)
        if image.mode == "I" or image.mode.startswith("I;16") or image.mode == "F":
            return _grey_image(np.asarray(load_pixels(image, name)), name, orientation)
        notes = _notes_of_mode(image, data)
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            rgba = np.asarray(_pixels(image.convert, name, "RGBA"))
            visible = rgba[..., 3] >= HALF_OPAQUE
            rgb = np.ascontiguousarray(rgba[..., :3])
            if visible.all():
                return ColorImage(rgb, None, notes, orientation)
            return ColorImage(rgb, visible, (*notes, "alpha hides pixels"), orientation)
        pixels = load_pixels(image, name) if image.mode == "RGB" else _pixels(image.convert, name, "RGB")
        return ColorImage(np.asarray(pixels), None, notes, orientation, plain)


def read_visible(path: Path) -> Bool[ndarray, "row column"]:
    """A mask: False where it is black. Where a mask has an alpha channel that hides pixels, that one decides.

    Any number but 0 is visible, so that masks of 0 and 1 are read like those of 0 and 255; of a JPEG, whose
    numbers are not exact, only the brighter half is.
    """
    with open_image(read_bytes(path), str(path)) as image:
        if image.mode == "I" or image.mode.startswith("I;16") or image.mode == "F":
            return np.asarray(load_pixels(image, str(path))) > 0
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            alpha = np.asarray(_pixels(image.convert, str(path), "RGBA"))[..., 3]
            if (alpha < 255).any():
                return alpha >= HALF_OPAQUE
        lossy = image.format == "JPEG"
        grey = np.asarray(_pixels(image.convert, str(path), "RGB")).max(axis=-1)
    return grey >= max(int(grey.max(initial=0)) / 2, 1) if lossy else grey > 0


def transposed(image: ColorImage) -> ColorImage:
    """The image as its EXIF orientation says that it should be shown."""
    turned = {3: 2, 6: 3, 8: 1}

    def turn(values: Shaped[ndarray, "row column *channel"]) -> Shaped[ndarray, "height width *channel"]:
        if image.orientation in (2, 4):
            return values[:, ::-1] if image.orientation == 2 else values[::-1]
        if image.orientation in (5, 7):
            values = np.swapaxes(values, 0, 1)
            return values if image.orientation == 5 else values[::-1, ::-1]
        return np.rot90(values, turned.get(image.orientation, 0))

    visible = None if image.visible is None else np.ascontiguousarray(turn(image.visible))
    return ColorImage(np.ascontiguousarray(turn(image.rgb)), visible, image.notes)


def _orientation(image) -> int:
    """Of the EXIF data; 1 where there are none. Pillow turns TIFF files itself."""
    if image.format == "TIFF":
        return 1
    try:
        found = int(image.getexif().get(_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError, struct.error, KeyError, IndexError):
        return 1
    return found if 1 <= found <= 8 else 1


def _notes_of_mode(image, data: bytes) -> tuple[str, ...]:
    if image.mode in ("L", "LA", "La", "1"):
        return ("grey",)
    if image.format == "PNG" and len(data) > 24 and data[24] == 16:
        return ("16 bits a channel, of which the upper 8 are used",)
    if image.mode in ("P", "PA", "CMYK"):
        return ({"P": "palette", "PA": "palette"}.get(image.mode, "CMYK"),)
    return ()


def _grey_image(values: Shaped[ndarray, "row column"], name: str, orientation: int) -> ColorImage:
    """One channel of more than 8 bits."""
    wide = values.dtype.kind in "iu" and values.max(initial=0) > 255
    found = read_colors(values[..., None], name, "0..65535" if wide else None)
    return ColorImage(found.as_bytes(), None, (f"grey, numbers of {found.range}", *found.notes), orientation)


def read_integers(path: Path) -> UInt16[ndarray, "row column"]:
    """An 8- or 16-bit image of one channel: depth or class numbers."""
    return decode_integers(read_bytes(path), str(path))


def decode_integers(data: bytes, name: str, indexed: bool = False) -> UInt16[ndarray, "row column"]:
    """Whole numbers of an encoded image of one channel; `indexed`: places in a palette are numbers."""
    if data[:2] in (b"P2", b"P5"):
        values = decode_pgm(data, name)
        mode = "grey"
    else:
        with open_image(data, name) as image:
            mode = image.mode
            values = np.asarray(load_pixels(image, name))
    if (mode == "P" and not indexed) or values.ndim != 2 or values.dtype.kind not in "iub":
        raise SceneError(f"{name} holds {mode} pixels, expected one channel of 8 or 16 bits")
    if values.dtype.itemsize > 2 and (values.min(initial=0) < 0 or values.max(initial=0) > 65535):
        raise SceneError(f"{name} holds numbers outside 0..65535")
    return values.astype(np.uint16)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height from the header alone."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise _damaged_image(str(path), error) from error


def encoded_image_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height of an encoded image, from its header alone."""
    with open_image(data, name) as image:
        return image.size


def encode_jpeg(color: UInt8[ndarray, "row column 3"], quality: int = 95) -> bytes:
    """A JPEG file without chroma subsampling."""
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(color).save(target, format="JPEG", quality=quality, subsampling=0)
    return target.getvalue()


def encode_mask(visible: Bool[ndarray, "row column"]) -> bytes:
    """An 8-bit PNG file: 255 where a pixel counts, 0 where it is hidden."""
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(visible.astype(np.uint8) * np.uint8(255)).save(target, format="PNG", compress_level=1)
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


def read_bytes(path: Path) -> bytes:
    """The file's contents. Raises SceneError."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a list of images names one with a zero byte
        raise SceneError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def open_image(data: bytes, name: str):
    """A Pillow image that is not decoded yet. Raises SceneError for no image, or one that fills memory."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        what = actual_file_type(data)
        if what is not None:
            raise SceneError(f"{name} is no image: it is {what[0]}", fix=what[1]) from error
        raise _damaged_image(name, error) from error
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


def load_pixels(image, name: str):
    """Decodes a Pillow image. Raises SceneError naming the file."""
    _pixels(image.load, name)
    return image


def _pixels(decode, name: str, *arguments: str):
    """Runs one of PIL's decoding steps; what a damaged file makes it raise becomes a SceneError."""
    try:
        return decode(*arguments)
    except (OSError, SyntaxError, ValueError, IndexError, struct.error, zlib.error, EOFError) as error:
        raise _damaged_image(name, error) from error


def _damaged_image(name: str, error: Exception) -> SceneError:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # its text is an address in memory
        error = ValueError("it is of no format that is known, or of one that is not read")
    return SceneError(f"{name} is not a readable image ({error})", fix="copy the file again or delete it")


LARGEST_SIDE = 32768
"""Pixels. A larger image is a damaged header."""
_HEADER = re.compile(rb"P([25])" + 3 * rb"(?:\s*#[^\n\r]*[\n\r]|\s)+(\d{1,9})" + rb"(?:\s|(?=#))")


def pgm_maximum(data: bytes) -> int | None:
    """The maximum that the header names; None for what is no PGM file."""
    header = _HEADER.match(data)
    return None if header is None else int(header[4])


def decode_pgm(data: bytes, name: str) -> UInt16[ndarray, "row column"]:
    """The numbers of a PGM file, whatever the maximum in its header. Raises SceneError."""
    header = _HEADER.match(data)
    if header is None:
        raise _damaged(name, "its header is damaged")
    kind, width, height, maximum = (int(one) for one in header.groups())
    if not (1 <= maximum <= 65535 and min(width, height) >= 1 and max(width, height) <= LARGEST_SIDE):
        raise _damaged(name, f"its header has {width} x {height} pixels and the maximum {maximum}")
    body, count = data[header.end() :], width * height
    values = _plain(body, count, name) if kind == 2 else _binary(body, count, maximum)
    if len(values) < count:
        raise _damaged(name, f"it has {len(values)} pixels of {width} x {height}")
    return values[:count].astype(np.uint16).reshape(height, width)


def _binary(body: bytes, count: int, maximum: int) -> ndarray:
    """Two bytes a pixel, the larger one first, from a maximum of 256 on."""
    kind = np.dtype(">u2" if maximum > 255 else "u1")
    return np.frombuffer(body, kind, min(count, len(body) // kind.itemsize))


def _plain(body: bytes, count: int, name: str) -> Int64[ndarray, " pixel"]:
    try:
        words = re.sub(rb"#[^\n\r]*", b"", body).split()[:count]
        values = np.array([int(word) for word in words], np.int64)
    except (ValueError, OverflowError) as error:
        raise _damaged(name, str(error)) from error
    if values.size and not (values.min() >= 0 and values.max() <= 65535):
        raise _damaged(name, "it holds numbers outside of 0..65535")
    return values


def _damaged(name: str, reason: str) -> SceneError:
    return SceneError(f"{name} is not a readable image ({reason})", fix="copy the file again or delete it")


@runtime_checkable
class FrameImages(Protocol):
    """Reads images from files; `size` is width and height of the camera. A value that can be pickled."""

    def color(self, path: Path, size: tuple[int, int]) -> UInt8[ndarray, "row column 3"]:
        """RGB 0..255."""
        ...

    def depth(self, path: Path, size: tuple[int, int]) -> Float32[ndarray, "row column"]:
        """In units of the file; 0 = no measurement."""
        ...

    def semantic(self, path: Path, size: tuple[int, int]) -> Int64[ndarray, "row column"]:
        """Class per pixel, -1 = unlabelled."""
        ...


class StoredImages:
    """The store's own: JPEG, 16-bit depth, class + 1; all of one size."""

    def color(self, path: Path, size: tuple[int, int]) -> UInt8[ndarray, "row column 3"]:
        """RGB 0..255."""
        return read_color(path)

    def depth(self, path: Path, size: tuple[int, int]) -> Float32[ndarray, "row column"]:
        """In units of the file; 0 = no measurement."""
        return read_integers(path).astype(np.float32)

    def semantic(self, path: Path, size: tuple[int, int]) -> Int64[ndarray, "row column"]:
        """Class per pixel, -1 = unlabelled."""
        return read_integers(path).astype(np.int64) - 1


STORED_IMAGES = StoredImages()
