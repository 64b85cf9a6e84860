"""Toy drives as they are published: SPLIT/DRIVE/{poses.json, boxes.json, 000.npy ...}, metres.

A sweep is an array of x, y, z (in the frame of the sensor) and intensity. Pre-training needs images to
render: what the LiDAR measured in front, behind and at both sides of it becomes a depth image each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from ponderv2.datasets.toy_drives.config import ToyDrivesConfig

from ponderv2.datasets.reader import DatasetReader, fingerprint
from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, PreparedScene, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.scenes.scene import PointCloud, Sweep

WIDTH, HEIGHT = 48, 24
"""Pixels of a depth image, 90 degrees wide."""


@dataclass(frozen=True)
class ToySweeps:
    """Reads sweeps as they are published."""

    def points(self, path: Path) -> PointCloud:
        """The points in the frame of the sensor, with their intensity."""
        try:
            values = torch.from_numpy(np.load(path, allow_pickle=False)).float()
        except (OSError, ValueError) as error:
            raise SceneError(f"the sweep {path} cannot be read ({error})") from error
        return PointCloud(values[:, :3], fields={"intensity": values[:, 3]})


@dataclass(frozen=True)
class ToyDrive:
    """One drive."""

    split: str
    name: str
    folder: Path
    config: ToyDrivesConfig

    def fingerprint(self) -> str:
        """Settings, and contents of the files."""
        files = sorted(path for path in self.folder.iterdir() if path.is_file())
        return fingerprint(self.folder, tuple(files), str(self.config.sweeps))

    def read(self) -> SceneStream:
        """All points in the frame of the drive, sweeps, boxes, and depth images of the sweeps."""
        poses = json.loads((self.folder / "poses.json").read_text())[: self.config.sweeps]
        paths = [self.folder / f"{i:03d}.npy" for i in range(len(poses))]
        sweeps = tuple(
            Sweep(
                id=path.stem,
                sensor="lidar",
                world_to_sensor=torch.linalg.inv(torch.tensor(pose["sensor_to_world"], dtype=torch.float64)),
                path=path,
                time=pose["time"],
                files=ToySweeps(),
            )
            for pose, path in zip(poses, paths, strict=True)
        )
        clouds = [sweep.read_in_world() for sweep in sweeps]
        coord = torch.cat([cloud.coord for cloud in clouds])
        intensity = torch.cat([cloud.fields["intensity"] for cloud in clouds])
        cloud = PreparedCloud.of(PointCloud(coord, fields={"intensity": intensity}))
        frames = [frame for sweep in sweeps for frame in depth_frames(sweep)]
        scene = PreparedScene(cloud, sweeps=sweeps, boxes=read_boxes(self.folder / "boxes.json"))
        return SceneStream(frames, lambda: scene)


def depth_frames(sweep: Sweep) -> list[DecodedFrame]:
    """What a sweep sees in four directions, z-depth in millimetres."""
    points = sweep.read().coord.double().numpy()
    intrinsics = np.array([[WIDTH / 2, 0, (WIDTH - 1) / 2], [0, WIDTH / 2, (HEIGHT - 1) / 2], [0, 0, 1.0]])
    sensor_to_world = torch.linalg.inv(sweep.world_to_sensor.double()).numpy()
    frames = []
    for side in range(4):
        angle = side * np.pi / 2
        forward = np.array([np.cos(angle), np.sin(angle), 0.0])
        down = np.array([0.0, 0.0, -1.0])
        camera_to_sensor = np.eye(4)
        camera_to_sensor[:3, :3] = np.stack([np.cross(down, forward), down, forward], axis=1)
        depth = z_buffer(points @ camera_to_sensor[:3, :3], intrinsics)
        frames.append(
            DecodedFrame(
                id=f"{sweep.id}_{side}",
                intrinsics=intrinsics,
                camera_to_world=sensor_to_world @ camera_to_sensor,
                color=None,
                depth=depth,
                time=sweep.time,
                sensor=f"{sweep.sensor}_{side}",
            )
        )
    return frames


def z_buffer(points: Float[ndarray, "point 3"], intrinsics: Float[ndarray, "3 3"]) -> ndarray:
    """The nearest depth per pixel, millimetres; 0 = nothing was measured."""
    points = points[points[:, 2] > 0.1]
    pixel = np.rint((points / points[:, 2:]) @ intrinsics.T)[:, :2].astype(int)
    inside = ((pixel >= 0) & (pixel < (WIDTH, HEIGHT))).all(axis=1)
    points, pixel = points[inside], pixel[inside]
    depth = np.full((HEIGHT, WIDTH), np.inf)
    np.minimum.at(depth, (pixel[:, 1], pixel[:, 0]), points[:, 2])
    return np.where(np.isfinite(depth), np.rint(1000 * depth), 0).astype(np.uint16)


def read_boxes(path: Path) -> Boxes:
    """Boxes in the frame of the drive."""
    rows = json.loads(path.read_text())
    count = len(rows)
    return Boxes(
        center=torch.tensor([row["center"] for row in rows]).reshape(count, 3),
        size=torch.tensor([row["size"] for row in rows]).reshape(count, 3),
        yaw=torch.tensor([row["yaw"] for row in rows]).reshape(count),
        velocity=torch.full((count, 3), torch.nan),
        category=torch.zeros(count, dtype=torch.long),
        instance=torch.arange(count),
    )


def find(config: ToyDrivesConfig) -> DatasetReader:
    """Every folder with poses. Raises SceneError where there is none."""
    drives = tuple(
        ToyDrive(path.parent.parent.name, path.parent.name, path.parent, config)
        for path in sorted(config.path.glob("*/*/poses.json"))
    )
    if not drives:
        raise SceneError(f"no drives in {config.path}", fix="give the folder with train/ and val/")
    splits = tuple(dict.fromkeys(drive.split for drive in drives))
    return DatasetReader(DatasetInfo("toy_drives", splits=splits, box_classes=("car",)), drives)
