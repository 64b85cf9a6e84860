"""Rendered views as 8-bit images, image files and videos. A file is written whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from ponderv2.errors import ResourceError
from ponderv2.io.files import replacement, write_bytes
from ponderv2.io.images import encode_png16

RgbImage = UInt8[ndarray, "row column 3"]


def color_bytes(values: Float[Tensor, "row column 3"]) -> RgbImage:
    """0..1 -> 0..255."""
    return (values.clamp(0.0, 1.0) * 255).round().to(torch.uint8).numpy()


def normal_bytes(normal: Float[Tensor, "row column 3"]) -> RgbImage:
    """-1..1 -> 0..255; black where there is none."""
    known = normal.norm(dim=-1, keepdim=True) > 0
    return color_bytes(torch.where(known, normal * 0.5 + 0.5, 0.0))


def class_bytes(semantic: Int[Tensor, "row column"], colors: Sequence[tuple[int, int, int]]) -> RgbImage:
    """The colours of the classes; black where there is none. Classes without a colour get a grey."""
    n_classes = max(int(semantic.max()) + 1, len(colors))
    table = np.zeros((n_classes + 1, 3), dtype=np.uint8)
    for index in range(n_classes):
        table[index + 1] = colors[index] if index < len(colors) else 64 + (index * 37) % 160
    return table[semantic.numpy() + 1]


def write_rgb(path: Path, image: RgbImage) -> Path:
    """Writes an 8-bit PNG, or a JPEG where the name ends so, and returns its path. Raises OutputError."""
    from PIL import Image

    target = io.BytesIO()
    form = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    Image.fromarray(image).save(target, format=form, quality=90)
    write_bytes(path, target.getvalue())
    return path


def write_depth(path: Path, depth: Float[Tensor, "row column"]) -> None:
    """A 16-bit PNG in millimetres; 0 = nothing, 65535 = that far or farther. Raises OutputError."""
    millimetres = (depth.double() * 1000.0).round().clamp(0, 65535).numpy().astype(np.uint16)
    write_bytes(path, encode_png16(millimetres))


def check_video(kind: Literal["none", "mp4", "gif"]) -> None:
    """Raises ResourceError if the video encoder is missing, before images are rendered."""
    if kind != "mp4":
        return
    try:
        import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise ResourceError(
            "mp4 videos need the package imageio-ffmpeg", fix='pip install "ponder[video]", or --video gif'
        ) from error


def write_video(path: Path, images: Iterable[RgbImage], frames_per_second: int) -> None:
    """A video; the ending of `path` (.mp4, .gif) chooses the format. Raises OutputError."""
    import imageio.v2 as imageio

    options: dict[str, Any] = {"duration": 1000 / frames_per_second, "loop": 0}
    if path.suffix == ".mp4":
        options = {"fps": frames_per_second, "macro_block_size": 2}
    video: Any
    with (
        replacement(path, ending=path.suffix) as temporary,
        imageio.get_writer(temporary, **options) as video,
    ):
        for image in images:
            video.append_data(image)
