"""Mistakes planted in sound recordings, exact and real: the check names each, and leaves the sound ones
alone.

What sound recordings reach (closeness of depth as it is; correlation of local contrast; rank of the image
gradient
at depth edges), which the thresholds of the check rest on:

| recording | closeness | contrast | edges |
|---|---|---|---|
| room with chequered walls, exact | 0.96 | 0.91 | - |
| walk through a box, smooth colours | 0.95 | 0.75 | 0.89 |
| generated rooms, four | 0.66 to 0.76 | 0.72 to 0.77 | 0.88 to 0.91 |
| kitchen (Kinect, colour not registered) | 0.92 | 0.55 | 0.77 |
| the same, registered | 0.91 | 0.73 | 0.85 |
| the same, 12 frames far apart | 0.82 | 0.60 | 0.83 |
| Redwood, 5 frames, little motion | 0.99 | 0.92 | 0.80 |

Wrong readings of depth and poses reach a closeness of 0.0 to 0.5, colour in a wrong place a contrast of
-0.03 to 0.13
(mirrored, turned), 0.03 to 0.4 (magnified by 1.33 or more), 0.3 (neighbouring frame, kitchen).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ponderv2.checks.check import check_scene
from ponderv2.checks.config import CheckConfig
from ponderv2.checks.diagnosis import motion_correlation
from ponderv2.checks.frame_order import sample_frame
from tests.checks import spoiled
from tests.checks.spoiled import Recording

SETTINGS = CheckConfig(n_pixels=500)
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
Mistake = Callable[[Recording], Recording]


@pytest.fixture(scope="module")
def room() -> Recording:
    return spoiled.room()


@pytest.fixture(scope="module")
def kitchen(request: pytest.FixtureRequest) -> Recording:
    folder: Path = request.config.getoption("--sample-data") / "rgbd_7scenes_redkitchen"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; choose a folder with --sample-data")
    return spoiled.kitchen(folder, range(0, 240, 4), shrink=4)


def focal(factor: float) -> Mistake:
    return spoiled.with_intrinsics(
        lambda intrinsics: intrinsics * np.array([[factor, 1, 1], [1, factor, 1], [1, 1, 1]])
    )


def text_order(given: Recording) -> Recording:
    order = sorted(range(len(given.ids)), key=str)
    return replace(given, poses=given.poses[order])


def flipped(given: Recording) -> Recording:
    return replace(given, depth=given.depth[:, :, ::-1], color=given.color[:, :, ::-1])


def upside_down(given: Recording) -> Recording:
    return replace(given, depth=given.depth[:, ::-1, ::-1], color=given.color[:, ::-1, ::-1])


def left_handed(pose: np.ndarray) -> np.ndarray:
    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    return mirror @ pose @ mirror


POSES: dict[str, tuple[Mistake, str]] = {
    "inverse": (spoiled.with_poses(np.linalg.inv), "world-to-camera: invert"),
    "opengl": (spoiled.with_poses(lambda one: one @ OPENGL), "OpenGL axes: negate"),
    "both": (spoiled.with_poses(lambda one: np.linalg.inv(one @ OPENGL)), "world-to-camera with OpenGL"),
    "transposed": (spoiled.with_poses(spoiled.rotation_transposed), "rotations are transposed"),
    "w first": (spoiled.with_poses(spoiled.quaternion_rolled([3, 0, 1, 2])), "w x y z were read as x y z w"),
    "w last": (spoiled.with_poses(spoiled.quaternion_rolled([1, 2, 3, 0])), "x y z w were read as w x y z"),
    "left-handed": (spoiled.with_poses(left_handed), "mirrored along y (a left-handed"),
    "millimetres": (
        spoiled.with_poses(spoiled.scaled_translation(1000)),
        "by about 0.001 (they are in millimetres)",
    ),
    "centimetres": (
        spoiled.with_poses(spoiled.scaled_translation(100)),
        "by about 0.01 (they are in centimetres)",
    ),
    "feet": (
        spoiled.with_poses(spoiled.scaled_translation(1 / 0.3048)),
        "by about 0.3048 (they are in feet)",
    ),
    "kilometres": (
        spoiled.with_poses(spoiled.scaled_translation(0.001)),
        "multiply translations by about 1000",
    ),
    "flipped images": (flipped, "mirrored along x"),
    "upside down": (upside_down, "images are upside down"),
    "text order": (text_order, "sorted as text"),
    "reversed": (lambda given: replace(given, poses=given.poses[::-1]), "opposite directions"),
    "one frame late": (spoiled.out_of_step("both", 1), "belongs to pose n +1"),
    "three frames early": (spoiled.out_of_step("both", -3), "belongs to pose n -3"),
}
DEPTH: dict[str, tuple[Mistake, str]] = {
    "along the ray": (spoiled.along_ray, "distances along the ray"),
    "rotated bits": (spoiled.with_depth(8.0), "about 0.125 (the bits of the depth are rotated by 3"),
    "PGM 4095": (spoiled.with_depth(65535 / 4095), "header gives 4095"),
    "256": (spoiled.with_depth(256.0), "multiply it by about 0.003906"),
    "1/256": (spoiled.with_depth(1 / 256), "multiply it by about 256"),
    "1000": (spoiled.with_depth(1000.0), "multiply it by about 0.001"),
    "5": (spoiled.with_depth(5.0), "multiply it by about 0.2 (the unit is 1/5000 m"),
    "1/5": (spoiled.with_depth(0.2), "multiply it by about 5"),
    "feet": (spoiled.with_depth(1 / 0.3048), "about 0.3048 (the unit is feet"),
    "inches": (spoiled.with_depth(1 / 0.0254), "about 0.0254 (the unit is inches"),
}
CAMERAS: dict[str, tuple[Mistake, str]] = {
    "aspect": (
        spoiled.with_intrinsics(lambda intrinsics: np.diag([1, 4 / 3, 1]) @ intrinsics),
        "fy and cy should be multiplied by about 0.75",
    ),
    "half": (
        spoiled.with_intrinsics(lambda intrinsics: np.diag([0.5, 0.5, 1]) @ intrinsics),
        "images of 0.5 times the size",
    ),
    "double": (
        spoiled.with_intrinsics(lambda intrinsics: np.diag([2.0, 2.0, 1]) @ intrinsics),
        "images of 2 times the size",
    ),
    "colour's": (focal(525 / 585), "multiply the focal length by about 1.1"),
    "middle": (
        spoiled.with_intrinsics(
            lambda intrinsics: intrinsics + np.array([[0, 0, intrinsics[0, 2] * 0.2], [0, 0, 0], [0, 0, 0]])
        ),
        "principal point",
    ),
}
COLOR: dict[str, tuple[Mistake, str]] = {
    "mirrored": (spoiled.with_color(lambda one: one[:, ::-1]), "mirrored left to right against depth"),
    "upside down": (spoiled.with_color(lambda one: one[::-1]), "mirrored upside down against depth"),
    "turned": (spoiled.with_color(lambda one: one[::-1, ::-1]), "turned by 180 degrees against depth"),
    "larger": (spoiled.with_color(spoiled.zoomed(1.6)), "magnified by about 1."),
    "smaller": (spoiled.with_color(spoiled.zoomed(0.7)), "magnified by about 0."),
    "shifted": (
        lambda given: spoiled.with_color(spoiled.moved(given.color.shape[2] // 10, 0))(given),
        "shifted by about (+",
    ),
    "next frame": (
        spoiled.out_of_step("color", 1),
        "colour is not that of depth and pose; images and poses are out of step",
    ),
    "frame before": (spoiled.out_of_step("color", -1), "image n belongs to pose n -1"),
    "three later": (spoiled.out_of_step("color", 3), "image n belongs to pose n +3"),
}
ALL = {
    f"{kind} {name}": one
    for kind, group in (("poses", POSES), ("depth", DEPTH), ("camera", CAMERAS), ("colour", COLOR))
    for name, one in group.items()
}
REAL = [
    "poses inverse", "poses transposed", "poses w first", "poses millimetres", "poses one frame late",
    "poses text order",
    "depth along the ray", "depth rotated bits", "depth PGM 4095", "depth 1/5",
    "camera aspect", "camera colour's",
    "colour mirrored", "colour turned", "colour larger", "colour next frame", "colour three later",
]  # fmt: skip


def test_sound_recordings_are_left_alone(room: Recording, kitchen: Recording):
    found = check_scene(room.scene(), SETTINGS)
    assert not found.suspect and found.likely_cause == "" and found.notes == (), found
    assert found.contrast_correlation is not None and found.contrast_correlation > 0.7
    found = check_scene(kitchen.scene(), SETTINGS)
    assert not found.suspect and found.likely_cause == "", found
    assert len(found.notes) == 1 and "magnified by about 0." in found.notes[0], found.notes


@pytest.mark.parametrize("name", ALL)
def test_each_mistake_in_an_exact_recording_is_named(room: Recording, name: str):
    mistake, words = ALL[name]
    found = check_scene(mistake(room).scene(), SETTINGS)
    assert found.suspect and words in found.likely_cause, found


@pytest.mark.parametrize("name", REAL)
def test_each_mistake_in_real_frames_is_named(kitchen: Recording, name: str):
    mistake, words = ALL[name]
    found = check_scene(mistake(kitchen).scene(), SETTINGS)
    assert found.suspect and words in found.likely_cause, found


def test_real_frames_with_noise_and_holes_are_left_alone(kitchen: Recording):
    noise = np.random.default_rng(0)
    spread = kitchen.depth + noise.normal(0, 0.01, kitchen.depth.shape) * kitchen.depth
    noisy = np.where((kitchen.depth > 0) & (noise.uniform(size=spread.shape) < 0.3), spread, 0.0)
    found = check_scene(replace(kitchen, depth=noisy).scene(), SETTINGS)
    assert not found.suspect, found


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_sound_frames_are_left_alone(room: Recording, kitchen: Recording, count: int):
    for given in (room, kitchen):
        found = check_scene(given.take(range(count)).scene(), SETTINGS)
        assert not found.suspect, found


def test_colour_without_contrast_is_no_evidence(room: Recording):
    plain = spoiled.with_color(lambda one: np.full_like(one, 120))(room)
    found = check_scene(plain.scene(), SETTINGS)
    assert not found.suspect and found.contrast_correlation is None
    assert any("not enough evidence (colour images without contrast)" in note for note in found.notes)


def test_depth_alone_is_checked_without_colour(room: Recording):
    def without(given: Recording) -> object:
        scene = given.scene()
        frames = tuple(replace(one, color_path=None) for one in scene.frames)
        return replace(scene, frames=frames)

    found = check_scene(without(room), SETTINGS)
    assert not found.suspect and found.color_correlation is None
    assert any("not enough evidence (no colour)" in note for note in found.notes)
    found = check_scene(without(spoiled.along_ray(room)), SETTINGS)
    assert found.suspect and "along the ray" in found.likely_cause


def test_a_camera_at_rest_is_no_evidence(room: Recording):
    still = room.take([3] * 6)
    still = replace(still, ids=tuple("abcdef"))
    found = check_scene(still.scene(), SETTINGS)
    assert not found.suspect
    assert any("hardly moves" in note for note in found.notes)


def test_one_pose_for_all_frames_is_named(room: Recording):
    found = check_scene(
        replace(room, poses=np.repeat(room.poses[:1], len(room.ids), axis=0)).scene(), SETTINGS
    )
    assert found.suspect and "all poses are the same" in found.likely_cause


def test_poses_of_another_recording_do_not_follow_the_images(room: Recording):
    def correlation(given: Recording) -> float:
        found = motion_correlation([sample_frame(one, 300) for one in given.scene().frames])
        assert found is not None
        return found

    mixed = np.random.default_rng(1).permutation(len(room.ids))
    assert correlation(room) > 0.5
    assert correlation(replace(room, poses=room.poses[mixed])) < 0.3


def test_readings_concern_the_poses_before_the_scene_was_turned_upright(room: Recording):
    """Inverse poses, turned and moved afterwards: the inverse is named only by who knows of the turn."""
    turn = np.eye(4)
    turn[:3, :3] = spoiled.Rotation.from_euler("xyz", [1.1, -0.4, 0.7]).as_matrix()
    turn[:3, 3] = (3.0, -2.0, 1.0)
    turned = spoiled.with_poses(lambda one: turn @ np.linalg.inv(one))(room).scene()
    assert "invert" not in check_scene(turned, SETTINGS).likely_cause
    assert "invert them" in check_scene(turned, SETTINGS, turn).likely_cause
