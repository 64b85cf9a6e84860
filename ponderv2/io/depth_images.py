"""Depth images in all kinds of files, as the numbers that stand in them; 0 = no measurement.

Read are PNG, TIFF and PGM of 16 bits and more, floats in TIFF, PFM, NPY, NPZ and (with the package OpenEXR)
EXR, and floats of 4 bytes that are stored as RGBA. What the numbers mean is decided for a whole recording, in
`datasets/rgbd/depth_units.py`. What cannot be depth (8 bits a pixel, false colours) is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32, Num, Shaped, UInt8
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.io.arrays import map_array, read_arrays
from ponderv2.io.images import LARGEST_SIDE, decode_pgm, load_pixels, open_image, pgm_maximum, read_bytes

DEPTH_ENDINGS = (".png", ".pgm", ".tif", ".tiff", ".npy", ".npz", ".exr", ".pfm")
"""Of depth images that can be read, lower case."""
FEWEST_STEPS = 16
"""Different numbers that an image must have before anything is concluded from all of them."""
EXPORT_16_BIT = "export depth as 16-bit PNG in millimetres, or as floats (.npy, TIFF, EXR) in metres"
_EXR_CHANNELS = ("Z", "depth", "Depth", "depth.Z", "Depth.V", "depth.V", "Y", "V", "R")
"""Names under which programs store depth, the most certain first."""


def read_depth(path: Path) -> Num[ndarray, "row column"]:
    """The numbers of a depth image: uint16 where they fit, else int64 or float32.

    Numbers that are not finite become 0; negative ones stay. Raises SceneError naming the file: damaged,
    or of a kind that cannot hold depth.
    """
    ending = path.suffix.lower()
    try:
        if ending == ".npy":
            return _plain(np.array(map_array(path)), str(path))
        if ending == ".npz":
            return _plain(_only_array(read_arrays(path), str(path)), str(path))
    except (OSError, ValueError) as error:
        raise SceneError(
            f"{path} is not a readable array ({error})", fix="copy the file again or delete it"
        ) from error
    if ending == ".exr":
        return _plain(_read_exr(path), str(path))
    return decode_depth(read_bytes(path), str(path))


def decode_depth(data: bytes, name: str) -> Num[ndarray, "row column"]:
    """The numbers of an encoded depth image, as `read_depth` returns them."""
    if data[:2] in (b"P2", b"P5"):
        maximum = pgm_maximum(data)
        if maximum is not None and maximum < 256:
            raise _eight_bits(name, "a PGM of one byte a pixel")
        return _plain(decode_pgm(data, name), name)
    with open_image(data, name) as image:
        mode = image.mode
        values = np.asarray(load_pixels(image, name))
        sixteen_bits = image.format == "PNG" and len(data) > 24 and data[24] == 16
    if mode == "RGBA":
        return _packed_floats(values, name)
    if mode in ("1", "L", "LA", "P", "PA"):
        raise _eight_bits(
            name, {"1": "one bit a pixel", "P": "a palette", "PA": "a palette"}.get(mode, "grey")
        )
    if values.ndim != 2:
        kind = "three channels of 16 bits" if sixteen_bits else f"{mode} pixels"
        raise SceneError(
            f"{name} holds {kind}: false colours or packed numbers are no depth", fix=EXPORT_16_BIT
        )
    return _plain(values, name)


def _eight_bits(name: str, kind: str) -> SceneError:
    return SceneError(
        f"{name} holds 8 bits a pixel ({kind}), which cannot be depth: 256 steps are centimetres each",
        fix=EXPORT_16_BIT,
    )


def _plain(values: Shaped[ndarray, "*any"], name: str) -> Num[ndarray, "row column"]:
    """One channel of numbers, in the smallest of the three types that holds them."""
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[..., 0] if values.shape[2] == 1 else values[0]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise SceneError(
            f"{name} holds {values.dtype} of shape {values.shape}, expected rows and columns of numbers",
            fix=EXPORT_16_BIT,
        )
    if max(values.shape) > LARGEST_SIDE:
        raise SceneError(f"{name} claims to have {values.shape[1]} x {values.shape[0]} pixels")
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if values.dtype.itemsize == 1:
        raise _eight_bits(name, f"an array of {values.dtype}")
    if values.dtype.kind == "i" and values.dtype.itemsize == 2:  # uint16 that a writer called `short`
        values = values.astype(np.int16).view(np.uint16) if _wrapped(values) else values
    if values.min(initial=0) >= 0 and values.max(initial=0) <= 65535:
        small = values.astype(np.uint16)
        _refuse_stretched(small, name)
        return small
    return values.astype(np.int64)


def _wrapped(values: Shaped[ndarray, "row column"]) -> bool:
    """Whether many 16-bit numbers are negative: depths beyond 32767. Single ones mark no measurement."""
    return len(np.unique(values[values < 0])) >= FEWEST_STEPS and bool((values > 0).any())


def _refuse_stretched(values: Shaped[ndarray, "row column"], name: str) -> None:
    """8-bit depth that was multiplied to fill 16 bits."""
    for factor in (257, 256):
        if (values % factor).any():
            continue
        if len(np.unique(values)) >= FEWEST_STEPS:
            raise _eight_bits(name, f"in 16, all multiples of {factor}")


def _packed_floats(values: UInt8[ndarray, "row column 4"], name: str) -> Float32[ndarray, "row column"]:
    """The four bytes of a pixel as a float of metres, as NeRFCapture stores them; other RGBA is refused."""
    floats = np.ascontiguousarray(values).view("<f4")[..., 0]
    known = floats[np.isfinite(floats) & (floats != 0)]
    usual = (known > 1e-3) & (known < 1e3)
    if known.size == 0 or np.isnan(floats).mean() > 0.5 or usual.mean() < 0.99:
        raise SceneError(
            f"{name} holds RGBA pixels: false colours or packed numbers are no depth", fix=EXPORT_16_BIT
        )
    return np.where(np.isfinite(floats), floats, 0).astype(np.float32)


def _only_array(arrays: dict[str, ndarray], name: str) -> ndarray:
    """Of an archive with one array, or with one that is called depth."""
    named = [one for one in arrays if one.lower() in ("depth", "depths", "z")]
    chosen = named or list(arrays)
    if len(chosen) != 1:
        raise SceneError(
            f"{name} holds the arrays {', '.join(arrays) or '(none)'}, expected one, or one called depth"
        )
    return arrays[chosen[0]]


def _read_exr(path: Path) -> ndarray:
    try:
        import OpenEXR  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise SceneError(
            f"{path} is an OpenEXR file, which needs the package OpenEXR",
            fix='pip install "ponder[exr]", or ' + EXPORT_16_BIT,
        ) from error
    if not path.is_file():
        raise SceneError(f"cannot read {path}: no such file")
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: np.array(one.pixels) for name, one in file.channels().items()}
    except Exception as error:
        raise SceneError(
            f"{path} is not a readable OpenEXR file ({error})", fix="copy the file again or delete it"
        ) from error
    name = next((one for one in _EXR_CHANNELS if one in channels), None)
    if name is None and len(channels) == 1:
        name = next(iter(channels))
    if name is None:
        raise SceneError(f"{path} has the channels {', '.join(channels)}, none of which is called depth or Z")
    return channels[name]
