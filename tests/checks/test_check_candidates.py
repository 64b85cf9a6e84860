"""The way to read a list of poses is decided by depth: the right one wins, and ties are said to be ties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from ponderv2.geometry.pose_candidates import Candidate, DepthImage, decide, spread_frames
from tests.scenes import box_room

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
RIGHT = "x y z w, camera-to-world, metres, OpenCV"


def readings_of_list(poses: np.ndarray) -> list[Candidate]:
    """All ways to read a list whose truth is RIGHT: order of the quaternion, unit, direction, axes."""
    quaternion = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    found = []
    for order, columns in (("x y z w", [0, 1, 2, 3]), ("w x y z", [1, 2, 3, 0])):
        for unit, factor in (("metres", 1.0), ("millimetres", 0.001)):
            matrix = np.tile(np.eye(4), (len(poses), 1, 1))
            matrix[:, :3, :3] = Rotation.from_quat(quaternion[:, columns]).as_matrix()
            matrix[:, :3, 3] = factor * poses[:, :3, 3]
            for direction in ("camera-to-world", "world-to-camera"):
                turned = matrix if direction == "camera-to-world" else np.linalg.inv(matrix)
                for axes, change in (("OpenCV", np.eye(4)), ("OpenGL", OPENGL)):
                    found.append(Candidate(f"{order}, {direction}, {unit}, {axes}", turned @ change))
    return found


def room(count: int = 8) -> tuple[list[DepthImage], np.ndarray]:
    shots = box_room.shots(count)
    return [DepthImage(one.depth, box_room.K) for one in shots], np.stack([one.pose for one in shots])


def test_the_right_reading_of_a_pose_list_is_clear():
    images, poses = room()
    found = decide(images, readings_of_list(poses))
    assert found.clear and found.best == RIGHT and found.reason == ""
    assert found.scores[0][1] > 0.9 > 0.6 > found.scores[1][1]


def test_noise_and_missing_depth_do_not_change_the_answer():
    images, poses = room()
    noise = np.random.default_rng(0)
    noisy = [DepthImage(one.depth + noise.normal(0, 0.02, one.depth.shape), one.intrinsics) for one in images]
    sparse = [
        DepthImage(np.where(noise.uniform(size=one.depth.shape) < 0.08, one.depth, 0.0), one.intrinsics)
        for one in images
    ]
    for those in (noisy, sparse):
        found = decide(those, readings_of_list(poses))
        assert found.clear and found.best == RIGHT, found


def test_a_depth_factor_belongs_to_the_candidate():
    images, poses = room()
    images = [DepthImage(one.depth * 5.0, one.intrinsics) for one in images]
    found = decide(images, [Candidate("1", poses), Candidate("1/5", poses, depth_factor=0.2)])
    assert found.clear and found.best == "1/5"


def test_equal_candidates_are_not_clear_and_both_are_named():
    images, poses = room()
    moved = np.linalg.inv(box_room.look((1, 2, 1), (0, 0, 0))) @ poses
    found = decide(images, [Candidate("as it is", poses), Candidate("another world", moved)])
    assert not found.clear and "as it is" in found.reason and "another world" in found.reason


def test_a_camera_that_does_not_move_decides_nothing():
    images, poses = room()
    images, poses = [images[0]] * 6, np.tile(poses[:1], (6, 1, 1))
    found = decide(images, readings_of_list(poses))
    assert not found.clear and "does not move" in found.reason


def test_without_the_right_candidate_nothing_is_clear():
    images, poses = room()
    wrong = [one for one in readings_of_list(poses) if one.name != RIGHT]
    found = decide(images, wrong)
    assert not found.clear and "under none" in found.reason


def test_few_frames_and_wrong_counts_are_said():
    images, poses = room()
    assert "fewer than two" in decide(images[:1], [Candidate("one", poses[:1])]).reason
    with pytest.raises(ValueError, match=r"\(7, 4, 4\)"):
        decide(images[:7], [Candidate("one", poses)])


def test_poses_that_are_not_finite_are_left_out():
    images, poses = room()
    poses = poses.copy()
    poses[3] = np.nan
    found = decide(images, [Candidate("right", poses), Candidate("inverse", np.linalg.inv(poses))])
    assert found.clear and found.best == "right"


@pytest.mark.parametrize("count", [1, 24, 25, 150, 1000])
def test_chosen_frames_are_in_order_and_neighbours(count: int):
    chosen = spread_frames(count)
    assert chosen == sorted(set(chosen)) and len(chosen) == min(count, 24) and chosen[-1] < count
    if count > 1:
        assert np.median(np.diff(chosen)) <= 3


def test_real_frames_of_a_kitchen_decide(sample_data: Path):
    folder = sample_data / "rgbd_7scenes_redkitchen"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; choose a folder with --sample-data")
    ids = [4 * index for index in spread_frames(150, 8)]
    intrinsics = np.array([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]])
    images = []
    for one in ids:
        depth = np.asarray(Image.open(folder / f"frame-{one:06d}.depth.png")).astype(np.float64) / 1000
        images.append(DepthImage(np.where(depth < 60, depth, 0.0), intrinsics))
    poses = np.stack([np.loadtxt(folder / f"frame-{one:06d}.pose.txt") for one in ids])
    found = decide(images, readings_of_list(poses))
    assert found.clear and found.best == RIGHT, found
