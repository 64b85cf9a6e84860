"""Cameras in files of NeRF tools: poses, fields of view and sizes against the written truth."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import project
from ponderv2.geometry.transforms import transform_points
from ponderv2.reconstruction.camera_files import read_cameras
from ponderv2.reconstruction.camera_paths import look_at
from ponderv2.scenes.scene import Frame, Scene
from tests.scenes.closed_form_room import write_store

OPENGL = np.diag([1.0, -1, -1, 1])
POSES = [look_at(np.array([1.0 + i, 0.5, 1.4]), np.array([2.0, 2.5, 0.8 + 0.1 * i])) for i in range(3)]


def assert_poses(views, poses=POSES, error: float = 1e-5) -> None:
    assert len(views) == len(poses)
    for view, pose in zip(views, poses, strict=True):
        assert np.abs(np.linalg.inv(view.camera.world_to_camera.double().numpy()) - pose).max() < error


def camera_path(**changes) -> dict:
    """As nerfstudio's viewer writes it."""
    cameras = [
        {"camera_to_world": (one @ OPENGL).ravel().tolist(), "fov": 60.0, "aspect": 4 / 3} for one in POSES
    ]
    values = {"default_fov": 75.0, "camera_type": "perspective", "render_height": 48, "render_width": 64}
    values |= {"fps": 24, "seconds": 2.0, "keyframes": [], "is_cycle": False, "crop": None}
    return values | {"camera_path": cameras} | changes


def transforms(scale: float = 1.0, applied: np.ndarray = np.eye(4), **changes) -> dict:
    frames = []
    for index, pose in enumerate(POSES):
        matrix = applied @ pose @ OPENGL
        matrix[:3, 3] *= scale
        frames.append({"file_path": f"images/{index:03d}.png", "transform_matrix": matrix.tolist()})
    values = {"fl_x": 60, "fl_y": 58, "cx": 32.5, "cy": 24, "w": 64, "h": 48, "frames": frames}
    return values | {"applied_scale": scale, "applied_transform": applied[:3].tolist()} | changes


def written(folder: Path, contents: dict, name: str = "path.json") -> Path:
    (folder / name).write_text(json.dumps(contents))
    return folder / name


def test_a_camera_path_of_nerfstudio_looks_where_it_did(tmp_path):
    read = read_cameras(written(tmp_path, camera_path()))
    assert_poses(read.views)
    assert read.frames_per_second == 24
    camera = read.views[0].camera
    assert (camera.width, camera.height) == (64, 48)
    # 60 degrees from the upper to the lower edge of the image, in its middle, and square pixels.
    half = math.tan(math.radians(30))
    edge = torch.tensor([[0.0, half, 1.0], [half, 0.0, 1.0]])
    pixel = project(edge, camera.intrinsics[None])[0]
    assert pixel[0].tolist() == pytest.approx([31.5, 47.5], abs=1e-4)
    assert pixel[1, 0].item() - 31.5 == pytest.approx(24.0, abs=1e-4)


def test_seconds_give_the_speed_where_no_fps_is_written(tmp_path):
    assert read_cameras(written(tmp_path, camera_path(fps=None))).frames_per_second == pytest.approx(1.5)
    assert read_cameras(written(tmp_path, camera_path(fps=0, seconds="x"))).frames_per_second is None


def test_each_camera_has_its_own_field_of_view_or_the_default(tmp_path):
    contents = camera_path()
    contents["camera_path"][1]["fov"] = 90
    focal = [v.camera.intrinsics[1, 1].item() for v in read_cameras(written(tmp_path, contents)).views]
    assert focal == pytest.approx([24 / math.tan(math.radians(30)), 24.0, 24 / math.tan(math.radians(30))])


def test_matrices_in_rows_and_with_a_mark_are_read_too(tmp_path):
    contents = camera_path()
    for one, pose in zip(contents["camera_path"], POSES, strict=True):
        one["camera_to_world"] = (pose @ OPENGL)[:3].tolist()
    (tmp_path / "path.json").write_text(json.dumps(contents), encoding="utf-8-sig")
    assert_poses(read_cameras(tmp_path / "path.json").views)


def test_the_frame_of_nerfstudios_model_is_undone_by_the_file_beside(tmp_path):
    turn = np.eye(4)
    turn[:3, :3] = look_at(np.zeros(3), np.array([0.3, 1.0, 0.2]))[:3, :3]
    turn[:3, 3] = 0.5, -1.0, 0.25
    contents = camera_path()
    for one, pose in zip(contents["camera_path"], POSES, strict=True):
        matrix = turn @ pose @ OPENGL
        matrix[:3, 3] *= 0.3
        one["camera_to_world"] = matrix.ravel().tolist()
    written(tmp_path, {"transform": turn[:3].tolist(), "scale": 0.3}, "dataparser_transforms.json")
    assert_poses(read_cameras(written(tmp_path, contents)).views)


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_transforms_are_read_with_what_was_applied_undone(tmp_path, scale):
    applied = np.array([[1.0, 0, 0, 0.2], [0, 0, 1, 0], [0, -1, 0, -0.4], [0, 0, 0, 1]])
    read = read_cameras(written(tmp_path, transforms(scale, applied)))
    assert_poses(read.views)
    assert [view.name for view in read.views] == ["000", "001", "002"]
    assert np.allclose(read.views[0].camera.intrinsics, [[60, 0, 32], [0, 58, 23.5], [0, 0, 1]])
    assert any("taken as they are" in note for note in read.notes)


def frames_of(scene: Scene, poses, prefix: str) -> list[Frame]:
    """The scene's frames, with other names and poses."""
    made = []
    for index, pose in enumerate(poses):
        camera = replace(
            scene.frames[0].camera, world_to_camera=torch.from_numpy(np.linalg.inv(pose)).float()
        )
        made.append(replace(scene.frames[0], id=f"{prefix}{index:03d}", camera=camera))
    return made


def test_cameras_of_the_recording_are_moved_to_where_its_scene_is(tmp_path):
    scene = write_store(tmp_path / "store", n_scenes=1).read("room0")
    to_scene = np.eye(4)
    to_scene[:3, :3] = look_at(np.zeros(3), np.array([1.0, 0.4, -0.3]))[:3, :3]
    to_scene[:3, 3] = 3.0, -2.0, 0.5
    moved = [to_scene @ pose for pose in POSES]
    for prefix in ("", "000007_"):
        read = read_cameras(written(tmp_path, transforms()), frames_of(scene, moved, prefix))
        assert_poses(read.views, moved, 1e-4)
        assert any("moved into the frame of the scene, by 3 frames" in note for note in read.notes)
    others = [*moved[:2], np.linalg.inv(moved[2])]
    read = read_cameras(written(tmp_path, transforms()), frames_of(scene, others, ""))
    assert_poses(read.views)
    assert any("other poses" in note for note in read.notes)


def test_cameras_of_a_recording_far_from_zero_are_moved_as_exactly(tmp_path):
    scene = write_store(tmp_path / "store", n_scenes=1).read("room0")
    to_scene, away = np.eye(4), np.eye(4)
    to_scene[:3, :3] = look_at(np.zeros(3), np.array([1.0, 0.4, -0.3]))[:3, :3]
    away[:3, 3] = 500_000.0, 5_400_000.0, 300.0
    contents = transforms(applied=away)
    contents.pop("applied_transform")
    moved = [to_scene @ pose for pose in POSES]
    assert_poses(read_cameras(written(tmp_path, contents), frames_of(scene, moved, "")).views, moved)
    others = [*moved[:2], np.linalg.inv(moved[2])]
    read = read_cameras(written(tmp_path, contents), frames_of(scene, others, ""))
    assert any("other poses" in note for note in read.notes)


def test_images_of_one_name_are_told_apart(tmp_path):
    contents = transforms()
    for index, one in enumerate(contents["frames"]):
        one["file_path"] = f"camera{index}\\0001.png"
    names = [view.name for view in read_cameras(written(tmp_path, contents)).views]
    assert names == ["0000_0001", "0001_0001", "0002_0001"]


def test_a_point_is_seen_by_a_camera_of_transforms_where_the_image_shows_it(tmp_path):
    view = read_cameras(written(tmp_path, transforms())).views[1]
    target = torch.tensor([[2.0, 2.5, 0.9]])
    pixel, depth = project(transform_points(view.camera.world_to_camera, target), view.camera.intrinsics)
    assert pixel[0].tolist() == pytest.approx([32.0, 23.5], abs=1e-3)
    assert depth.item() == pytest.approx(
        float(np.linalg.norm(np.array([2, 2.5, 0.9]) - POSES[1][:3, 3])), abs=1e-4
    )


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (camera_path(camera_path=[], keyframes=[{}, {}]), "only 2 keyframes"),
        (camera_path(camera_type="equirectangular"), "equirectangular"),
        (camera_path(camera_type="fisheye"), "fisheye"),
        ({key: v for key, v in camera_path().items() if key != "render_width"}, "'render_width' is missing"),
        (camera_path(camera_path=[{"camera_to_world": [1, 2, 3], "fov": 60}]), "shape"),
        (
            camera_path(camera_path=[{"camera_to_world": np.eye(4).ravel().tolist(), "fov": 180}]),
            "180 degrees",
        ),
        (transforms(is_fisheye=True), "fisheye"),
        (transforms(applied_scale=0), "positive"),
        ({key: v for key, v in transforms().items() if key != "w"}, r"images.000\.png is not there"),
        ({"frames": [{"transform_matrix": np.zeros((4, 4)).tolist()}], "w": 4, "h": 4, "fl_x": 3}, "frame 0"),
        ({"frames": "none"}, "not a list"),
        ([1, 2], "no JSON object"),
    ],
)
def test_what_cannot_be_rendered_is_said(tmp_path, contents, reason):
    with pytest.raises(SceneError, match=reason):
        read_cameras(written(tmp_path, contents))
