"""Renders images of a room by ray casting with materials and lights, and simulates an RGB-D camera."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, UInt8

from ponderv2.geometry.raycasting import Raycaster
from ponderv2.synthetic.config import RoomConfig
from ponderv2.synthetic.materials import MaterialTable, albedo, tabulate
from ponderv2.synthetic.room import Room, RoomSurface

_SHADE_CELL = 0.08
"""Edge of the cells that measure how enclosed a place is, metres."""
NEAR = 0.35
"""The sensor measures nothing closer, metres."""
GRAZING = 0.17
"""Cosine between ray and normal below which measurements begin to fail."""


@dataclass(frozen=True)
class Pinhole:
    """A camera, OpenCV axes, pixel centres at integers."""

    intrinsics: Float[np.ndarray, "3 3"]
    camera_to_world: Float[np.ndarray, "4 4"]
    width: int
    height: int

    @cached_property
    def directions(self) -> Float[np.ndarray, "row column 3"]:
        """World directions of all pixels, of depth 1: the factor of a direction is the depth."""
        column, row = np.meshgrid(np.arange(self.width), np.arange(self.height))
        pixel = np.stack([column, row, np.ones_like(column)], axis=-1).astype(float)
        return pixel @ np.linalg.inv(self.intrinsics).T @ self.camera_to_world[:3, :3].T


@dataclass(frozen=True)
class RenderedView:
    """What a camera sees, without noise."""

    color: Float[np.ndarray, "row column 3"]
    """0..1, not clipped: bright places exceed 1."""
    depth: Float[np.ndarray, "row column"]
    """Along the optical axis, metres; 0 where a ray leaves the room."""
    normal: Float[np.ndarray, "row column 3"]
    """Of the surface, in the room's frame, towards the camera; 0 where there is none."""
    semantic: Int[np.ndarray, "row column"]
    """Class, -1 where there is none."""
    instance: Int[np.ndarray, "row column"]
    """Index of the thing, -1 where there is none."""
    glass: Int[np.ndarray, "row column"]
    """1 where depth sensors tend to fail."""


class RoomRenderer:
    """A room prepared for rendering. One thread does all, so results never depend on their number."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.surface: RoomSurface = room.surface()
        self._table: MaterialTable = tabulate(list(self.surface.materials))
        self._raycaster = Raycaster(self.surface.vertices, self.surface.faces)
        self._face_normal = self._raycaster.face_normals()
        self._enclosure, self._origin = _enclosure(self.surface)
        self._exposure = 1.0
        self._exposure = self._meter()

    def render(self, camera: Pinhole) -> RenderedView:
        """See `RenderedView`."""
        directions = camera.directions.astype(np.float32)
        origin = camera.camera_to_world[:3, 3].astype(np.float32)
        depth, face, normal = self.cast(
            np.broadcast_to(origin, directions.shape).reshape(-1, 3), directions.reshape(-1, 3)
        )
        hit = face >= 0
        part = np.where(hit, self.surface.face_part[face], 0)
        color = np.zeros((len(face), 3), dtype=np.float32)
        points = origin + directions.reshape(-1, 3)[hit] * depth[hit, None]
        footprint = depth[hit] / camera.intrinsics[0, 0]
        color[hit] = self.radiance(points, normal[hit], part[hit], footprint)
        shape = (camera.height, camera.width)
        return RenderedView(
            color.reshape(*shape, 3),
            depth.reshape(shape),
            normal.reshape(*shape, 3),
            np.where(hit, self.surface.part_class[part], -1).reshape(shape),
            np.where(hit, self.surface.part_instance[part], -1).reshape(shape),
            np.where(hit, self._table.glass[part], 0).reshape(shape),
        )

    def cast(
        self, origins: Float[np.ndarray, "ray 3"], directions: Float[np.ndarray, "ray 3"]
    ) -> tuple[Float[np.ndarray, " ray"], Int[np.ndarray, " ray"], Float[np.ndarray, "ray 3"]]:
        """Distance in lengths of the direction (0 = none), face (-1 = none), normal towards the origin."""
        distance, face = self._raycaster.cast(origins, directions)
        hit = face >= 0
        normal = np.where(hit[:, None], self._face_normal[face], 0.0)
        towards = np.where((normal * directions).sum(axis=1, keepdims=True) > 0, -normal, normal)
        return np.where(hit, distance, 0.0), face, towards

    def nearest(self, points: Float[np.ndarray, "point 3"]) -> Int[np.ndarray, " point"]:
        """Part whose surface is closest to each point."""
        _, face = self._raycaster.nearest(points)
        return self.surface.face_part[face]

    def radiance(
        self,
        points: Float[np.ndarray, "point 3"],
        normals: Float[np.ndarray, "point 3"],
        part: Int[np.ndarray, " point"],
        footprint: Float[np.ndarray, " point"],
    ) -> Float[np.ndarray, "point 3"]:
        """Matt colour of surface points: material times light."""
        frame = self.surface.texture_frame[part].astype(np.float32)
        local = np.einsum("pij,pj->pi", frame[:, :, :3], points.astype(np.float32)) + frame[:, :, 3]
        local_normal = np.einsum("pij,pj->pi", frame[:, :, :3], normals.astype(np.float32))
        paint = albedo(self._table, part, local, local_normal, footprint.astype(np.float32))
        light = self._ambient(points, normals)
        for lamp in self.room.lights:
            light = light + self._direct(lamp.position, lamp.color, points, normals)
        glow = self._table.glow[part][:, None]
        return (self._exposure * paint * (light * (1.0 - 0.5 * glow) + glow)).astype(np.float32)

    def _meter(self) -> float:
        """Gain that brings the median of what lies below the main light to a middle tone."""
        count = np.arange(600)
        height, angle = -(count + 0.5) / len(count), count * np.pi * (3.0 - np.sqrt(5.0))
        ring = np.sqrt(1.0 - height**2)
        directions = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)
        eye = self.room.lights[0].position
        distance, face, normal = self.cast(np.broadcast_to(eye, directions.shape), directions)
        hit = face >= 0
        points, part = eye + directions[hit] * distance[hit, None], self.surface.face_part[face[hit]]
        bright = self.radiance(points, normal[hit], part, 0.01 * distance[hit]).mean(axis=1)
        return float(np.clip(0.5 / max(float(np.median(bright)), 1e-3), 0.6, 3.0))

    def _ambient(
        self, points: Float[np.ndarray, "point 3"], normals: Float[np.ndarray, "point 3"]
    ) -> Float[np.ndarray, "point 1"]:
        """Light from everywhere: weaker from below and where surfaces crowd in front of the point."""
        from scipy.ndimage import map_coordinates

        ahead = (points + 0.16 * normals - self._origin) / _SHADE_CELL
        crowd = map_coordinates(self._enclosure, ahead.T, order=1, mode="nearest")
        openness = np.clip(1.15 - 1.6 * crowd, 0.25, 1.0)
        sky = 0.46 + 0.04 * normals[:, 2]
        return (sky * openness)[:, None].astype(np.float32)

    def _direct(
        self,
        position: Float[np.ndarray, "3"],
        color: Float[np.ndarray, "3"],
        points: Float[np.ndarray, "point 3"],
        normals: Float[np.ndarray, "point 3"],
    ) -> Float[np.ndarray, "point 3"]:
        """Light of one lamp where nothing stands between."""
        to_light = position.astype(np.float32) - points
        distance = np.linalg.norm(to_light, axis=1)
        cosine = np.clip((normals * to_light).sum(axis=1) / np.maximum(distance, 1e-6), 0.0, 1.0)
        strength = cosine / (1.0 + 0.3 * distance**2)
        lit = np.flatnonzero(strength > 0.01)
        blocked = self._raycaster.occluded(points[lit] + 0.004 * normals[lit], to_light[lit], until=0.97)
        strength[lit[blocked]] *= 0.15
        return strength[:, None] * color.astype(np.float32)


def _enclosure(surface: RoomSurface) -> tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "3"]]:
    """How much surface lies around each cell, 0..1, blurred; and the position of cell 0."""
    from scipy.ndimage import gaussian_filter

    points = _spread_points(surface.vertices, surface.faces)
    origin = points.min(axis=0) - 3 * _SHADE_CELL
    size = np.ceil((points.max(axis=0) - origin) / _SHADE_CELL).astype(int) + 4
    filled = np.zeros(size, dtype=np.float32)
    filled[tuple(np.round((points - origin) / _SHADE_CELL).astype(int).T)] = 1.0
    return gaussian_filter(filled, 1.6), origin


def _spread_points(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> Float[np.ndarray, "point 3"]:
    """Points that cover all triangles, no further apart than a cell."""
    corners = vertices[faces]
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    steps = np.ceil(longest / _SHADE_CELL).astype(int) + 1
    points = []
    for count in np.unique(steps):
        a, b = np.meshgrid(np.arange(count + 1) / count, np.arange(count + 1) / count, indexing="ij")
        inside = a + b <= 1.0 + 1e-9
        weight = np.stack([1 - a[inside] - b[inside], a[inside], b[inside]], axis=-1)
        points.append(np.einsum("wk,fkc->fwc", weight, corners[steps == count]).reshape(-1, 3))
    return np.concatenate(points)


def depth_deviation(depth: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Standard deviation of the sensor, metres: 1.2 mm + 1.9 mm/m² (z - 0.4 m)², Nguyen et al. 2012."""
    return 0.0012 + 0.0019 * (depth - 0.4) ** 2


def depth_step(depth: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Distance of two depths that the sensor tells apart, metres: grows with the square of depth."""
    return 0.0014 * depth**2 + 1e-4


def sense_depth(
    rng: np.random.Generator, view: RenderedView, camera: Pinhole, config: RoomConfig
) -> Float[np.ndarray, "row column"]:
    """Measured depth, metres, 0 = no measurement."""
    exact = view.depth
    noise = rng.standard_normal(exact.shape)
    holes = rng.random(exact.shape)
    shuffled = _displaced(exact, rng)
    measured = shuffled + config.depth_noise * depth_deviation(shuffled) * noise
    step = depth_step(np.maximum(measured, NEAR))
    measured = np.round(measured / step) * step
    ray = camera.directions
    cosine = np.abs((view.normal * ray).sum(axis=-1)) / np.linalg.norm(ray, axis=-1)
    failure = 0.01 + 0.9 * np.clip((GRAZING - cosine) / GRAZING, 0.0, 1.0)
    failure = np.maximum(failure, 0.45 * _at_edge(exact))
    failure = np.maximum(failure, 0.4 * (view.glass > 0))
    seen = (shuffled > NEAR) & (measured > NEAR) & (measured < config.max_depth) & (exact > 0)
    return np.where(seen & (holes >= failure), measured, 0.0)


def _displaced(
    depth: Float[np.ndarray, "row column"], rng: np.random.Generator
) -> Float[np.ndarray, "row column"]:
    """Beside an edge some pixels show the other side of it: the sensor's correlation window is wide."""
    edge = _at_edge(depth)
    rows, columns = np.indices(depth.shape)
    moves = rng.integers(-1, 2, (2, *depth.shape)) * edge
    rows = np.clip(rows + moves[0], 0, depth.shape[0] - 1)
    columns = np.clip(columns + moves[1], 0, depth.shape[1] - 1)
    return depth[rows, columns]


def _at_edge(depth: Float[np.ndarray, "row column"]) -> np.ndarray:
    """True where a neighbour is more than 5 % (and 4 cm) nearer or further."""
    limit = np.maximum(0.05 * depth, 0.04)
    edge = np.zeros(depth.shape, dtype=bool)
    for axis in (0, 1):
        jump = np.abs(np.diff(depth, axis=axis))
        one, other = [slice(None)] * 2, [slice(None)] * 2
        one[axis], other[axis] = slice(0, -1), slice(1, None)
        edge[tuple(one)] |= jump > limit[tuple(one)]
        edge[tuple(other)] |= jump > limit[tuple(other)]
    return edge


def sense_color(rng: np.random.Generator, view: RenderedView) -> UInt8[np.ndarray, "row column 3"]:
    """Colour with exposure and white balance of the frame, lens blur, darker corners and noise."""
    from scipy.ndimage import correlate1d

    gain = rng.uniform(0.9, 1.1) * (1.0 + rng.uniform(-0.03, 0.03, 3))
    kernel = np.array([0.15, 0.7, 0.15])
    blurred = correlate1d(correlate1d(np.clip(view.color, 0.0, 1.3), kernel, axis=0), kernel, axis=1)
    height, width = view.depth.shape
    row, column = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    vignette = 1.0 - 0.06 * (row**2 + column**2)
    color = np.clip(blurred * gain * vignette[..., None], 0.0, 1.0)
    deviation = 0.006 + 0.014 * np.sqrt(color)
    return to_bytes(color + deviation * rng.standard_normal(color.shape))


def to_bytes(color: Float[np.ndarray, "*shape 3"]) -> UInt8[np.ndarray, "*shape 3"]:
    """Colour 0..1 to 0..255."""
    return np.clip(np.round(color * 255.0), 0, 255).astype(np.uint8)
