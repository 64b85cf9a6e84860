"""Rays through a street in motion: every actor is hit in its own frame, at the time of the ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from ponderv2.geometry.raycasting import Raycaster
from ponderv2.synthetic.materials import Material
from ponderv2.synthetic.streets.actors import Actor
from ponderv2.synthetic.streets.classes import LABELS
from ponderv2.synthetic.streets.shapes import MergedMesh, merge
from ponderv2.synthetic.streets.street import Street

Candidates = Callable[[Float[np.ndarray, "8 3"]], Int[np.ndarray, " ray"]]
"""Given the corners of a box in the world: the rays that may meet it, as indices."""


@dataclass(frozen=True)
class Rays:
    """Rays of one sensor. Distances count in lengths of the directions."""

    origin: Float[np.ndarray, "ray 3"]
    direction: Float[np.ndarray, "ray 3"]
    time: Float[np.ndarray, " ray"]
    """Seconds since the first key frame."""


@dataclass(frozen=True)
class Hits:
    """The first surface on every ray."""

    distance: Float[np.ndarray, " ray"]
    """inf where there is none."""
    part: Int[np.ndarray, " ray"]
    """Row of the tables of parts, -1 where there is none."""
    actor: Int[np.ndarray, " ray"]
    """-1: the background, or nothing."""
    normal: Float[np.ndarray, "ray 3"]
    """In the world, towards the origin of the ray; zero where there is none."""
    local: Float[np.ndarray, "ray 3"]
    """The point in the frame of its mesh: the world, or the actor."""
    local_normal: Float[np.ndarray, "ray 3"]
    alone: dict[int, int]
    """Of every actor that a ray would hit if it stood alone: how many do."""


@dataclass(frozen=True)
class _Mesh:
    """A surface that answers rays, and the row of its first part in the tables."""

    mesh: MergedMesh
    first_part: int

    @cached_property
    def caster(self) -> Raycaster:
        """Built when a ray comes near."""
        return Raycaster(self.mesh.vertices, self.mesh.faces)

    @cached_property
    def normals(self) -> Float[np.ndarray, "face 3"]:
        """Of the faces, unit length."""
        return self.caster.face_normals()


class StreetCaster:
    """A street prepared for rays. One thread does all, so results never depend on their number."""

    def __init__(self, street: Street) -> None:
        self.street = street
        background = merge([part for _, part in street.static])
        self._background = _Mesh(background, 0)
        labels = [label for label, _ in street.static]
        materials, frames = list(background.materials), [background.texture_frame]
        self._actors: list[tuple[_Mesh, ...]] = []
        for actor in street.actors:
            first, meshes = len(materials), actor.model.meshes
            self._actors.append(tuple(_Mesh(mesh, first) for mesh in meshes))
            materials += meshes[0].materials
            frames.append(meshes[0].texture_frame)
            labels += [LABELS[actor.model.category]] * len(meshes[0].materials)
        self.materials: tuple[Material, ...] = tuple(materials)
        """One per part."""
        self.texture_frame: Float[np.ndarray, "part 3 4"] = np.concatenate(frames).astype(np.float32)
        self.label: Int[np.ndarray, " part"] = np.array(labels)
        """Number of the class in lidarseg."""

    def cast(self, rays: Rays, candidates: Candidates) -> Hits:
        """The first hit of every ray."""
        distance, face = self._background.caster.cast(rays.origin, rays.direction)
        distance = distance.astype(np.float64)
        hit = face >= 0
        part = np.where(hit, self._background.mesh.face_part[face], -1)
        normal = np.where(hit[:, None], self._background.normals[face], 0.0)
        local_normal = normal.copy()
        actor_of = np.full(len(distance), -1)
        local = np.where(
            hit[:, None], rays.origin + rays.direction * np.where(hit, distance, 0.0)[:, None], 0.0
        )
        alone: dict[int, int] = {}
        middle = float(rays.time.mean())
        for number, actor in enumerate(self.street.actors):
            if not actor.track.covers(middle):
                continue
            chosen = candidates(box_corners(actor, np.array([rays.time.min(), rays.time.max()])))
            if len(chosen) == 0:
                continue
            found = self._cast_actor(number, actor, rays, chosen, middle)
            where, reach, mesh, faces, turn, at = found
            if len(where) == 0:
                continue
            alone[number] = len(where)
            nearer = reach < distance[where]
            where, faces = where[nearer], faces[nearer]
            distance[where], actor_of[where] = reach[nearer], number
            part[where] = mesh.first_part + mesh.mesh.face_part[faces]
            local[where], local_normal[where] = at[nearer], mesh.normals[faces]
            normal[where] = np.einsum("rij,rj->ri", turn[nearer], mesh.normals[faces])
        away = np.einsum("rj,rj->r", normal, rays.direction) > 0
        normal[away] *= -1.0
        local_normal[away] *= -1.0
        return Hits(distance, part, actor_of, normal, local, local_normal, alone)

    def _cast_actor(
        self, number: int, actor: Actor, rays: Rays, chosen: Int[np.ndarray, " ray"], time: float
    ) -> tuple:
        """Rays that hit an actor: indices, distances, its mesh, faces, rotations, points in its frame."""
        poses = actor.track.matrices(rays.time[chosen])
        turn = poses[:, :3, :3]
        origin = np.einsum("rji,rj->ri", turn, rays.origin[chosen] - poses[:, :3, 3])
        direction = np.einsum("rji,rj->ri", turn, rays.direction[chosen])
        mesh = self._actors[number][actor.phase(time)]
        distance, face = mesh.caster.cast(origin, direction)
        hit = face >= 0
        distance = distance[hit].astype(np.float64)
        return (
            chosen[hit],
            distance,
            mesh,
            face[hit],
            turn[hit],
            origin[hit] + direction[hit] * distance[:, None],
        )

    def shadows(self, time: float, extra: tuple[MergedMesh, Float[np.ndarray, "4 4"]]) -> ShadowCaster:
        """What blocks light at a time: everything, and one further mesh at a pose."""
        vertices, faces, count = [], [], 0
        posed = [
            (self._actors[n][actor.phase(time)].mesh, actor.track.matrices(np.array(time)))
            for n, actor in enumerate(self.street.actors)
            if actor.track.covers(time)
        ]
        for mesh, pose in [*posed, extra]:
            vertices.append(mesh.vertices @ pose[:3, :3].T + pose[:3, 3])
            faces.append(mesh.faces + count)
            count += len(mesh.vertices)
        return ShadowCaster(
            self._background.caster, Raycaster(np.concatenate(vertices), np.concatenate(faces))
        )


@dataclass(frozen=True)
class ShadowCaster:
    """The background and the actors at one time."""

    background: Raycaster
    actors: Raycaster

    def blocked(
        self, points: Float[np.ndarray, "point 3"], towards: Float[np.ndarray, "point 3"]
    ) -> Float[np.ndarray, " point"]:
        """1 where something lies between a point and the light, else 0."""
        found = self.actors.occluded(points, towards, until=120.0)
        free = np.flatnonzero(~found)
        found[free] = self.background.occluded(points[free], towards[free], until=200.0)
        return found.astype(np.float32)


def box_corners(actor: Actor, time: Float[np.ndarray, "2"]) -> Float[np.ndarray, "8 3"]:
    """Corners of a box in the world that holds the actor at both times."""
    low, high = actor.model.extent
    corners = np.array(
        [(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
    )
    both = [corners @ pose[:3, :3].T + pose[:3, 3] for pose in actor.track.matrices(time)]
    if not actor.track.moves:
        return both[0]
    points = np.concatenate(both)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.array(
        [(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
    )
