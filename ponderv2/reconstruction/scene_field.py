"""What rendering and meshing need of a scene, whether a pre-trained model or a refined scene gives it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.transforms import transform_points
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.renderer.baked_field import ViewedField
from ponderv2.renderer.renderer import Renderer


@dataclass(frozen=True)
class RenderedRays:
    """What rays see, in the frame and the units of the scene."""

    color: Float[Tensor, "ray 3"]
    """0..1."""
    distance: Float[Tensor, " ray"]
    """Along the ray; meaningless where the opacity is 0."""
    normal: Float[Tensor, "ray 3"]
    """Unit length, zero where nothing is seen."""
    opacity: Float[Tensor, " ray"]
    """0..1."""
    semantic: Float[Tensor, "ray class"] | None = None
    """Scores; None where the model has no classes."""


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

    def signed_distance(self, points: Float[Tensor, "point 3"]) -> Float[Tensor, " point"]:
        """Positive in free space."""
        ...

    def color(
        self, points: Float[Tensor, "point 3"], directions: Float[Tensor, "point 3"]
    ) -> Float[Tensor, "point 3"]:
        """Seen along unit directions, 0..1."""
        ...

    def render_rays(
        self, origins: Float[Tensor, "ray 3"], directions: Float[Tensor, "ray 3"], chunk: int
    ) -> RenderedRays:
        """Rays of unit direction, at most `chunk` at once."""
        ...

    def frame_gain(self, frame_id: str | None) -> Float[Tensor, "3"]:
        """Factor that brings colours to the exposure of one of the scene's frames; 1 where it is unknown."""
        ...


@dataclass(frozen=True)
class ModelField:
    """A pre-trained model's volume of one scene, asked in scene units instead of those of its cube."""

    renderer: Renderer
    volume: FeatureVolume
    to_cube: Float[Tensor, "4 4"]
    """Scene -> the frame of the volume: a similarity."""
    class_rows: Float[Tensor, "class channel"] | None = None
    """Embedding of each class, where the model renders features and not scores."""

    @cached_property
    def _viewed(self) -> ViewedField:
        """Made ready once, for all pictures and blocks of a mesh."""
        return self.renderer.viewed(self.volume)

    @property
    def scale(self) -> float:
        """Cube units per scene unit."""
        return float(torch.linalg.det(self.to_cube[:3, :3].double()).abs() ** (1.0 / 3.0))

    @property
    def lower(self) -> Float[Tensor, "3"]:
        """Of the volume's box."""
        return self._corners().amin(dim=0)

    @property
    def upper(self) -> Float[Tensor, "3"]:
        """Of the volume's box."""
        return self._corners().amax(dim=0)

    def signed_distance(self, points: Float[Tensor, "point 3"]) -> Float[Tensor, " point"]:
        """In scene units, positive in free space."""
        inside = self._inside(points)
        if torch.is_grad_enabled():
            found = self.renderer.signed_distance(self.volume, inside, _zeros(inside))
        else:
            found = self._viewed.distances(inside, _zeros(inside))
        return (found / self.scale).to(points.device)

    def color(
        self, points: Float[Tensor, "point 3"], directions: Float[Tensor, "point 3"]
    ) -> Float[Tensor, "point 3"]:
        """Seen along unit directions, 0..1."""
        inside, turned = self._inside(points), self._turned(directions)
        if torch.is_grad_enabled():
            found = self.renderer.color(self.volume, inside, turned, _zeros(inside))
        else:
            found = self._viewed.color(inside, turned, _zeros(inside))
        return found.clamp(0.0, 1.0).to(points.device)

    def render_rays(
        self, origins: Float[Tensor, "ray 3"], directions: Float[Tensor, "ray 3"], chunk: int
    ) -> RenderedRays:
        """Rays of unit direction, at most `chunk` at once; the renderer halves that when memory runs out."""
        inside = self._inside(origins)
        rays = RayBundle(inside, self._turned(directions), _zeros(inside))
        seen = self.renderer.view(self._viewed, rays, chunk)
        semantic = self._scores(seen.semantic)
        back = torch.linalg.inv(self.to_cube.double())[:3, :3].to(origins)
        return RenderedRays(
            color=seen.color.clamp(0.0, 1.0).to(origins.device),
            distance=(seen.distance / self.scale).to(origins.device),
            normal=F.normalize(seen.normal.to(origins.device) @ back.T, dim=-1),
            opacity=seen.opacity.to(origins.device),
            semantic=None if semantic is None else semantic.to(origins.device),
        )

    def frame_gain(self, frame_id: str | None) -> Float[Tensor, "3"]:
        """1: the model knows of no exposure."""
        return torch.ones(3)

    def _scores(self, semantic: Tensor | None) -> Tensor | None:
        if semantic is None or self.class_rows is None:
            return semantic
        return F.normalize(semantic, dim=-1) @ F.normalize(self.class_rows.to(semantic), dim=-1).T

    def _inside(self, points: Tensor) -> Tensor:
        """In the frame of the volume, and where the volume is."""
        moved = points.to(self.volume.values.device)
        return transform_points(self.to_cube.to(moved), moved)

    def _turned(self, directions: Tensor) -> Tensor:
        turned = directions.to(self.volume.values.device)
        return F.normalize(turned @ self.to_cube.to(turned)[:3, :3].T, dim=-1)

    def _corners(self) -> Tensor:
        ends = torch.stack([self.volume.lower[0], self.volume.upper[0]]).double().cpu()
        corners = torch.cartesian_prod(ends[:, 0], ends[:, 1], ends[:, 2])
        return transform_points(torch.linalg.inv(self.to_cube.double().cpu()), corners).float()


def _zeros(points: Tensor) -> Tensor:
    return torch.zeros(len(points), dtype=torch.int64, device=points.device)
