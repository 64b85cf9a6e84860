"""Poses of key frames against closed forms, and boxes that go from the world into a tilted frame and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.datasets.nuscenes.world_boxes import KeyTruth, boxes_in_world, key_poses, key_truths
from ponderv2.errors import SceneError
from tests.datasets.drives.crowded_drives import in_scene, write_crowd
from tests.datasets.drives.nuscenes_drives import SAMPLE, START, ego_pose, sensor_pose


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> NuscenesConfig:
    return write_crowd(tmp_path_factory.mktemp("crowd") / "data", 5, per_class=4, n_samples=3)


@pytest.fixture(scope="module")
def truth(config: NuscenesConfig) -> KeyTruth:
    return next(iter(key_truths(config, "mini_val").values()))


def test_poses_are_those_of_the_vehicle_and_its_lidar(config: NuscenesConfig) -> None:
    poses = key_poses(config, "mini_val")
    assert list(poses) == list(open_folder(config.path).names("mini_val"))
    for name, pose in poses.items():
        when = START + SAMPLE * int(name.split("/")[1][:3])
        assert name.endswith(pose.token)
        np.testing.assert_allclose(pose.ego_to_world.numpy(), ego_pose(when), atol=1e-9)
        expected = ego_pose(when) @ sensor_pose("LIDAR_TOP")
        np.testing.assert_allclose(pose.scene_to_world.numpy(), expected, atol=1e-9)


def test_every_key_frame_has_its_pose_where_only_some_are_trained_with(config: NuscenesConfig) -> None:
    fewer = config.model_copy(update={"every": 2})
    assert key_poses(fewer, "mini_val").keys() == key_poses(config, "mini_val").keys()


def test_upright_boxes_come_back_from_the_tilted_frame(truth: KeyTruth) -> None:
    scene = in_scene(truth.boxes, truth)
    tilt = float(truth.pose.scene_to_world[2, :2].norm())
    assert tilt > 0.01 and float((scene.velocity[:, 2]).nan_to_num().abs().max()) > 0.01
    for velocity in (scene.velocity, scene.velocity * torch.tensor([1.0, 1.0, 0.0])):
        back = boxes_in_world(replace(scene, velocity=velocity), truth.pose.scene_to_world)
        torch.testing.assert_close(back.center, truth.boxes.center)
        torch.testing.assert_close(torch.sin(back.yaw - truth.boxes.yaw), torch.zeros(len(back)).double())
        torch.testing.assert_close(back.velocity, truth.boxes.velocity, equal_nan=True)
        assert torch.equal(back.size, truth.boxes.size)


def test_unknown_vertical_velocities_are_horizontal(truth: KeyTruth) -> None:
    scene = in_scene(truth.boxes, truth)
    velocity = scene.velocity.clone()
    velocity[:, 2] = torch.nan
    back = boxes_in_world(replace(scene, velocity=velocity), truth.pose.scene_to_world)
    torch.testing.assert_close(back.velocity, truth.boxes.velocity, equal_nan=True)


def test_annotated_boxes_are_those_of_the_reader(config: NuscenesConfig) -> None:
    folder = open_folder(config.path)
    for name, truth in key_truths(config, "mini_val").items():
        boxes = folder.read(name, "mini_val").boxes
        assert boxes is not None
        back = boxes_in_world(boxes, truth.pose.scene_to_world)
        torch.testing.assert_close(back.center, truth.boxes.center, atol=1e-5, rtol=0)
        assert torch.equal(back.category, truth.boxes.category)
        assert torch.equal(back.fields["n_radar"], truth.boxes.fields["n_radar"])


def test_empty_boxes_move(truth: KeyTruth) -> None:
    none = truth.boxes.take(torch.zeros(0, dtype=torch.long))
    assert len(boxes_in_world(none, truth.pose.scene_to_world)) == 0


def test_a_folder_without_tables_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="no tables"):
        key_poses(NuscenesConfig(path=tmp_path), "val")
