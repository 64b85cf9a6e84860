"""Known defects of older data, planted in right scenes: each is named, right scenes are left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ponderv2.checks.check import CheckResult, check_scene
from ponderv2.checks.config import CheckConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.structured3d.config import Structured3dConfig
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.scenes.scene import Scene
from ponderv2.store.store import SceneStore
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig
from tests.datasets import structured3d_room
from tests.scenes import box_room

SETTINGS = CheckConfig(n_pixels=300)
N_FRAMES = 72
ROOM = "scene_00007/room_123"


def checked(scene: Scene) -> CheckResult:
    return check_scene(scene, SETTINGS)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A walk through the box room, as a video would see it, and points all over the room."""
    store = SceneStore.create(tmp_path_factory.mktemp("walk"), DatasetInfo("box"))
    frames, points = [], []
    for index, angle in enumerate(np.linspace(0.0, 4.0, N_FRAMES)):
        eye = (1.5 * np.cos(angle), 1.1 * np.sin(angle), 1.4 + 0.08 * angle)
        shot = box_room.shoot(box_room.look(eye, (-0.2, 0.2, 0.9)))
        depth = np.rint(shot.depth * 1000).astype(np.uint16)
        frames.append(DecodedFrame(str(10 * index), box_room.K, shot.pose, shot.color, depth))
        row, column = np.mgrid[0 : box_room.HEIGHT, 0 : box_room.WIDTH]
        ray = np.stack([column, row, np.ones_like(row)], axis=-1) @ np.linalg.inv(box_room.K).T
        points.append((ray * shot.depth[..., None]).reshape(-1, 3) @ shot.pose[:3, :3].T + shot.pose[:3, 3])
    coord = np.concatenate(points)[::10].astype(np.float32)
    cloud = PreparedCloud(coord, np.zeros(coord.shape, np.uint8), np.ones_like(coord))
    store.write("train", "box", SceneStream.of(cloud, frames))
    return store.read("box")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    """The few views of a Structured3D room, as they are and as they were published."""
    root = tmp_path_factory.mktemp("rooms")
    structured3d_room.write_zips(root / "zips", structured3d_room.room_files())
    found = {}
    for name, mirrored in (("own", False), ("published", True)):
        source = Structured3dConfig(path=root / "zips", points="panorama", mirrored_as_published=mirrored)
        prepare.run(PrepareConfig(source=source, out=root / name, workers=1))
        found[name] = open_folder(root / name).read(ROOM)
    return found


def with_cameras(scene: Scene, change: Callable[[Tensor], Tensor]) -> Scene:
    """World-to-camera of every frame changed."""
    frames = tuple(
        replace(one, camera=replace(one.camera, world_to_camera=change(one.camera.world_to_camera)))
        for one in scene.frames
    )
    return replace(scene, frames=frames)


def with_points(scene: Scene, matrix: Tensor) -> Scene:
    """The points moved, the cameras not."""
    coord = scene.cloud.coord @ matrix[:3, :3].T + matrix[:3, 3]
    return replace(scene, cloud=replace(scene.cloud, coord=coord))


def with_pictures(scene: Scene, source: Callable[[int], int | None], kinds: tuple[str, ...]) -> Scene:
    """Frame i keeps its pose and gets the images of frame source(i); frames without one are dropped."""
    frames = []
    for index, frame in enumerate(scene.frames):
        other = source(index)
        if other is not None and 0 <= other < len(scene.frames):
            paths = {kind: getattr(scene.frames[other], kind) for kind in kinds}
            frames.append(replace(frame, **paths))
    return replace(scene, frames=tuple(frames))


def shifted(x: float, y: float, z: float) -> Tensor:
    matrix = torch.eye(4)
    matrix[:3, 3] = torch.tensor([x, y, z])
    return matrix


def turned(degrees: float) -> Tensor:
    angle = torch.deg2rad(torch.tensor(degrees))
    matrix = torch.eye(4)
    matrix[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    return matrix


def axes(*order: int) -> Tensor:
    return torch.eye(4)[[*order, 3]]


MIRROR_X = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
BOTH = ("color_path", "depth_path")


# Right scenes -----------------------------------------------------------------------------------------------


def test_right_scenes_raise_no_alarm(walk: Scene, rooms: dict[str, Scene]):
    for scene in (walk, rooms["own"], rooms["published"]):
        found = checked(scene)
        assert not found.suspect and found.likely_cause == "", found
    assert not checked(walk).mirrored and checked(rooms["published"]).mirrored


def test_moving_points_and_cameras_together_raises_no_alarm(walk: Scene):
    for matrix in (shifted(3, -2, 1) @ turned(33), MIRROR_X, axes(1, 0, 2)):
        moved = with_cameras(with_points(walk, matrix), lambda one, m=matrix: one @ torch.linalg.inv(m))
        found = checked(moved)
        assert not found.suspect, found
        assert found.mirrored == bool(torch.linalg.det(matrix) < 0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_views_are_compared_with_the_points(rooms: dict[str, Scene], count: int):
    scene = replace(rooms["own"], frames=rooms["own"].frames[4 - count :])
    assert not checked(scene).suspect
    found = checked(with_points(scene, shifted(0.5, -0.4, 0.3)))
    assert found.suspect and "not moved along" in found.likely_cause


def test_views_that_see_different_things_raise_no_alarm(tmp_path: Path):
    views = tuple(
        structured3d_room.View((3.2, -0.3, 1.5), (np.cos(one), np.sin(one), -0.1))
        for one in (0.3, 1.9, 3.5, 5.1)
    )
    structured3d_room.write_zips(tmp_path / "zips", structured3d_room.room_files(views=views))
    source = Structured3dConfig(path=tmp_path / "zips", points="panorama")
    result = prepare.run(PrepareConfig(source=source, out=tmp_path / "out", workers=1))
    found = result.scenes[0].check
    assert found is not None and not found.suspect


# Cameras that were left behind ------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(-3.0, 1.5, -0.2), (0.4, 0.3, 0.0), (0.0, 0.0, 0.2)])
def test_points_centred_without_the_cameras_are_named_with_the_shift(walk: Scene, shift: tuple):
    found = checked(with_points(walk, shifted(*shift)))
    assert found.suspect and "not moved along" in found.likely_cause and "centred" in found.likely_cause
    text = found.likely_cause.split("(")[1].split(")")[0]
    assert np.allclose([float(one) for one in text.split(",")], shift, atol=0.06)


@pytest.mark.parametrize("angle", [30.0, 118.0, 90.0])
def test_points_aligned_without_the_cameras_are_named_with_the_angle(walk: Scene, angle: float):
    found = checked(with_points(walk, shifted(0.5, -1.0, 0) @ turned(angle)))
    assert found.suspect and "aligned" in found.likely_cause
    assert abs(float(found.likely_cause.split("turned by ")[1].split()[0]) - angle) <= 2


# Structured3D before its extrinsics were corrected ----------------------------------------------------------


@pytest.mark.parametrize("name", ["own", "published"])
def test_world_to_camera_in_place_of_camera_to_world_is_named(rooms: dict[str, Scene], name: str):
    found = checked(with_cameras(rooms[name], torch.linalg.inv))
    assert found.suspect and "invert them" in found.likely_cause


def test_cameras_without_the_exchange_of_axes_that_the_points_had_are_named(rooms: dict[str, Scene]):
    """Points (y, x, z); cameras still (y, z, x), as between fusion and its last exchange."""
    exchange = axes(0, 2, 1)
    found = checked(with_cameras(rooms["published"], lambda one: one @ exchange))
    assert found.suspect and "Structured3D" in found.likely_cause and "mirror" in found.likely_cause


def test_camera_axes_of_the_files_are_named(rooms: dict[str, Scene]):
    from_opencv = torch.tensor([[0.0, 0, 1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    found = checked(with_cameras(rooms["published"], lambda one: from_opencv @ one))
    assert found.suspect and "Structured3D's files" in found.likely_cause


# Mirrored poses ---------------------------------------------------------------------------------------------


def test_a_mirrored_world_of_the_cameras_alone_is_named(rooms: dict[str, Scene]):
    found = checked(with_cameras(rooms["own"], lambda one: one @ MIRROR_X))
    assert found.suspect and "poses are mirrored" in found.likely_cause and found.mirrored


@pytest.mark.parametrize(("axis", "name"), [(0, "along x"), (1, "along y")])
def test_mirrored_camera_axes_are_named(walk: Scene, axis: int, name: str):
    flip = torch.eye(4)
    flip[axis, axis] = -1
    found = checked(with_cameras(walk, lambda one: flip @ one))
    assert found.suspect and f"mirrored {name}" in found.likely_cause


# Frame numbers used as list positions -----------------------------------------------------------------------


@pytest.mark.parametrize("skip", [2, 3, 4])
def test_pictures_exported_with_a_frame_skip_are_named(walk: Scene, skip: int):
    """Frame i got the i-th exported image, which is that of frame skip * i."""
    found = checked(with_pictures(walk, lambda index: skip * index, BOTH))
    assert (
        found.suspect and "list positions" in found.likely_cause and f"frame {skip} n" in found.likely_cause
    )


def test_poses_that_were_thinned_out_are_named(walk: Scene):
    found = checked(with_pictures(walk, lambda index: index // 3, BOTH))
    assert found.suspect and "list positions" in found.likely_cause and "frame 3 n" in found.likely_cause


@pytest.mark.parametrize("shift", [10, -10])
def test_pictures_out_of_step_with_poses_are_named(walk: Scene, shift: int):
    found = checked(with_pictures(walk, lambda index: index + shift, BOTH))
    assert found.suspect and f"pose n {shift:+d}" in found.likely_cause


def test_colours_of_other_frames_are_named(walk: Scene):
    found = checked(with_pictures(walk, lambda index: 3 * index, ("color_path",)))
    assert found.suspect and "colour is not that of depth" in found.likely_cause
    assert "list positions" in found.likely_cause


# Depth scale ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "cure"), [(4.0, "0.25"), (0.25, "4"), (0.2, "5"), (1000.0, "0.001")])
def test_a_wrong_depth_scale_is_named(walk: Scene, rooms: dict[str, Scene], factor: float, cure: str):
    for scene in (walk, rooms["own"]):
        frames = tuple(replace(one, depth_scale=one.depth_scale * factor) for one in scene.frames)
        found = checked(replace(scene, frames=frames))
        assert found.suspect and f"depth scale is wrong: multiply it by about {cure}" in found.likely_cause
