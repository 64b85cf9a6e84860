"""What rendering and meshing need of a scene: a pre-trained model's or a refined one. And `render_camera`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ponderv2.geometry.cameras import Camera
from ponderv2.geometry.rays import RayBundle, rays_through_pixels
from ponderv2.geometry.transforms import transform_points
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.renderer.baked_field import BakedField
from ponderv2.renderer.renderer import RenderedRays, Renderer

RAYS_AT_A_TIME = 65536
"""Rays that are built together: memory does not grow with the image."""
MIN_OPACITY = 0.5
"""From which a pixel has a depth, a normal and a class."""


@runtime_checkable
class SceneField(Protocol):
    """Signed distance, colour and views of one scene, in scene units."""

    @property
    def lower(self) -> Float[Tensor, "3"]:
        """Of the box that the field knows."""
        ...

    @property
    def upper(self) -> Float[Tensor, "3"]:
        """Of the box that the field knows."""
        ...

    @property
    def to_volume(self) -> Float[Tensor, "4 4"]:
        """Scene -> the frame in which `render` takes its rays: a similarity."""
        ...

    @property
    def cell(self) -> float:
        """How far apart the values lie that the field interpolates, along the axis where they are sparsest,
        scene units."""
        ...

    @property
    def has_color(self) -> bool:
        """Whether it knows colours."""
        ...

    def signed_distance(self, points: Float[Tensor, "point 3"]) -> Float[Tensor, " point"]:
        """Positive in free space."""
        ...

    def color(
        self, points: Float[Tensor, "point 3"], directions: Float[Tensor, "point 3"]
    ) -> Float[Tensor, "point 3"]:
        """Colour 0..1 for unit viewing directions."""
        ...

    def render(self, rays: RayBundle, chunk: int) -> RenderedRays:
        """Rays in the frame of the volume, `chunk` at once, to the CPU; semantics are class scores."""
        ...

    def frame_gain(self, frame_id: str | None) -> Float[Tensor, "3"]:
        """Factor that brings colours to the exposure of one of the scene's frames; 1 where it is unknown."""
        ...


@dataclass(frozen=True)
class RenderedImages:
    """What a camera sees of a field."""

    color: Float[Tensor, "row column 3"]
    """0..1."""
    depth: Float[Tensor, "row column"]
    """Metres along the optical axis."""
    normal: Float[Tensor, "row column 3"]
    """Unit length, in the frame of the scene."""
    opacity: Float[Tensor, "row column"]
    """0 where no surface is met, 1 at a surface."""
    semantic: Int[Tensor, "row column"] | None = None
    """Class, -1 where no surface is met; None where the model has no classes."""

    def without_background(self) -> RenderedImages:
        """Depth and normal are zero where no surface is met."""
        opaque = self.opacity >= MIN_OPACITY
        depth, normal = torch.where(opaque, self.depth, 0.0), self.normal * opaque[..., None]
        return replace(self, depth=depth, normal=normal)


@torch.no_grad()
def render_camera(
    field: SceneField, camera: Camera, chunk: int = 4096, stride: int = 1, frame_id: str | None = None
) -> RenderedImages:
    """Renders a camera in the frame of the scene, at the exposure of a frame where the field knows it.

    `chunk`: rays at once. `stride`: every n-th pixel of every n-th row, the middle ones.
    """
    inside = camera.moved(field.to_volume)
    back = F.normalize(torch.linalg.inv(field.to_volume.double())[:3, :3], dim=0).float()
    if not _is_similarity(field.to_volume):  # a plane n p = d is (A^T n) p' = d' before the map A
        back = field.to_volume[:3, :3].T.float()
    rows = torch.arange(stride // 2, camera.height, stride)
    columns = torch.arange(stride // 2, camera.width, stride)
    parts: list[tuple[RenderedRays, Tensor]] = []
    for index in torch.arange(len(rows) * len(columns)).split(RAYS_AT_A_TIME):
        pixel = torch.stack([columns[index % len(columns)], rows[index // len(columns)]], dim=-1).float()
        first = torch.zeros(len(index), dtype=torch.int64)
        through = rays_through_pixels(
            pixel, first, inside.intrinsics[None], inside.world_to_camera[None], first[:1]
        )
        found = field.render(through.rays, chunk)
        parts.append((found, found.distance / through.distance_per_depth))
    rendered = RenderedRays.concatenated([part for part, _ in parts])
    size = (len(rows), len(columns))
    semantic = None
    if rendered.semantic is not None:
        semantic = torch.where(rendered.opacity >= MIN_OPACITY, rendered.semantic.argmax(dim=-1), -1)
    return RenderedImages(
        color=(rendered.color * field.frame_gain(frame_id)).clamp(0.0, 1.0).reshape(*size, 3),
        depth=torch.cat([depth for _, depth in parts]).reshape(size),
        normal=F.normalize(rendered.normal @ back.T, dim=-1).reshape(*size, 3),
        opacity=rendered.opacity.reshape(size),
        semantic=None if semantic is None else semantic.reshape(size),
    )


def _is_similarity(transform: Float[Tensor, "4 4"]) -> bool:
    lengths = transform[:3, :3].double().norm(dim=0)
    return bool((lengths.max() - lengths.min()) < 1e-4 * lengths.max())


@torch.no_grad()
def render_pixels(
    field: SceneField, camera: Camera, pixel: Float[Tensor, "pixel 2"], chunk: int = 4096
) -> tuple[Float[Tensor, "pixel 3"], Float[Tensor, " pixel"]]:
    """Colour 0..1 and depth along the optical axis, metres, at positions (column, row) of an image."""
    inside = camera.moved(field.to_volume)
    first = torch.zeros(len(pixel), dtype=torch.int64)
    through = rays_through_pixels(
        pixel, first, inside.intrinsics[None], inside.world_to_camera[None], first[:1]
    )
    found = field.render(through.rays, chunk)
    return found.color.clamp(0.0, 1.0), found.distance / through.distance_per_depth


@dataclass(frozen=True)
class ModelField:
    """A pre-trained model's volume of one scene, queried in scene units instead of those of the volume."""

    renderer: Renderer
    volume: FeatureVolume
    to_volume: Float[Tensor, "4 4"]
    """Scene -> the frame of the volume: a similarity. On the CPU."""
    class_rows: Float[Tensor, "class channel"] | None = None
    """Embedding of each class, where the model renders features and not scores."""

    @cached_property
    def _baked(self) -> BakedField:
        """Once, for all images and blocks of a mesh."""
        return self.renderer.bake(self.volume)

    @property
    def scale(self) -> float:
        """Units of the volume's frame per scene unit."""
        return float(torch.linalg.det(self.to_volume[:3, :3].double()).abs() ** (1.0 / 3.0))

    @property
    def lower(self) -> Float[Tensor, "3"]:
        """Of the volume's box."""
        return self._corners().amin(dim=0)

    @property
    def upper(self) -> Float[Tensor, "3"]:
        """Of the volume's box."""
        return self._corners().amax(dim=0)

    @property
    def cell(self) -> float:
        """The longest side of a cell, scene units."""
        z, y, x = self.volume.values.shape[2:]
        return float(((self.upper - self.lower) / torch.tensor([x, y, z])).amax())

    @property
    def has_color(self) -> bool:
        """False where depth alone is rendered."""
        return self.renderer.field.rgb_decoder is not None

    @torch.no_grad()
    def signed_distance(self, points: Float[Tensor, "point 3"]) -> Float[Tensor, " point"]:
        """In scene units, positive in free space; of a stretched range only the sign and the place of zero
        mean something."""
        inside = self._inside(points)
        return (self._baked.signed_distance(inside, _zeros(inside)) / self.scale).to(points.device)

    @torch.no_grad()
    def color(
        self, points: Float[Tensor, "point 3"], directions: Float[Tensor, "point 3"]
    ) -> Float[Tensor, "point 3"]:
        """Colour 0..1 for unit viewing directions."""
        inside = self._inside(points)
        turned = F.normalize(directions.to(inside) @ self.to_volume.to(inside)[:3, :3].T, dim=-1)
        return self._baked.color(inside, turned, _zeros(inside)).clamp(0.0, 1.0).to(points.device)

    @torch.no_grad()
    def render(self, rays: RayBundle, chunk: int) -> RenderedRays:
        """Rays in the frame of the volume, at most `chunk` at once; halved when memory runs out."""
        device = self.volume.values.device
        moved = RayBundle(rays.origins.to(device), rays.directions.to(device), rays.scene.to(device))
        found = self.renderer.render(self._baked, moved, chunk)
        semantic = found.semantic
        if semantic is not None and self.class_rows is not None:
            rows = F.normalize(self.class_rows.to(semantic), dim=-1)
            semantic = F.normalize(semantic, dim=-1) @ rows.T
        return RenderedRays(
            found.color.cpu(),
            found.distance.cpu(),
            found.normal.cpu(),
            found.opacity.cpu(),
            None if semantic is None else semantic.cpu(),
        )

    def frame_gain(self, frame_id: str | None) -> Float[Tensor, "3"]:
        """1: the model knows of no exposure."""
        return torch.ones(3)

    def _inside(self, points: Tensor) -> Tensor:
        """In the frame of the volume, and where the volume is."""
        moved = points.to(self.volume.values.device)
        return transform_points(self.to_volume.to(moved), moved)

    def _corners(self) -> Tensor:
        ends = torch.stack([self.volume.lower[0], self.volume.upper[0]]).double().cpu()
        corners = torch.cartesian_prod(ends[:, 0], ends[:, 1], ends[:, 2])
        return transform_points(torch.linalg.inv(self.to_volume.double().cpu()), corners).float()


def _zeros(points: Tensor) -> Tensor:
    return torch.zeros(len(points), dtype=torch.int64, device=points.device)
