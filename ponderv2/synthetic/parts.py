"""Closed surfaces that furniture is made of, and the things made of them. Metres, z up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from ponderv2.synthetic.materials import Material

Position = tuple[float | int, float | int, float | int]
"""x, y, z."""
_CUBE = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_CUBE_QUADS = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
_CUBE_FACES = np.array([face for a, b, c, d in _CUBE_QUADS for face in ((a, b, c), (a, c, d))])


@dataclass(frozen=True)
class Part:
    """One closed surface (faces seen from outside run counter-clockwise) of one material."""

    vertices: Float[np.ndarray, "vertex 3"]
    """In the frame of the part."""
    faces: Int[np.ndarray, "face 3"]
    material: Material
    pose: Float[np.ndarray, "4 4"]
    """From the frame of the part to that of the thing (later: of the room)."""

    def placed(self) -> Float[np.ndarray, "vertex 3"]:
        """Vertices in the frame of the thing."""
        return self.vertices @ self.pose[:3, :3].T + self.pose[:3, 3]

    @cached_property
    def extent(self) -> Float[np.ndarray, "2 3"]:
        """Lower and upper corner of the box around it, in the frame of the thing."""
        points = self.placed()
        return np.stack([points.min(axis=0), points.max(axis=0)])


@dataclass(frozen=True)
class Surface:
    """A level rectangle on which small things can stand, in the frame of its thing."""

    lower: tuple[float, float]
    upper: tuple[float, float]
    height: float


@dataclass(frozen=True)
class Thing:
    """One instance: parts in a frame whose y axis points from the back to the front, standing on z = 0."""

    name: str
    """Class name."""
    parts: tuple[Part, ...]
    surfaces: tuple[Surface, ...] = ()
    pose: Float[np.ndarray, "4 4"] = field(default_factory=lambda: np.eye(4))
    """From the frame of the thing to that of the room: a turn about z and a shift."""

    def boxes(self) -> Float[np.ndarray, "part 2 3"]:
        """Lower and upper corner of the box around every part, in the frame of the thing."""
        return np.stack([part.extent for part in self.parts])

    def bounds(self) -> Float[np.ndarray, "2 3"]:
        """Lower and upper corner of the box around the whole, in the frame of the thing."""
        boxes = self.boxes()
        return np.stack([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)])

    def at(self, x: float, y: float, z: float = 0.0, turn: float = 0.0) -> Thing:
        """The thing turned by `turn` radians about the vertical and put at x, y, z."""
        return replace(self, pose=shift(x, y, z) @ turn_z(turn))


def shift(x: float | int, y: float | int, z: float | int) -> Float[np.ndarray, "4 4"]:
    """Translation."""
    pose = np.eye(4)
    pose[:3, 3] = (x, y, z)
    return pose


def turn_z(angle: float) -> Float[np.ndarray, "4 4"]:
    """Rotation about the vertical, radians, counter-clockwise from above."""
    pose = np.eye(4)
    cosine, sine = np.cos(angle), np.sin(angle)
    pose[:2, :2] = ((cosine, -sine), (sine, cosine))
    return pose


def turn_x(angle: float) -> Float[np.ndarray, "4 4"]:
    """Rotation about the x axis, radians: what leans back turns by a positive angle."""
    pose = np.eye(4)
    cosine, sine = np.cos(angle), np.sin(angle)
    pose[1:3, 1:3] = ((cosine, -sine), (sine, cosine))
    return pose


def box(
    lower: Position,
    upper: Position,
    material: Material,
    tilt: float = 0.0,
) -> Part:
    """A box from corner to corner; `tilt` leans it backwards about the lower edge of its front face."""
    low, high = np.array(lower, dtype=float), np.array(upper, dtype=float)
    if np.any(high <= low):
        raise ValueError(f"a box needs lower < upper, got {lower} and {upper}")
    size = high - low
    middle = (low + high) / 2
    pose = shift(*middle)
    if tilt:
        hinge = shift(0.0, high[1], low[2])
        pose = hinge @ turn_x(tilt) @ np.linalg.inv(hinge) @ pose
    return Part(_CUBE * size, _CUBE_FACES, material, pose)


def lathe(
    profile: list[tuple[float | int, float | int]],
    material: Material,
    at: Position = (0, 0, 0),
    sides: int = 12,
) -> Part:
    """A body of revolution about the vertical: (radius, height) from the bottom axis to the top axis."""
    angle = np.arange(sides) * (2 * np.pi / sides)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rings = [np.column_stack([radius * circle, np.full(sides, height)]) for radius, height in profile]
    ends = np.array([[0.0, 0.0, profile[0][1]], [0.0, 0.0, profile[-1][1]]])
    faces = _ring_faces(len(profile), sides)
    return Part(np.concatenate([*rings, ends]), faces, material, shift(*at))


def _ring_faces(n_rings: int, sides: int) -> Int[np.ndarray, "face 3"]:
    """Faces of stacked rings of vertices, closed by a bottom and a top centre that follow them."""
    here = np.arange(sides)
    after = (here + 1) % sides
    bottom, top = n_rings * sides, n_rings * sides + 1
    faces = [np.column_stack([np.full(sides, bottom), after, here])]
    for ring in range(n_rings - 1):
        a, b, c, d = (
            ring * sides + here,
            ring * sides + after,
            (ring + 1) * sides + here,
            (ring + 1) * sides + after,
        )
        faces += [np.column_stack([a, b, d]), np.column_stack([a, d, c])]
    last = (n_rings - 1) * sides
    faces.append(np.column_stack([np.full(sides, top), last + here, last + after]))
    return np.concatenate(faces)


def tube(
    start: Position,
    end: Position,
    radii: tuple[float, float],
    material: Material,
    sides: int = 8,
) -> Part:
    """A cylinder or cone from point to point."""
    origin, direction = np.array(start, dtype=float), np.subtract(end, start)
    length = float(np.linalg.norm(direction))
    body = lathe([(radii[0], 0.0), (radii[1], length)], material, sides=sides)
    forward = direction / length
    helper = np.array([0.0, 1.0, 0.0]) if abs(forward[1]) < 0.9 else np.array([1.0, 0.0, 0.0])
    right = np.cross(helper, forward)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = origin
    return replace(body, pose=pose)


def cushion(
    lower: Position,
    upper: Position,
    material: Material,
    softness: float = 0.5,
    tilt: float = 0.0,
) -> Part:
    """A superellipsoid that fills the box: softness 1 is an ellipsoid, near 0 a box."""
    frame = box(lower, upper, material, tilt)
    radii = (np.array(upper, dtype=float) - np.array(lower, dtype=float)) / 2
    sides, n_rings = 14, 7
    angle = np.arange(sides) * (2 * np.pi / sides)
    height = np.linspace(-np.pi / 2, np.pi / 2, n_rings + 2)[1:-1]
    level, around = np.meshgrid(height, angle, indexing="ij")
    grid = np.stack(
        [
            _power(np.cos(level), softness) * _power(np.cos(around), softness),
            _power(np.cos(level), softness) * _power(np.sin(around), softness),
            _power(np.sin(level), softness),
        ],
        axis=-1,
    ).reshape(-1, 3)
    vertices = np.concatenate([grid, [[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]]]) * radii
    return replace(frame, vertices=vertices, faces=_ring_faces(n_rings, sides))


def _power(value: np.ndarray, exponent: float) -> np.ndarray:
    return np.sign(value) * np.abs(value) ** exponent


def drape(
    path: Float[np.ndarray, "step 2"], bottom: float, top: float, thickness: float, material: Material
) -> Part:
    """A hanging sheet that follows a path on the floor plan (running along x), for curtains."""
    front, back = path + np.array([0.0, thickness / 2]), path - np.array([0.0, thickness / 2])
    outline = np.concatenate([front, back[::-1]])
    count, n_steps = len(outline), len(path)
    vertices = np.concatenate([np.column_stack([outline, np.full(count, z)]) for z in (bottom, top)])
    here = np.arange(count)
    after = (here + 1) % count
    walls = [
        np.column_stack([after, here, here + count]),
        np.column_stack([after, here + count, after + count]),
    ]
    step = np.arange(n_steps - 1)
    mirror = count - 1 - step
    low = [np.column_stack([step, step + 1, mirror]), np.column_stack([step + 1, mirror - 1, mirror])]
    high = [face[:, ::-1] + count for face in low]
    return Part(vertices, np.concatenate(walls + low + high), material, np.eye(4))
