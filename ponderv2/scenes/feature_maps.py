"""Feature maps of images: one file per image, and the value at a pixel.

A map covers the whole image. Of W x H pixels, whose centres are at integers, and w x h cells, the centre of
cell (column i, row j) is the pixel ((i + 0.5) W / w - 0.5, (j + 0.5) H / h - 0.5).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.io.files import digest_of_file, write_bytes

FORMAT = "1"
ENDING = ".safetensors"
COMPUTE = "ponder prepare rgbd --check --out DATA --image-features MODEL"


@dataclass(frozen=True)
class FeatureFile:
    """The features of one image on disk. A value that can be pickled."""

    path: Path
    space: str
    """Identity of the features that are expected: digest of network, settings and PCA."""

    def read(self, image: Path) -> Float[Tensor, "channel row column"]:
        """The features of this image.

        Raises:
            SceneError: the file is missing or damaged, of another model or settings, or of another image.
        """
        values, notes = _load(self.path)
        if notes.get("space") != self.space:
            raise SceneError(
                f"{self.path} holds features of another model or other settings than the run's", fix=COMPUTE
            )
        if notes.get("image") != image_digest(image):
            raise SceneError(
                f"the features {self.path} are of another image, or {image} has changed since its features "
                "were computed",
                fix=COMPUTE,
            )
        return values.float()

    def write(self, values: Float[Tensor, "channel row column"], image: str) -> None:
        """Stores features in half precision, whole or not at all. Raises OutputError.

        Args:
            values: Of the whole image.
            image: Its digest, by `image_digest`.
        """
        from safetensors.torch import save

        notes = {"format": FORMAT, "space": self.space, "image": image}
        # One text, as the order of several is not the same in every process.
        about = {"ponder": json.dumps(notes)}
        write_bytes(self.path, save({"features": values.detach().cpu().half().contiguous()}, metadata=about))

    def is_usable(self, image: str | None = None) -> bool:
        """Whether `read` takes the file: there, whole, of this format and space.

        Args:
            image: Digest that its image must have; None: the image is not compared.
        """
        try:
            notes = _load(self.path)[1]
        except SceneError:
            return False
        return notes.get("space") == self.space and image in (None, notes.get("image"))


def image_digest(path: Path) -> str:
    """Of the bytes of an image file. Raises SceneError where it cannot be read."""
    try:
        return digest_of_file(path)
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error


def _load(path: Path) -> tuple[Float[Tensor, "channel row column"], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            notes = json.loads((file.metadata() or {})["ponder"])
            values = file.get_tensor("features")
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise SceneError(f"{path} holds no image features ({error})", fix=COMPUTE) from error
    if not isinstance(notes, dict) or notes.get("format") != FORMAT:
        raise SceneError(f"{path} holds image features of another version", fix=COMPUTE)
    if values.dim() != 3 or not values.is_floating_point() or not values.numel():
        raise SceneError(f"{path} holds {values.dtype} {tuple(values.shape)}, no features", fix=COMPUTE)
    if not bool(torch.isfinite(values).all()):
        raise SceneError(f"{path} is damaged: it holds numbers that are not finite", fix=COMPUTE)
    return values, notes


def sample_feature_map(
    values: Float[Tensor, "channel row column"],
    pixel: Float[Tensor, "pixel 2"],
    image_size: tuple[int, int],
) -> Float[Tensor, "pixel channel"]:
    """Bilinear between the centres of the four cells around a pixel; constant beyond the outermost centres.

    Args:
        values: The map, in any precision.
        pixel: Column and row in the image, whose pixel centres are at integers.
        image_size: Width and height of the image in pixels.

    Returns:
        In single precision; of a constant map that constant.
    """
    n_rows, n_columns = values.shape[1:]
    size = pixel.new_tensor([n_columns, n_rows])
    cell = (pixel + 0.5) * size / pixel.new_tensor(image_size) - 0.5
    cell = torch.minimum(cell.clamp(min=0.0), size - 1.0)
    low = cell.floor()
    high = torch.minimum(low + 1.0, size - 1.0)
    right, down = (cell - low).unbind(dim=1)
    (left_column, top), (right_column, bottom) = (one.long().unbind(dim=1) for one in (low, high))
    flat = values.flatten(1)

    def at(row: Tensor, column: Tensor, weight: Tensor) -> Tensor:
        return flat[:, row * n_columns + column].float() * weight

    upper = at(top, left_column, 1.0 - right) + at(top, right_column, right)
    lower = at(bottom, left_column, 1.0 - right) + at(bottom, right_column, right)
    return (upper * (1.0 - down) + lower * down).T
