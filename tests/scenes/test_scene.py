"""Scenes of every kind: what moves with them, and that nothing is required."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.cameras import Camera, project
from ponderv2.geometry.transforms import (
    flip_matrix,
    rotation_matrix,
    scale_matrix,
    scale_of,
    transform_points,
    translation_matrix,
)
from ponderv2.scenes.scene import Frame, PointCloud, Scene, Sweep, evenly_spread

N_POINTS = 300


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Points with everything, two cameras, two sweeps and five boxes."""
    rng = torch.Generator().manual_seed(3)
    cloud = PointCloud(
        coord=torch.rand(N_POINTS, 3, generator=rng) * torch.tensor([8.0, 6.0, 3.0]),
        color=torch.rand(N_POINTS, 3, generator=rng) * 255.0,
        normal=torch.nn.functional.normalize(torch.randn(N_POINTS, 3, generator=rng), dim=1),
        labels={"segment": torch.randint(-1, 5, (N_POINTS,), generator=rng)},
        fields={"intensity": torch.rand(N_POINTS, generator=rng), "ring": torch.arange(N_POINTS)},
    )
    intrinsics = torch.tensor([[50.0, 0, 40], [0, 55, 30], [0, 0, 1]])
    frames, sweeps = [], []
    for number, angle in enumerate((0.4, 2.1)):
        pose = translation_matrix(torch.tensor([-1.0, -2.0, 9.0])) @ rotation_matrix(angle, "x")
        frames.append(Frame(str(number), Camera(intrinsics, pose.float(), 80, 60), time=0.1 * number))
        path = tmp_path / f"sweep{number}.npz"
        distance = torch.rand(50, 3, generator=rng) * 20.0
        np.savez(path, coord=distance.numpy(), intensity=torch.rand(50, generator=rng).numpy())
        sweeps.append(Sweep(str(number), "lidar", pose, path, time=0.2 * number))
    boxes = Boxes(
        center=torch.rand(5, 3, generator=rng) * torch.tensor([8.0, 6.0, 3.0]),
        size=torch.rand(5, 3, generator=rng) * 3.0 + 1.0,
        yaw=torch.rand(5, generator=rng) * 6.0,
        velocity=torch.randn(5, 3, generator=rng),
        category=torch.arange(5),
        instance=torch.arange(5),
    )
    return Scene("street", cloud, tuple(frames), tuple(sweeps), boxes)


def upright_motion(seed: int) -> Tensor:
    """A random similarity that keeps the vertical, every other time a mirror image."""
    rng = torch.Generator().manual_seed(seed)
    angle, factor = torch.rand(2, generator=rng).tolist()
    mirror = flip_matrix(bool(seed & 1), bool(seed & 2))
    shift = translation_matrix(torch.randn(3, generator=rng) * 5.0)
    return shift @ scale_matrix(0.4 + 2.0 * factor) @ mirror @ rotation_matrix(angle * 6.0, "z")


def pixels(scene: Scene) -> list[Tensor]:
    """Where every camera has every point, and its depth in metres."""
    found = []
    for frame in scene.frames:
        in_camera = transform_points(frame.camera.world_to_camera.double(), scene.cloud.coord.double())
        pixel, depth = project(in_camera, frame.camera.intrinsics.double())
        found.append(torch.cat([pixel, depth[:, None]], dim=1))
    return found


def distances(scene: Scene) -> Tensor:
    """Of every point from every sensor of a sweep, in its own metres."""
    coord = scene.cloud.coord.double()
    return torch.stack([transform_points(one.world_to_sensor, coord).norm(dim=1) for one in scene.sweeps])


@pytest.mark.parametrize("seed", range(12))
def test_a_moved_scene_has_the_same_images_distances_and_box_contents(scene: Scene, seed: int) -> None:
    transform = upright_motion(seed)
    moved = scene.moved(transform)
    assert moved.boxes is not None and scene.boxes is not None
    assert not torch.allclose(moved.cloud.coord, scene.cloud.coord, atol=0.1)
    for after, before in zip(pixels(moved), pixels(scene), strict=True):
        torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(distances(moved), distances(scene), atol=1e-4, rtol=0)
    inside = scene.boxes.contains(scene.cloud.coord)
    assert inside.sum() > 5 and torch.equal(moved.boxes.contains(moved.cloud.coord), inside)
    assert moved.units_per_metre == pytest.approx(scale_of(transform))
    for after, before in zip(moved.sweeps, scene.sweeps, strict=True):
        assert torch.equal(after.read().coord, before.read().coord)
        expected = transform_points(transform, before.read_in_world().coord.double())
        torch.testing.assert_close(after.read_in_world().coord.double(), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_without_boxes_a_scene_may_be_tilted(scene: Scene, axis) -> None:
    tilt = rotation_matrix(0.2, axis)
    with pytest.raises(ValueError, match="about z only"):
        scene.moved(tilt)
    moved = replace(scene, boxes=None).moved(tilt)
    for after, before in zip(pixels(moved), pixels(scene), strict=True):
        torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(distances(moved), distances(scene), atol=1e-4, rtol=0)


def test_motions_turn_normals_and_leave_fields_alone(scene: Scene) -> None:
    transform = upright_motion(5)
    moved = scene.moved(transform).cloud
    assert moved.normal is not None and scene.cloud.normal is not None
    torch.testing.assert_close(moved.normal.norm(dim=1), torch.ones(N_POINTS))
    ahead = transform_points(transform, (scene.cloud.coord + scene.cloud.normal).double())
    expected = (ahead - moved.coord.double()) / scale_of(transform)
    torch.testing.assert_close(moved.normal.double(), expected, atol=1e-5, rtol=0)
    assert moved.fields == scene.cloud.fields and moved.labels == scene.cloud.labels


@pytest.mark.parametrize("mask", [False, True])
def test_taking_points_takes_every_field(scene: Scene, mask: bool) -> None:
    index = torch.arange(N_POINTS) % 3 == 0 if mask else torch.tensor([7, 3, 200])
    chosen = scene.take(index).cloud
    assert chosen.arrays.keys() == scene.cloud.arrays.keys()
    assert len(chosen.arrays) == 6  # a field that is added must be sub-sampled too
    for name, values in chosen.arrays.items():
        assert torch.equal(values, scene.cloud.arrays[name][index])
    assert chosen.n_bytes < scene.cloud.n_bytes < scene.n_bytes


def test_images_alone_are_a_scene(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 6, 3), 77, np.uint8)).save(tmp_path / "0.png")
    camera = Camera(torch.eye(3), torch.eye(4), 6, 4)
    frame = Frame("0", camera, color_path=tmp_path / "0.png", sensor="front", time=3.5)
    scene = Scene("folder", PointCloud.empty(), (frame,)).moved(upright_motion(1))
    assert len(scene.cloud) == 0 and scene.boxes is None and not scene.only_depth
    assert (scene.frames[0].read_color() == 77).all() and not scene.frames[0].has_depth
    assert scene.frames[0].time == 3.5 and bool(scene.frames[0].read_visible().all())
    with pytest.raises(SceneError, match="no depth image"):
        scene.frames[0].read_depth()


def test_depth_alone_is_a_scene(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 6), 1500, np.uint16)).save(tmp_path / "0.png")
    frame = Frame("0", Camera(torch.eye(3), torch.eye(4), 6, 4), depth_path=tmp_path / "0.png")
    scene = Scene("scan", PointCloud(torch.rand(9, 3)), (frame,))
    assert scene.only_depth and scene.frames[0].read_depth().unique().tolist() == pytest.approx([1.5])
    assert scene.take(torch.arange(4)).moved(upright_motion(2)).cloud.color is None
    with pytest.raises(SceneError, match="no colour image"):
        frame.read_color()


def test_a_damaged_sweep_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.npz"
    path.write_bytes(b"PK\x03\x04")
    sweep = Sweep("0", "lidar", torch.eye(4), path)
    with pytest.raises(SceneError, match=r"cut\.npz"):
        sweep.read()
    np.savez(path, coord=np.zeros((5, 3), np.float32), time=np.zeros(4))
    with pytest.raises(SceneError, match="differ in length"):
        sweep.read()


def test_evenly_spread_frames_are_in_the_middle_of_equal_parts() -> None:
    camera = Camera(torch.eye(3), torch.eye(4), 2, 2)
    frames = tuple(Frame(str(i), camera) for i in range(12))
    assert [frame.id for frame in evenly_spread(frames, 3)] == ["2", "6", "10"]
    assert evenly_spread(frames, 12) == evenly_spread(frames, 50) == frames
