"""Camera paths: constant speed, shortest turns, files as documented."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import Camera, project
from ponderv2.geometry.transforms import transform_points
from ponderv2.reconstruction.camera_files import path_contents, read_cameras, resized
from ponderv2.reconstruction.camera_paths import flight, look_at, viewpoints
from ponderv2.reconstruction.config import (
    CameraFileConfig,
    InterpolatedPathConfig,
    OrbitPathConfig,
    OwnCamerasConfig,
)
from ponderv2.scenes.scene import Scene
from tests.scenes.closed_form_room import SIZE, write_store

INTRINSICS = torch.tensor([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]])


def camera(pose: np.ndarray) -> Camera:
    return Camera(INTRINSICS, torch.from_numpy(np.linalg.inv(pose)).float(), 64, 48)


def turned(angle: float, place: tuple[float, float, float]) -> np.ndarray:
    pose = np.eye(4)
    pose[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    pose[:3, 3] = place
    return pose


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Scene:
    return write_store(tmp_path_factory.mktemp("store"), n_scenes=1).read("room0")


def test_a_straight_flight_has_constant_speed():
    keys = [camera(turned(0, (x, 0, 0))) for x in (0.0, 1.0, 2.0, 3.0)]
    places = torch.stack([one.centre for one in flight(keys, 13)])
    assert torch.allclose(places[:, 0], torch.linspace(0, 3, 13), atol=1e-3)
    assert places[:, 1:].abs().max() < 1e-5


def test_an_uneven_flight_has_constant_speed():
    keys = [camera(turned(0, place)) for place in ((0, 0, 0), (0.2, 0, 0), (2, 0.5, 0), (2, 3, 0))]
    places = torch.stack([one.centre for one in flight(keys, 40)])
    steps = (places[1:] - places[:-1]).norm(dim=-1)
    assert (steps - steps.mean()).abs().max() < 0.05 * steps.mean()
    assert torch.allclose(places[[0, -1]], torch.tensor([[0.0, 0, 0], [2, 3, 0]]), atol=1e-4)


def test_turns_take_the_shortest_way_at_constant_rate():
    keys = [camera(turned(math.radians(a), (0, 0, 0))) for a in (170, -170)]
    angles = [
        math.degrees(math.atan2(*torch.linalg.inv(one.world_to_camera)[[1, 0], [0, 0]].tolist())) % 360
        for one in flight(keys, 5)
    ]
    assert np.allclose(angles, [170, 175, 180, 185, 190], atol=0.1)


def test_scaled_and_mirrored_poses_are_refused():
    for matrix in (np.diag([2.0, 2, 2, 1]), np.diag([-1.0, 1, 1, 1])):
        with pytest.raises(SceneError, match="rigid"):
            flight([camera(matrix), camera(np.eye(4))], 3)


def test_a_resized_camera_shows_the_same_corners():
    small = resized(camera(np.eye(4)), 16)
    point = torch.tensor([[0.2, -0.1, 1.0]])
    full = project(point, INTRINSICS[None])[0]
    assert (small.width, small.height) == (16, 12)
    assert torch.allclose(project(point, small.intrinsics[None])[0], (full + 0.5) / 4 - 0.5, atol=1e-5)


def test_looking_at_puts_the_target_in_the_middle_and_up_up():
    one = camera(look_at(np.array([1.0, 2.0, 1.5]), np.array([3.0, 0.0, 0.5])))
    points = torch.tensor([[3.0, 0.0, 0.5], [3.0, 0.0, 0.7]])
    pixel, depth = project(transform_points(one.world_to_camera, points), INTRINSICS)
    assert torch.allclose(pixel[0], INTRINSICS[:2, 2], atol=1e-3)
    assert pixel[1, 1] < pixel[0, 1] and depth.min() > 0


def test_own_cameras_all_held_out_and_every_second(room):
    assert len(viewpoints(room, OwnCamerasConfig())) == 6
    held_out = viewpoints(room, OwnCamerasConfig(only="held_out"))
    assert [view.frame.held_out for view in held_out if view.frame] == [True, True]
    assert [view.name for view in viewpoints(room, OwnCamerasConfig(stride=2))] == ["0000", "0002", "0004"]


def test_the_orbit_stays_inside_the_room_and_looks_at_its_middle(room):
    views = viewpoints(room, OrbitPathConfig(n_frames=8))
    places = torch.stack([view.camera.centre for view in views])
    assert ((places > 0) & (places < torch.tensor(SIZE))).all()
    middle = torch.tensor(SIZE / 2).float()[None]
    for view in views:
        pixel, _ = project(transform_points(view.camera.world_to_camera, middle), view.camera.intrinsics)
        assert torch.allclose(pixel[0], view.camera.intrinsics[:2, 2], atol=0.6)


def test_the_flight_passes_the_scenes_own_cameras(room):
    views = viewpoints(room, InterpolatedPathConfig(n_frames=50, n_keys=6))
    places = torch.stack([view.camera.centre for view in views])
    for frame in room.frames:
        assert (places - frame.camera.centre).norm(dim=-1).min() < 0.06


def test_a_written_path_is_read_back(tmp_path, room):
    views = viewpoints(room, OwnCamerasConfig())
    (tmp_path / "path.json").write_text(json.dumps(path_contents(views)))
    for again, view in zip(
        viewpoints(room, CameraFileConfig(path=tmp_path / "path.json")), views, strict=True
    ):
        assert again.name == view.name
        assert torch.allclose(again.camera.world_to_camera, view.camera.world_to_camera, atol=1e-5)


def test_shared_intrinsics_hold_for_frames_without_own(tmp_path):
    contents = {"width": 8, "height": 6, "intrinsics": INTRINSICS.tolist()}
    contents["frames"] = [
        {"camera_to_world": np.eye(4).tolist()},
        {"camera_to_world": np.eye(4).tolist(), "width": 4},
    ]
    (tmp_path / "path.json").write_text(json.dumps(contents))
    assert [view.camera.width for view in read_cameras(tmp_path / "path.json").views] == [8, 4]


def one_camera(width: str = "8", intrinsics: str = "[[8, 0, 4], [0, 8, 3], [0, 0, 1]]") -> str:
    """A camera-path file as text, so that numbers can be wrong."""
    pose = "[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]"
    frames = f'[{{"camera_to_world": {pose}}}]'
    return f'{{"width": {width}, "height": 6, "intrinsics": {intrinsics}, "frames": {frames}}}'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not a camera path"),
        ('{"frames": [{}]}', "'camera_to_world' is missing"),
        ('{"frames": []}', "no cameras"),
        ('{"frames": [{"camera_to_world": [[1]]}], "intrinsics": [[1]], "width": 1, "height": 1}', "frame 0"),
        ("[" * 100000, "not a camera path"),
        (one_camera(width="1e999"), "not a camera path"),
        (one_camera(width="1000000000"), "pixels"),
        (one_camera(intrinsics="[[0, 0, 1], [0, 0, 1], [0, 0, 1]]"), "focal lengths"),
    ],
)
def test_a_wrong_path_file_is_explained(tmp_path, text, reason):
    (tmp_path / "path.json").write_text(text)
    with pytest.raises(SceneError, match=reason):
        read_cameras(tmp_path / "path.json")


def test_the_documented_path_looks_where_the_text_says(tmp_path):
    text = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()
    (tmp_path / "path.json").write_text(text.split("```json")[1].split("```")[0])
    door, desk = read_cameras(tmp_path / "path.json").views
    assert (door.name, desk.name) == ("door", "desk")
    for view, place, forward in ((door, [2, 0.5, 1.5], [0, 1, 0]), (desk, [0.5, 2, 1.5], [1, 0, 0])):
        assert np.allclose(view.camera.centre.numpy(), place)
        assert np.allclose(view.camera.world_to_camera[2, :3].numpy(), forward)
        assert np.isclose(np.linalg.det(view.camera.world_to_camera.numpy()), 1.0)


def test_a_missing_path_file_is_named(tmp_path):
    with pytest.raises(SceneError, match=r"none\.json"):
        read_cameras(tmp_path / "none.json")
