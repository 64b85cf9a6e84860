"""Generated rooms: their geometry against analytic rays, containment queries and the names of the classes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from ponderv2.reconstruction.fusion import load_open3d
from ponderv2.synthetic.classes import CLASS_COLORS, CLASS_INDEX, CLASS_NAMES
from ponderv2.synthetic.config import RoomConfig
from ponderv2.synthetic.furnishing import solids
from ponderv2.synthetic.materials import plain
from ponderv2.synthetic.parts import Part, box, cushion, drape, lathe, tube
from ponderv2.synthetic.rendering import Pinhole, RoomRenderer
from ponderv2.synthetic.room import Room, make_room
from ponderv2.synthetic.shell import make_plan
from ponderv2.synthetic.trajectory import free_spots, make_cameras, pose_of_view

SETTINGS = RoomConfig(frames=4, width=48, height=36, room_size=(3.0, 4.2))
RED = plain((1.0, 0.0, 0.0))
STEPS = np.linspace(0.0, 1.0, 12)
SHAPES = {
    "box": (box((0, 0, 0), (1, 2, 3), RED), 6.0),
    "cylinder": (lathe([(0.5, 0.0), (0.5, 2.0)], RED, sides=64), 2.0 * np.pi * 0.25),
    "cone": (tube((0, 0, 0), (1, 1, 0), (0.3, 0.0001), RED, sides=64), np.sqrt(2.0) * np.pi * 0.09 / 3),
    "ball": (cushion((-1, -1, -1), (1, 1, 1), RED, 1.0), 4 / 3 * np.pi),
    "curtain": (drape(np.column_stack([STEPS, 0.1 * np.sin(9 * STEPS)]), 0.0, 2.0, 0.05, RED), 0.1),
}


@cache
def built(index: int) -> Room:
    return make_room(np.random.default_rng([0, index]), SETTINGS)


@pytest.fixture(scope="module")
def room() -> Room:
    return built(4)


@pytest.fixture(scope="module")
def renderer(room: Room) -> RoomRenderer:
    return RoomRenderer(room)


def signed_volume(part: Part) -> float:
    a, b, c = part.placed()[part.faces].transpose(1, 0, 2)
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6.0)


def test_every_class_has_one_colour_of_its_own() -> None:
    assert len(CLASS_NAMES) >= 13
    assert len(set(CLASS_NAMES)) == len(set(CLASS_COLORS)) == len(CLASS_NAMES)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_closed_and_have_the_volume_of_the_textbook(name: str) -> None:
    part, volume = SHAPES[name]
    edges = np.concatenate([part.faces[:, [0, 1]], part.faces[:, [1, 2]], part.faces[:, [2, 0]]])
    there, back = {tuple(edge) for edge in edges}, {tuple(edge[::-1]) for edge in edges}
    assert there == back and len(there) == len(edges)
    assert signed_volume(part) == pytest.approx(volume, rel=0.08)


def test_all_furniture_is_closed_and_faces_outwards() -> None:
    parts = [part for thing in built(4).things[3:] for part in thing.parts]
    assert all(signed_volume(part) > 0 for part in parts)


def test_every_class_occurs_in_some_room() -> None:
    seen = {thing.name for index in range(6) for thing in built(index).things}
    assert seen == set(CLASS_INDEX)


@pytest.mark.parametrize("index", range(12))
def test_floor_plan_contains_as_a_grid_count_says(index: int) -> None:
    plan = make_plan(np.random.default_rng(index), (3.0, 6.5))
    low, high = plan.corners.min(axis=0), plan.corners.max(axis=0)
    grid = np.stack(np.meshgrid(*(np.linspace(low[k], high[k], 301)[:-1] + 0.003 for k in (0, 1))), axis=-1)
    share = plan.contains(grid).mean()
    assert share * np.prod(high - low) == pytest.approx(plan.area(), rel=0.02)
    assert plan.contains(grid, 0.4).sum() < plan.contains(grid).sum()


def test_turned_boxes_overlap_as_dense_sampling_says() -> None:
    rng = np.random.default_rng(3)
    unit = np.stack(np.meshgrid(*[np.linspace(0.01, 0.99, 12)] * 3), axis=-1).reshape(-1, 3)
    for _ in range(60):
        angle, move = rng.uniform(0, 6), rng.uniform(-1.6, 1.6, 3)
        pose = np.eye(4)
        pose[:2, :2] = ((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle)))
        pose[:3, 3] = move
        first = np.array([[[0.0, 0.0, 0.0], [1.0, 2.0, 1.0]]])
        second = np.array([[[-0.5, 0.0, 0.0], [0.5, 1.0, 1.5]]])
        points = (second[0, 0] + unit * (second[0, 1] - second[0, 0])) @ pose[:3, :3].T + move
        touched = bool(((points > first[0, 0]) & (points < first[0, 1])).all(axis=1).any())
        if touched:
            assert solids(first, np.eye(4)).overlaps(solids(second, pose)).all()
        elif not solids(first, np.eye(4)).overlaps(solids(second, pose), -0.16).any():
            continue
        else:
            raise AssertionError("boxes that share no sample overlap by more than a sampling step")


@pytest.mark.parametrize("index", [1, 4])
def test_things_do_not_run_into_each_other(index: int) -> None:
    """Points well inside each part lie in no part of another thing: parity of crossings, by Open3D."""
    o3d = load_open3d()

    things = [thing for thing in built(index).things if thing.name not in ("wall", "floor", "ceiling")]
    rng = np.random.default_rng(0)
    inner, owner = [], []
    for number, thing in enumerate(things):
        for part in thing.parts:
            middle = part.vertices.mean(axis=0)
            points = middle + 0.9 * rng.uniform(0, 1, (6, 1)) * (rng.choice(part.vertices, 6) - middle)
            pose = thing.pose @ part.pose
            inner.append(points @ pose[:3, :3].T + pose[:3, 3])
            owner.append(np.full(6, number))
    points, owners = np.concatenate(inner).astype(np.float32), np.concatenate(owner)
    for number, thing in enumerate(things):
        low, high = thing.bounds()
        local = (points - thing.pose[:3, 3]) @ thing.pose[:3, :3]
        near = (owners != number) & ((local > low) & (local < high)).all(axis=1)
        for part in thing.parts if near.any() else ():
            scene = o3d.t.geometry.RaycastingScene(nthreads=1)
            pose = thing.pose @ part.pose
            vertices = (part.vertices @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32)
            scene.add_triangles(o3d.core.Tensor(vertices), o3d.core.Tensor(part.faces.astype(np.uint32)))
            inside = scene.compute_occupancy(o3d.core.Tensor(points[near]), nthreads=1).numpy()
            assert not inside.any(), f"{thing.name} meets {things[owners[near][inside > 0][0]].name}"


def test_everything_stands_inside_the_walls(room: Room) -> None:
    for thing in room.things[3:]:
        if thing.name not in ("door", "window"):
            corners = (
                np.concatenate([part.placed() for part in thing.parts]) @ thing.pose[:3, :3].T
                + thing.pose[:3, 3]
            )
            assert room.plan.contains(corners[:, :2]).all()
            assert corners[:, 2].min() > -1e-6 and corners[:, 2].max() < room.plan.height + 1e-6


def test_no_camera_is_inside_or_close_to_a_thing(room: Room, renderer: RoomRenderer) -> None:
    """By Open3D's distance to the surface, which knows nothing of the boxes that keep cameras away."""
    o3d = load_open3d()

    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    surface = room.surface()
    scene.add_triangles(
        o3d.core.Tensor(surface.vertices.astype(np.float32)), o3d.core.Tensor(surface.faces.astype(np.uint32))
    )
    cameras = make_cameras(np.random.default_rng(1), renderer, SETTINGS)
    eyes = np.stack([camera.camera_to_world[:3, 3] for camera in cameras]).astype(np.float32)
    assert room.plan.contains(eyes[:, :2].astype(float)).all()
    assert scene.compute_distance(o3d.core.Tensor(eyes), nthreads=1).numpy().min() > 0.1


def test_depth_of_walls_and_floor_equals_analytic_rays(room: Room, renderer: RoomRenderer) -> None:
    eye = free_spots(np.random.default_rng(0), room)[0]
    matrix = np.array([[30.0, 0.0, 23.0], [0.0, 31.0, 18.0], [0.0, 0.0, 1.0]])
    camera = Pinhole(matrix, pose_of_view(eye, 0.7, -0.3, 0.1), 48, 36)
    image = renderer.render(camera)
    shell = np.isin(image.semantic, [CLASS_INDEX[name] for name in ("wall", "floor", "ceiling")])
    normal = image.normal[shell]
    compared = 0
    for row, column in np.argwhere(shell):
        direction = camera.camera_to_world[:3, :3] @ np.linalg.inv(matrix) @ np.array([column, row, 1.0])
        candidates = [(level - eye[2]) / direction[2] for level in (0.0, 0.008, room.plan.height)]
        for corner, along in zip(room.plan.corners, room.plan.directions(), strict=True):
            inward = np.array([-along[1], along[0]])
            candidates.append((corner - eye[:2]) @ inward / (direction[:2] @ inward))
        gaps = np.abs(np.array(candidates) - image.depth[row, column])
        compared += gaps.min() < 1e-4
    # What remains are reveals of openings and skirting boards, which are walls too.
    assert len(normal) > 200 and compared > 0.9 * len(normal)


def test_normals_are_unit_and_face_the_camera(renderer: RoomRenderer) -> None:
    for camera in make_cameras(np.random.default_rng(2), renderer, SETTINGS)[:3]:
        image = renderer.render(camera)
        assert np.allclose(np.linalg.norm(image.normal, axis=-1), 1.0, atol=1e-5)
        assert ((image.normal * camera.directions).sum(axis=-1) <= 1e-6).all()
        assert (image.depth > 0).all() and (image.semantic >= 0).all()


def test_labels_of_pixels_are_those_of_the_nearest_surface(renderer: RoomRenderer) -> None:
    camera = make_cameras(np.random.default_rng(3), renderer, SETTINGS)[0]
    image = renderer.render(camera)
    points = camera.camera_to_world[:3, 3] + camera.directions * image.depth[..., None]
    part = renderer.nearest(points.reshape(-1, 3))
    assert (renderer.surface.part_class[part] == image.semantic.ravel()).mean() > 0.995
    assert (renderer.surface.part_instance[part] == image.instance.ravel()).mean() > 0.995
