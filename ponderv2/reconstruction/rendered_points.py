"""Coloured points of a scene: what its cameras render, put back into space. Metres, frame of the scene."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ponderv2.errors import OutputError
from ponderv2.geometry.cameras import unproject
from ponderv2.geometry.meshes import SurfacePoints
from ponderv2.geometry.transforms import transform_points
from ponderv2.io.files import write_bytes
from ponderv2.io.ply import encode_ply
from ponderv2.reconstruction.meshes import check_mesh_path
from ponderv2.reconstruction.scene_field import SceneField, render_camera
from ponderv2.scenes.origin import Origin
from ponderv2.scenes.scene import Frame


@dataclass(frozen=True)
class ColoredPoints:
    """Points on surfaces that cameras see."""

    surface: SurfacePoints
    color: Float[Tensor, "point 3"] | None
    """0..1; None: no colours are known."""

    def __len__(self) -> int:
        return len(self.surface.points)

    def take(self, keep: Bool[Tensor, " point"]) -> ColoredPoints:
        """Some of them."""
        color = None if self.color is None else self.color[keep]
        return replace(self, surface=self.surface.part(keep), color=color)


@torch.no_grad()
def rendered_points(
    field: SceneField, frames: Iterable[Frame], stride: int, with_color: bool, chunk: int = 4096
) -> ColoredPoints:
    """A point for every `stride`-th pixel of every `stride`-th row in which a frame renders a surface.

    Depth along the optical axis, colour and normal are rendered. A field that knows no colours leaves them to
    the image of the frame; where a frame has no image either, no point has a colour. `with_color`: whether
    colours are wanted. `chunk`: rays at once.
    """
    parts: list[tuple[Tensor, Tensor, Tensor | None]] = []
    for frame in frames:
        camera = frame.camera
        rendered = render_camera(field, camera, chunk, stride, frame.id).without_background()
        row, column = torch.meshgrid(
            torch.arange(stride // 2, camera.height, stride),
            torch.arange(stride // 2, camera.width, stride),
            indexing="ij",
        )
        hit = rendered.depth > 0
        pixel = torch.stack([column[hit], row[hit]], dim=-1).double()
        in_camera = unproject(pixel, rendered.depth[hit].double(), camera.intrinsics.double())
        points = transform_points(torch.linalg.inv(camera.world_to_camera.double()), in_camera)
        color = None
        if with_color and field.has_color:
            color = rendered.color[hit]
        elif with_color and frame.has_color:
            color = frame.read_color()[row[hit], column[hit]].float() / 255.0
        parts.append((points.float(), rendered.normal[hit], color))
    if not parts:
        return ColoredPoints(SurfacePoints(torch.zeros(0, 3), torch.zeros(0, 3)), None)
    colors = [color for _, _, color in parts if color is not None]
    return ColoredPoints(
        SurfacePoints(torch.cat([one for one, _, _ in parts]), torch.cat([one for _, one, _ in parts])),
        torch.cat(colors) if len(colors) == len(parts) else None,
    )


def check_points_path(path: Path) -> None:
    """Refuses a file that points cannot be written to, before they are rendered. Raises OutputError."""
    if path.suffix.lower() != ".ply":
        raise OutputError(f"cannot write points as '{path.name}'", fix=f"--out {path.with_suffix('.ply')}")
    check_mesh_path(path)


def write_points(path: Path, points: ColoredPoints, origin: Origin = (0.0, 0.0, 0.0)) -> None:
    """Positions, normals and colours as PLY. `origin` is added in double precision. Raises OutputError."""
    check_points_path(path)
    coord, colors = points.surface.points.numpy(), None
    if any(origin):
        coord = coord.astype(np.float64) + np.array(origin)
    if points.color is not None:
        colors = (points.color.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    write_bytes(path, encode_ply(coord, points.surface.normals.numpy(), None, colors))
