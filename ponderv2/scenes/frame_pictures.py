"""How the pictures of a frame are stored: in our own way, or in files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray

from ponderv2.scenes.pictures import read_color, read_integers


@runtime_checkable
class FramePictures(Protocol):
    """Reads pictures from files; `size` is width and height of the camera. A value that can be pickled."""

    def color(self, path: Path, size: tuple[int, int]) -> UInt8[ndarray, "row column 3"]:
        """RGB 0..255."""
        ...

    def depth(self, path: Path, size: tuple[int, int]) -> Float32[ndarray, "row column"]:
        """In units of the file; 0 = no measurement."""
        ...

    def semantic(self, path: Path, size: tuple[int, int]) -> Int64[ndarray, "row column"]:
        """Class per pixel, -1 = unlabelled."""
        ...


class PreparedPictures:
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


PREPARED_PICTURES = PreparedPictures()
