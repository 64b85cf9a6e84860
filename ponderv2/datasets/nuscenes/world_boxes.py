"""Boxes in the world frame of nuScenes, in which its benchmark counts. Metres, double precision, z up.

A key frame is read in the frame of its LiDAR, which is tilted against the world by a degree or so, while
objects stand upright in the world. The way back is exact for such boxes: `boxes_in_world` takes the
horizontal heading that has the given yaw in the frame of the LiDAR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from ponderv2.datasets.nuscenes.config import NuscenesConfig
from ponderv2.datasets.nuscenes.index import NuscenesIndex, Sample
from ponderv2.datasets.nuscenes.reader import open_versions, samples_of
from ponderv2.datasets.nuscenes.scenes import LIDAR, boxes_of
from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.transforms import transform_points


@dataclass(frozen=True)
class KeyPose:
    """Where a key frame is in the world, and what its submission is called."""

    token: str
    """Of the sample."""
    scene_to_world: Float64[Tensor, "4 4"]
    """From the frame of the scene, which is that of its LiDAR."""
    ego_to_world: Float64[Tensor, "4 4"]
    """From the frame of the vehicle at the time of the scan."""


@dataclass(frozen=True)
class KeyTruth:
    """What the tables say of a key frame."""

    pose: KeyPose
    boxes: Boxes
    """In the world, double precision; also those of no class of the benchmark (-1), as bicycle racks are."""


def key_poses(config: NuscenesConfig, split: str) -> Mapping[str, KeyPose]:
    """Poses of the key frames of a split by the names of their scenes, in order.

    Raises SceneError for tables that cannot be used.
    """
    return {sample.name: _pose(index, sample) for index, sample in _samples(config, split)}


def key_truths(config: NuscenesConfig, split: str) -> Mapping[str, KeyTruth]:
    """Poses and annotated boxes of the key frames of a split by the names of their scenes, in order.

    Raises SceneError for tables that cannot be used.
    """
    found = {}
    for index, sample in _samples(config, split):
        boxes = boxes_of(index.annotations(sample), np.eye(4), [], torch.float64)
        found[sample.name] = KeyTruth(_pose(index, sample), boxes)
    return found


def _samples(config: NuscenesConfig, split: str) -> list[tuple[NuscenesIndex, Sample]]:
    whole = config.model_copy(update={"every": 1})
    _, versions = open_versions(whole)
    return [(one.index, sample) for one in versions for sample in samples_of((one,), split, whole)]


def _pose(index: NuscenesIndex, sample: Sample) -> KeyPose:
    data = index.key_data(sample)
    if LIDAR not in data or not np.isfinite(data[LIDAR].sensor_to_global).all():
        raise SceneError(f"{sample.name}: the tables hold no pose of {LIDAR} for this key frame")
    key = data[LIDAR]
    return KeyPose(
        sample.token, torch.from_numpy(key.sensor_to_global), torch.from_numpy(key.ego_to_global.copy())
    )


def boxes_in_world(boxes: Boxes, scene_to_world: Float64[Tensor, "4 4"]) -> Boxes:
    """Boxes of the frame of a key frame, in the world, where they stand upright. In double precision.

    Velocities without a vertical part (0 or nan) become horizontal ones.
    """
    pose = scene_to_world.to(boxes.center.device)
    yaw, velocity = boxes.yaw.double(), boxes.velocity.double()
    heading = _horizontal(torch.stack([torch.cos(yaw), torch.sin(yaw)], dim=1), pose)
    flat = (velocity[:, 2] == 0.0) | velocity[:, 2].isnan()
    moved = torch.where(flat[:, None], _horizontal(velocity[:, :2], pose), velocity @ pose[:3, :3].T)
    return replace(
        boxes,
        center=transform_points(pose, boxes.center.double()),
        size=boxes.size.double(),
        yaw=torch.atan2(heading[:, 1], heading[:, 0]),
        velocity=moved,
    )


def _horizontal(vectors: Float64[Tensor, "box 2"], pose: Float64[Tensor, "4 4"]) -> Float64[Tensor, "box 3"]:
    """Horizontal vectors of the world, by their x and y in the tilted frame: its z is solved for."""
    turn = pose[:3, :3]
    level = vectors @ turn[:, :2].T
    return level - (level[:, 2:] / turn[2, 2]) * turn[:, 2]
