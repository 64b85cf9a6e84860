"""The reprojection check: exact images pass, every usual mistake is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ponderv2.checks.check import _Check, check_or_reason, check_scene
from ponderv2.checks.config import CheckConfig
from ponderv2.checks.frame_order import sample_frame
from ponderv2.geometry.reprojection import AS_STORED
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.scenes.scene import Scene
from ponderv2.store.store import SceneStore
from tests.scenes import box_room

SETTINGS = CheckConfig(n_pixels=400)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    root = tmp_path_factory.mktemp("store")
    store = SceneStore.create(root, DatasetInfo("box"))
    frames, points = [], []
    for index, shot in enumerate(box_room.shots()):
        depth = np.rint(shot.depth * 1000).astype(np.uint16)
        frames.append(DecodedFrame(str(index), box_room.K, shot.pose, shot.color, depth))
        points.append(points_of(shot, box_room.K))
    coord = np.concatenate(points).astype(np.float32)
    cloud = PreparedCloud(coord, np.zeros(coord.shape, np.uint8), np.ones_like(coord))
    store.write("train", "box", SceneStream.of(cloud, frames))
    return store.read("box")


def test_frames_of_two_sizes_have_their_colours_in_place(tmp_path: Path):
    store = SceneStore.create(tmp_path, DatasetInfo("box"))
    frames, points = [], []
    for index, pose in enumerate(box_room.poses(12)):
        size = 2 if index == 0 else 1
        intrinsics = (
            np.array([[size, 0, (size - 1) / 2], [0, size, (size - 1) / 2], [0, 0, 1.0]]) @ box_room.K
        )
        shot = box_room.shoot(pose, intrinsics, (size * box_room.WIDTH, size * box_room.HEIGHT))
        depth = np.rint(shot.depth * 1000).astype(np.uint16)
        frames.append(DecodedFrame(str(index), intrinsics, pose, shot.color, depth))
        points.append(points_of(shot, intrinsics))
    coord = np.concatenate(points).astype(np.float32)
    cloud = PreparedCloud(coord, np.zeros(coord.shape, np.uint8), np.ones_like(coord))
    store.write("train", "box", SceneStream.of(cloud, frames))
    found = check_scene(store.read("box"), SETTINGS)
    assert not found.suspect and found.likely_cause == "" and found.notes == ()
    assert found.contrast_correlation is not None and found.contrast_correlation > 0.5


def points_of(shot: box_room.Shot, intrinsics: np.ndarray) -> np.ndarray:
    row, column = np.mgrid[0 : shot.depth.shape[0], 0 : shot.depth.shape[1]]
    ray = np.stack([column, row, np.ones_like(row)], axis=-1) @ np.linalg.inv(intrinsics).T
    return (ray * shot.depth[..., None]).reshape(-1, 3) @ shot.pose[:3, :3].T + shot.pose[:3, 3]


def changed(
    scene: Scene,
    pose: Callable[[Tensor], Tensor] = lambda one: one,
    intrinsics: Callable[[Tensor], Tensor] = lambda one: one,
    scale: float = 1.0,
) -> Scene:
    frames = []
    for frame in scene.frames:
        camera = replace(
            frame.camera,
            world_to_camera=pose(frame.camera.world_to_camera),
            intrinsics=intrinsics(frame.camera.intrinsics),
        )
        frames.append(replace(frame, camera=camera, depth_scale=frame.depth_scale * scale))
    return replace(scene, frames=tuple(frames))


def diagonal(*values: float) -> Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float32))


def focal(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda intrinsics: intrinsics * torch.tensor([[factor, 1, 1], [1, factor, 1], [1, 1, 1]])


def test_exact_images_agree(scene: Scene):
    found = check_scene(scene, SETTINGS)
    assert not found.suspect and found.likely_cause == ""
    assert found.median_error is not None and found.median_error < 0.01
    assert found.inlier_share is not None and found.inlier_share > 0.95
    assert found.cloud_median_error is not None and found.cloud_median_error < 0.005
    assert found.color_correlation is not None and found.color_correlation > 0.95


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"pose": torch.linalg.inv}, "invert them"),
        ({"pose": lambda one: diagonal(1, -1, -1, 1) @ one}, "OpenGL"),
        ({"pose": lambda one: diagonal(-1, 1, 1, 1) @ one}, "mirrored along x"),
        ({"pose": lambda one: one @ diagonal(1, 1, -1, 1)}, "mirror image"),
        ({"scale": 2.0}, "multiply it by about 0.5"),
        ({"scale": 0.2}, "multiply it by about 5"),
        ({"scale": 5.0}, "multiply it by about 0.2"),
        ({"intrinsics": lambda one: diagonal(2, 2, 1) @ one}, "images of 2 times the size"),
    ],
)
def test_each_usual_mistake_is_named(scene: Scene, change: dict, cause: str):
    found = check_scene(changed(scene, **change), SETTINGS)
    assert found.suspect
    assert cause in found.likely_cause


@pytest.mark.parametrize("factor", [0.625, 0.9, 1.3])
def test_a_wrong_focal_length_is_named_with_its_factor(scene: Scene, factor: float):
    found = check_scene(changed(scene, intrinsics=focal(factor)), SETTINGS)
    assert found.suspect and "multiply the focal length by about" in found.likely_cause
    assert float(found.likely_cause.split("about ")[1].split()[0]) == pytest.approx(1 / factor, rel=0.03)


def test_a_cloud_that_was_shifted_alone_is_flagged_with_the_shift(scene: Scene):
    moved = replace(scene, cloud=replace(scene.cloud, coord=scene.cloud.coord + 5.0))
    found = check_scene(moved, SETTINGS)
    assert found.suspect and "shifted by (+5.00, +5.00, +5.00) m" in found.likely_cause


def test_a_cloud_that_no_motion_explains_is_flagged_as_that_of_another_frame(scene: Scene):
    """Feet in place of metres: no shift, turn or mirror lays it on what the cameras see."""
    feet = replace(scene, cloud=replace(scene.cloud, coord=scene.cloud.coord / 0.3048 + 5.0))
    found = check_scene(feet, SETTINGS)
    assert found.suspect and "another frame" in found.likely_cause


def test_frames_of_which_nothing_that_is_seen_again_agrees_are_suspect(scene: Scene):
    """Points on the surfaces that both frames claim do not vouch for two depths of one place."""
    one, other = scene.frames[0], replace(scene.frames[0], id="halved", depth_scale=0.0005)
    seen = [sample_frame(frame, 2000).world_points(AS_STORED, 2000) for frame in (one, other)]
    coord = torch.from_numpy(np.concatenate(seen)).float()
    cloud = replace(scene.cloud, coord=coord, color=torch.zeros_like(coord), normal=torch.ones_like(coord))
    examined = _Check(replace(scene, cloud=cloud), SETTINGS, [sample_frame(f, 400) for f in (one, other)])
    examined.base = replace(examined.base, tried=np.full(2, 50.0 * len(examined.base.error)))
    assert examined._points_decide() and examined.base.share_of_seen(0.05) == 0.0
    assert examined.cloud_share > 0.8
    assert examined.result().suspect


def test_one_frame_cannot_be_checked_and_is_not_suspect(scene: Scene):
    found = check_scene(replace(scene, frames=scene.frames[:1]), SETTINGS)
    assert not found.suspect and found.median_error is None and "fewer than two" in found.likely_cause


def test_an_unreadable_picture_is_the_reason(scene: Scene):
    broken = tuple(replace(frame, depth_path=Path("missing.png")) for frame in scene.frames)
    found = check_or_reason(replace(scene, frames=broken), SETTINGS)
    assert found.suspect and "missing.png" in found.likely_cause


def test_scenes_without_points_or_with_images_alone_are_checked_by_what_they_have(scene: Scene):
    bare = replace(scene, cloud=scene.cloud.take(torch.zeros(0, dtype=torch.long)))
    found, whole = check_scene(bare, SETTINGS), check_scene(scene, SETTINGS)
    assert found.inlier_share == whole.inlier_share and not found.suspect
    assert found.cloud_inlier_share is None and found.cloud_median_error is None
    images = tuple(replace(frame, depth_path=None) for frame in scene.frames)
    assert check_scene(replace(scene, frames=images), SETTINGS).likely_cause.startswith(
        "no frames with depth"
    )
    mixed = replace(scene, frames=(*images[:2], *scene.frames[2:]))
    assert check_scene(mixed, SETTINGS).n_frames == len(scene.frames) - 2
