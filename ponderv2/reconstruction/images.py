"""Rendered views as arrays and picture files. A file is written whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from ponderv2.errors import ResourceError
from ponderv2.geometry.cameras import Camera
from ponderv2.geometry.rays import rays_through_pixels
from ponderv2.io.files import replacement, write_bytes
from ponderv2.io.images import encode_png16
from ponderv2.reconstruction.scene_field import RenderedRays, SceneField

RAYS_AT_A_TIME = 65536
"""Rays that are built together: memory does not grow with the picture."""
SEEN = 0.5
"""Opacity from which a pixel has a depth, a normal and a class."""


@dataclass(frozen=True)
class RenderedView:
    """One picture of each kind."""

    color: Float[Tensor, "row column 3"]
    """0..1."""
    depth: Float[Tensor, "row column"]
    """Metres along the optical axis; 0 where nothing is seen."""
    normal: Float[Tensor, "row column 3"]
    """Unit length, in the frame of the scene; zero where nothing is seen."""
    semantic: Int[Tensor, "row column"] | None
    """Class, -1 where nothing is seen; None where the model has no classes."""


@torch.no_grad()
def render_view(field: SceneField, camera: Camera, chunk: int, frame_id: str | None = None) -> RenderedView:
    """All pixels of a camera in scene units, at the exposure of a frame where the field knows it."""
    n_pixels = camera.width * camera.height
    parts: list[tuple[RenderedRays, Tensor]] = []
    for start in range(0, n_pixels, RAYS_AT_A_TIME):
        index = torch.arange(start, min(start + RAYS_AT_A_TIME, n_pixels))
        pixel = torch.stack([index % camera.width, index // camera.width], dim=-1).float()
        first = torch.zeros(len(index), dtype=torch.int64)
        made = rays_through_pixels(
            pixel, first, camera.intrinsics[None], camera.world_to_camera[None], first[:1]
        )
        seen = field.render_rays(made.rays.origins, made.rays.directions, chunk)
        parts.append((_only_seen(seen), seen.distance / made.distance_per_depth))
    size = (camera.height, camera.width)
    gain = field.frame_gain(frame_id)
    opaque = torch.cat([part.opacity for part, _ in parts]) >= SEEN
    scores = [part.semantic.argmax(dim=-1) for part, _ in parts if part.semantic is not None]
    semantic = torch.where(opaque, torch.cat(scores), -1).reshape(size) if scores else None
    return RenderedView(
        color=(torch.cat([part.color for part, _ in parts]) * gain).clamp(0.0, 1.0).reshape(*size, 3),
        depth=torch.where(opaque, torch.cat([depth for _, depth in parts]), 0.0).reshape(size),
        normal=torch.cat([part.normal for part, _ in parts]).reshape(*size, 3),
        semantic=semantic,
    )


def _only_seen(seen: RenderedRays) -> RenderedRays:
    normal = seen.normal * (seen.opacity >= SEEN)[:, None]
    return RenderedRays(seen.color, seen.distance, normal, seen.opacity, seen.semantic)


def color_bytes(values: Float[Tensor, "row column 3"]) -> UInt8[ndarray, "row column 3"]:
    """0..1 -> 0..255."""
    return (values.clamp(0.0, 1.0) * 255).round().to(torch.uint8).numpy()


def normal_bytes(normal: Float[Tensor, "row column 3"]) -> UInt8[ndarray, "row column 3"]:
    """-1..1 -> 0..255; black where there is none."""
    known = normal.norm(dim=-1, keepdim=True) > 0
    return color_bytes(torch.where(known, normal * 0.5 + 0.5, 0.0))


def class_bytes(
    semantic: Int[Tensor, "row column"], colors: Sequence[tuple[int, int, int]]
) -> UInt8[ndarray, "row column 3"]:
    """The colours of the classes; black where there is none. Classes without a colour get a grey."""
    n_classes = max(int(semantic.max()) + 1, len(colors))
    table = np.zeros((n_classes + 1, 3), dtype=np.uint8)
    for index in range(n_classes):
        table[index + 1] = colors[index] if index < len(colors) else 64 + (index * 37) % 160
    return table[semantic.numpy() + 1]


def write_rgb(path: Path, picture: UInt8[ndarray, "row column 3"]) -> None:
    """An 8-bit PNG. Raises OutputError."""
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(picture).save(target, format="PNG")
    write_bytes(path, target.getvalue())


def write_depth(path: Path, depth: Float[Tensor, "row column"]) -> None:
    """A 16-bit PNG in millimetres; 0 = nothing, 65535 = that far or farther. Raises OutputError."""
    millimetres = (depth.double() * 1000.0).round().clamp(0, 65535).numpy().astype(np.uint16)
    write_bytes(path, encode_png16(millimetres))


def check_video(kind: Literal["none", "mp4", "gif"]) -> None:
    """Raises ResourceError if the video encoder is missing, before any image is rendered."""
    if kind != "mp4":
        return
    try:
        import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise ResourceError(
            "mp4 videos need the package imageio-ffmpeg", fix='pip install "ponder[video]", or --video gif'
        ) from error


def write_video(
    path: Path, pictures: Iterable[UInt8[ndarray, "row column 3"]], frames_per_second: int
) -> None:
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
        for picture in pictures:
            video.append_data(picture)
