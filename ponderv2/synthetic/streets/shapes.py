"""Further closed surfaces and heaps of leaves that street models are made of. Metres, x forward, z up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from ponderv2.synthetic.materials import Material
from ponderv2.synthetic.parts import Part, Position, shift, tube, turn_z

Station = tuple[float | int, float | int, float | int, float | int, float | int]
"""x, lower z, upper z, half width below, half width above."""


@dataclass(frozen=True)
class MergedMesh:
    """Triangles of several parts, and what each belongs to."""

    vertices: Float[np.ndarray, "vertex 3"]
    faces: Int[np.ndarray, "face 3"]
    face_part: Int[np.ndarray, " face"]
    texture_frame: Float[np.ndarray, "part 3 4"]
    """From the frame of the mesh to the coordinates of the part, its longest side last."""
    materials: tuple[Material, ...]
    """One per part."""

    @property
    def bounds(self) -> Float[np.ndarray, "2 3"]:
        """Lower and upper corner."""
        return np.stack([self.vertices.min(axis=0), self.vertices.max(axis=0)])

    def shifted(self, offset: Float[np.ndarray, "3"]) -> MergedMesh:
        """The mesh elsewhere, its patterns with it."""
        frame = self.texture_frame.copy()
        frame[:, :, 3] -= frame[:, :, :3] @ offset
        return replace(self, vertices=self.vertices + offset, texture_frame=frame)


def merge(parts: Sequence[Part]) -> MergedMesh:
    """All parts in one mesh, in their common frame."""
    sizes = [len(part.vertices) for part in parts]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return MergedMesh(
        np.concatenate([part.placed() for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]),
        np.repeat(np.arange(len(parts)), [len(part.faces) for part in parts]),
        np.stack([_texture_frame(part) for part in parts]),
        tuple(part.material for part in parts),
    )


def _texture_frame(part: Part) -> Float[np.ndarray, "3 4"]:
    order = np.argsort(np.ptp(part.vertices, axis=0), kind="stable")
    return np.linalg.inv(part.pose)[:3][order]


def placed(parts: Sequence[Part], pose: Float[np.ndarray, "4 4"]) -> tuple[Part, ...]:
    """The parts after a motion."""
    return tuple(replace(part, pose=pose @ part.pose) for part in parts)


def pose_at(x: float, y: float, yaw: float, z: float = 0.0) -> Float[np.ndarray, "4 4"]:
    """A turn about the vertical, then a shift."""
    return shift(x, y, z) @ turn_z(yaw)


def loft(stations: Sequence[Station], material: Material) -> Part:
    """A body along x of trapezoid cross-sections, closed at both ends: hulls, cabins, hoods."""
    corners = np.array(
        [[(x, -b, z0), (x, b, z0), (x, a, z1), (x, -a, z1)] for x, z0, z1, b, a in stations], dtype=float
    ).reshape(-1, 3)
    faces = []
    for ring in range(len(stations) - 1):
        here, after = 4 * ring, 4 * ring + 4
        for corner in range(4):
            a, b = here + corner, here + (corner + 1) % 4
            c, d = after + corner, after + (corner + 1) % 4
            faces += [(a, c, b), (b, c, d)]
    last = 4 * (len(stations) - 1)
    faces += [(0, 1, 2), (0, 2, 3), (last, last + 2, last + 1), (last, last + 3, last + 2)]
    return Part(corners, np.array(faces), material, np.eye(4))


def wheel(x: float, y: float, radius: float, width: float, material: Material, sides: int = 14) -> Part:
    """A cylinder across the vehicle that stands on the ground."""
    return tube((x, y - width / 2, radius), (x, y + width / 2, radius), (radius, radius), material, sides)


def hoop(
    center: Position, radius: float, thickness: float, material: Material, sides: int = 10
) -> list[Part]:
    """A ring in the x-z plane: wheels of bicycles."""
    angle = np.arange(sides + 1) * (2 * np.pi / sides)
    x, y, z = center
    points = [(float(x + radius * np.cos(a)), float(y), float(z + radius * np.sin(a))) for a in angle]
    return [tube(points[i], points[i + 1], (thickness, thickness), material, 5) for i in range(sides)]


def foliage(
    rng: np.random.Generator,
    centers: Float[np.ndarray, "blob 3"],
    radii: Float[np.ndarray, "blob 3"],
    n_leaves: int,
    size: float,
    material: Material,
) -> Part:
    """Many leaves (tilted triangles) in ellipsoids, denser at their surface; light passes in between."""
    blob = rng.integers(len(centers), size=n_leaves)
    direction = rng.standard_normal((n_leaves, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    reach = rng.uniform(0.45, 1.0, (n_leaves, 1)) ** 0.5
    middle = centers[blob] + direction * reach * radii[blob]
    corners = rng.standard_normal((n_leaves, 3, 3))
    corners *= size * rng.uniform(0.6, 1.3, (n_leaves, 1, 1)) / np.linalg.norm(corners, axis=2, keepdims=True)
    vertices = (middle[:, None] + corners).reshape(-1, 3)
    return Part(vertices, np.arange(3 * n_leaves).reshape(-1, 3), material, np.eye(4))


def quads(corners: Float[np.ndarray, "quad 4 3"], material: Material) -> Part:
    """Open sheets of four corners each: ground, markings."""
    first = 4 * np.arange(len(corners))
    faces = np.concatenate(
        [np.column_stack([first, first + 1, first + 2]), np.column_stack([first, first + 2, first + 3])]
    )
    return Part(corners.reshape(-1, 3), faces, material, np.eye(4))
