"""One generated room: its things, its lights, and the merged surface that rays are cast against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ponderv2.synthetic.classes import CLASS_INDEX
from ponderv2.synthetic.config import RoomConfig
from ponderv2.synthetic.furnishing import Ground, furnish
from ponderv2.synthetic.materials import Material, floor_material, make_style, wall_material
from ponderv2.synthetic.parts import Part, Thing, box
from ponderv2.synthetic.shell import FloorPlan, make_openings, make_plan, make_slab, make_walls


@dataclass(frozen=True)
class Light:
    """A point light."""

    position: Float[np.ndarray, "3"]
    color: Float[np.ndarray, "3"]
    """Strength at one metre, relative to white."""


@dataclass(frozen=True)
class RoomSurface:
    """All triangles of a room, and what each belongs to."""

    vertices: Float[np.ndarray, "vertex 3"]
    faces: Int[np.ndarray, "face 3"]
    face_part: Int[np.ndarray, " face"]
    part_instance: Int[np.ndarray, " part"]
    """Index of the thing."""
    part_class: Int[np.ndarray, " part"]
    texture_frame: Float[np.ndarray, "part 3 4"]
    """From the room to the coordinates of the part, its longest side last."""
    materials: tuple[Material, ...]
    """One per part."""


@dataclass(frozen=True)
class Room:
    """Things in the frame of the room: floor at z = 0, centred. The index of a thing is its instance."""

    plan: FloorPlan
    things: tuple[Thing, ...]
    lights: tuple[Light, ...]

    def surface(self) -> RoomSurface:
        """Merge all parts of all things."""
        vertices, faces, frames, count = [], [], [], 0
        owners = [(index, thing, part) for index, thing in enumerate(self.things) for part in thing.parts]
        for _, thing, part in owners:
            pose = thing.pose @ part.pose
            vertices.append(part.vertices @ pose[:3, :3].T + pose[:3, 3])
            faces.append(part.faces + count)
            frames.append(_texture_frame(part, pose))
            count += len(part.vertices)
        return RoomSurface(
            np.concatenate(vertices),
            np.concatenate(faces),
            np.repeat(np.arange(len(owners)), [len(part_faces) for part_faces in faces]),
            np.array([index for index, _, _ in owners]),
            np.array([CLASS_INDEX[thing.name] for _, thing, _ in owners]),
            np.stack(frames),
            tuple(part.material for _, _, part in owners),
        )


def _texture_frame(part: Part, pose: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "3 4"]:
    order = np.argsort(np.ptp(part.vertices, axis=0), kind="stable")
    return np.linalg.inv(pose)[:3][order]


def make_room(rng: np.random.Generator, config: RoomConfig) -> Room:
    """Draw a floor plan, furnish it, hang the lights."""
    plan = make_plan(rng, config.room_size)
    openings = make_openings(rng, plan)
    style = make_style(rng)
    ground = Ground(plan)
    shell = [
        make_walls(rng, plan, openings),
        make_slab(plan, "floor", floor_material(rng)),
        make_slab(plan, "ceiling", wall_material(rng)),
    ]
    furnish(rng, ground, style, openings, config.fullness)
    things = [*shell, *(item.thing for item in ground.placed), *_rugs(rng, plan)]
    return Room(plan, tuple(things), _lights(rng, plan))


def _rugs(rng: np.random.Generator, plan: FloorPlan) -> list[Thing]:
    """A thin mat on the floor, below whatever stands there; its class is floor."""
    if rng.random() < 0.5:
        return []
    width, depth = rng.uniform(0.8, 2.2, 2)
    x, y = rng.uniform(plan.corners.min(axis=0) * 0.5, plan.corners.max(axis=0) * 0.5)
    mat = box((-width / 2, -depth / 2, 0.0), (width / 2, depth / 2, 0.008), floor_material(rng))
    thing = Thing("floor", (mat,)).at(float(x), float(y), 0.0, float(rng.normal(0.0, 0.2)))
    corners = mat.placed()[:, :2] @ thing.pose[:2, :2].T + thing.pose[:2, 3]
    return [thing] if plan.contains(corners).all() else []


def _lights(rng: np.random.Generator, plan: FloorPlan) -> tuple[Light, ...]:
    """One light near the ceiling and a weaker one somewhere else, both inside the room."""
    lights = []
    for strength in (rng.uniform(1.6, 2.6), rng.uniform(0.4, 1.2)):
        spot = np.zeros(2)
        for _ in range(50):
            spot = rng.uniform(plan.corners.min(axis=0), plan.corners.max(axis=0))
            if plan.contains(spot[None], 0.5).all():
                break
        height = plan.height - rng.uniform(0.12, 0.4)
        tint = 1.0 + rng.uniform(-0.12, 0.12) * np.array([1.0, 0.1, -1.0])
        lights.append(Light(np.array([*spot, height]), strength * tint))
    return tuple(lights)
