"""The check of drives on a street of pillars: what is right stays unsuspected, each mistake is named."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ponderv2.checks.check import check_scene
from ponderv2.checks.drive import check_drive, check_key_frame
from ponderv2.checks.lidar_pictures import picture
from ponderv2.checks.object_boxes import check_boxes
from ponderv2.checks.silhouettes import silhouettes
from ponderv2.geometry.boxes import Boxes
from ponderv2.scenes.scene import PointCloud, Scene, Sweep
from tests.checks.pillar_street import OPTICAL, SENSORS, Street, key_frame, with_images_of, with_poses


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> list[Scene]:
    folder = tmp_path_factory.mktemp("street")
    return [key_frame(folder, number) for number in range(3)]


def turned(axis: str, degrees: float) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
    return pose


def test_silhouettes_lie_on_the_sides_of_pillars(drive: list[Scene]) -> None:
    street = Street()
    edges = silhouettes(drive[0].cloud.coord.double().numpy())
    bearing = np.degrees(np.arctan2(edges[:, 1], edges[:, 0]))
    away = np.linalg.norm(street.center, axis=1)
    middle = np.degrees(np.arctan2(street.center[:, 1], street.center[:, 0]))
    half = np.degrees(np.arcsin(np.minimum(street.radius / away, 1.0)))
    sides = np.concatenate([middle - half, middle + half])
    apart = np.abs((bearing[:, None] - sides + 180.0) % 360.0 - 180.0).min(axis=1)
    assert len(edges) > 100
    assert np.median(apart) < 0.25 and np.mean(apart < 0.5) > 0.9


def test_a_sound_drive_is_confirmed(drive: list[Scene]) -> None:
    found = check_drive(drive)
    assert not found.cause
    assert all(camera.sound for camera in found.cameras) and len(found.cameras) == len(SENSORS)
    for scene in drive:
        single = check_scene(scene)
        assert not single.suspect and single.lidar is not None
        assert set(single.lidar.hits) == set(SENSORS) and min(single.lidar.hits.values()) > 500


def test_a_scene_that_was_shifted_is_checked_in_the_frame_of_its_lidar(drive: list[Scene]) -> None:
    away = torch.eye(4)
    away[:3, 3] = torch.tensor([40.0, -30.0, 5.0])
    found, shifted = check_key_frame(drive[0]), check_key_frame(drive[0].moved(away))
    assert shifted.hits.keys() == found.hits.keys() and not shifted.cause
    assert all(abs(shifted.hits[name] - count) <= 2 for name, count in found.hits.items())


def test_two_exchanged_cameras_are_named(drive: list[Scene]) -> None:
    wrong = [with_images_of(scene, {"front": "left", "left": "front"}) for scene in drive]
    assert check_drive(wrong).cause == "front and left are exchanged"


@pytest.mark.parametrize("degrees", [5.0, -3.0])
def test_a_turned_camera_is_named_with_its_angle(drive: list[Scene], degrees: float) -> None:
    def change(name: str, pose: np.ndarray) -> np.ndarray:
        return turned("y", degrees) @ pose if name == "back" else pose

    side = "right" if degrees > 0 else "left"
    cause = check_drive([with_poses(scene, change) for scene in drive]).cause
    assert cause == f"back: its extrinsics are turned by about {abs(degrees):g} degrees to the {side}"


def test_a_turned_lidar_is_told_from_turned_cameras(drive: list[Scene]) -> None:
    wrong = [with_poses(scene, lambda name, pose: pose @ turned("z", 4.0)) for scene in drive]
    assert check_drive(wrong).cause.startswith("the LiDAR is turned against all cameras")


def test_poses_in_the_axes_of_a_vehicle_are_named(drive: list[Scene]) -> None:
    axes = np.eye(4)
    axes[:3, :3] = OPTICAL
    wrong = [with_poses(scene, lambda name, pose: axes @ pose) for scene in drive]
    cause = check_drive(wrong).cause
    assert "axes are those of a vehicle" in cause and all(name in cause for name in SENSORS)


def test_inverted_extrinsics_are_named(drive: list[Scene]) -> None:
    wrong = with_poses(drive[0], lambda name, pose: np.linalg.inv(pose) if name == "front" else pose)
    assert check_key_frame(wrong).cause.startswith("front: its extrinsics are inverted")


def test_intrinsics_of_another_image_size_are_named(drive: list[Scene]) -> None:
    def change(scene: Scene) -> Scene:
        first = scene.frames[0]
        larger = torch.diag(torch.tensor([1.25, 1.25, 1.0])) @ first.camera.intrinsics
        camera = replace(first.camera, intrinsics=larger)
        return replace(scene, frames=(replace(first, camera=camera), *scene.frames[1:]))

    cause = check_drive([change(scene) for scene in drive]).cause
    assert cause == "front: its intrinsics are those of images of about 400 x 225 pixels"


def test_images_without_contrast_are_not_held_against_the_calibration(drive: list[Scene]) -> None:
    far = [replace(scene, cloud=PointCloud(scene.cloud.coord[:50])) for scene in drive]
    found = check_drive(far)
    assert not found.cause and not any(camera.sound for camera in found.cameras)
    assert "too little to see" in found.notes[0]


def test_a_camera_of_another_place_and_one_without_points_are_reported(drive: list[Scene]) -> None:
    away = np.eye(4)
    away[:3, 3] = 500.0
    far = with_poses(drive[0], lambda name, pose: pose @ away if name == "left" else pose)
    assert check_key_frame(far).cause.startswith("left: too far from the LiDAR")
    behind = drive[0].take(drive[0].cloud.coord[:, 0] < -5.0)
    assert "no point of the LiDAR is in the image of front" in check_key_frame(behind).notes


def test_late_images_and_gaps_between_sweeps_are_reported(drive: list[Scene]) -> None:
    scene = drive[0]
    late = replace(scene.frames[0], time=0.35)
    times = (0.0, -0.05, -0.1, -0.15, -0.5)
    sweeps = tuple(replace(scene.sweeps[0], id=str(time), time=time) for time in times)
    notes = check_key_frame(replace(scene, frames=(late, *scene.frames[1:]), sweeps=sweeps)).notes
    assert "the image of front is 0.35 s from the scan" in notes
    assert "sweeps are 0.05 s apart, but once 0.35 s" in notes


def test_motion_of_the_vehicle_that_is_inverted_or_taken_out_already_is_named(drive: list[Scene]) -> None:
    scene = drive[0]
    own, before = scene.sweeps

    def cause(sweep: Sweep) -> str:
        return check_key_frame(replace(scene, sweeps=(own, sweep))).cause

    assert not cause(before)
    inverted = replace(before, world_to_sensor=torch.linalg.inv(before.world_to_sensor))
    assert (
        "motion of the vehicle is inverted" in check_key_frame(replace(scene, sweeps=(own, inverted))).cause
    )
    joined = replace(before, path=own.path)
    assert "without the motion" in check_key_frame(replace(scene, sweeps=(own, joined))).cause
    jump = before.world_to_sensor.clone()
    jump[0, 3] = 90.0
    assert "farther apart than any vehicle" in cause(replace(before, world_to_sensor=jump))


def boxes_with_points() -> tuple[torch.Tensor, Boxes]:
    """Cars full of points at known places; each point is in one box."""
    generator = torch.Generator().manual_seed(0)
    n = 6
    yaw = torch.tensor([0.3, 1.0, -2.0, 1.4, 0.2, -1.3])
    center = torch.stack(
        [torch.arange(n) * 12.0 - 30.0, torch.full((n,), 9.0), torch.full((n,), -0.9)], dim=1
    )
    size = torch.tensor([4.6, 1.9, 1.7]).expand(n, 3).clone()
    counts = torch.arange(n) * 10 + 20
    inside = []
    for index in range(n):
        local = (torch.rand(int(counts[index]), 3, generator=generator) - 0.5) * size[index] * 0.98
        cosine, sine = math.cos(float(yaw[index])), math.sin(float(yaw[index]))
        turn = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        inside.append(local @ turn.T + center[index])
    velocity = torch.stack([torch.cos(yaw), torch.sin(yaw), torch.zeros(n)], dim=1) * 5.0
    numbers = torch.arange(n)
    boxes = Boxes(center, size, yaw, velocity, torch.zeros(n, dtype=torch.long), numbers, {"n_lidar": counts})
    return torch.cat(inside), boxes


def test_boxes_that_hold_their_points_agree_exactly() -> None:
    points, boxes = boxes_with_points()
    found = check_boxes([(points, boxes)])
    assert found.share == 1.0 and not found.cause and found.inside == found.counted == len(points)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda one: replace(one, size=one.size[:, [1, 0, 2]]), "length and width are exchanged"),
        (lambda one: replace(one, yaw=one.yaw + math.pi / 2), "yaws are off by 90 degrees"),
        (lambda one: replace(one, yaw=-one.yaw), "yaws turn the other way round"),
        (lambda one: replace(one, yaw=-one.yaw - math.pi / 2), "from another axis"),
        (lambda one: replace(one, center=one.center - one.size * torch.tensor([0, 0, 0.5])), "at the bottom"),
        (lambda one: replace(one, yaw=one.yaw + math.pi), "off by 180 degrees"),
        (lambda one: replace(one, center=one.center + 7.0), "other poses, or another scan"),
    ],
)
def test_mistaken_boxes_are_named(change, cause: str) -> None:
    points, boxes = boxes_with_points()
    assert cause in check_boxes([(points, change(boxes))]).cause


def test_boxes_without_counts_are_judged_by_the_space_around_them() -> None:
    points, boxes = boxes_with_points()
    bare = replace(boxes, fields={})
    assert not check_boxes([(points, bare)]).cause
    assert "90 degrees" in check_boxes([(points, replace(bare, yaw=bare.yaw + math.pi / 2))]).cause


def test_thinned_scans_are_no_fault_of_the_boxes() -> None:
    points, boxes = boxes_with_points()
    found = check_boxes([(points[::4], boxes)])
    assert not found.cause and "25%" in found.note


def test_the_picture_shows_points_where_they_project(drive: list[Scene]) -> None:
    shown = picture(drive[0])
    colored = (shown.max(axis=2).astype(int) - shown.min(axis=2)) > 60
    assert shown.shape[1] == 3 * 640 and shown.dtype == np.uint8
    assert colored[24 : 24 + 360].mean() > 0.01
    blank = picture(replace(drive[0], cloud=PointCloud.empty()))
    assert ((blank.max(axis=2).astype(int) - blank.min(axis=2)) > 60).mean() < 1e-3
