"""Training data from scenes that lack most things: images alone, a LiDAR drive with boxes, depth alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from ponderv2.data.augment_config import FlipConfig, RotateConfig, ScaleConfig
from ponderv2.data.augmentation import augment
from ponderv2.data.config import (
    ImageInputConfig,
    LabelledDataConfig,
    LocalCropConfig,
    PretrainDataConfig,
    SphereCropConfig,
    ViewSamplingConfig,
    VoxelConfig,
)
from ponderv2.data.datasets import LabelledDataset, SceneDataset
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.cameras import Camera, project
from ponderv2.geometry.transforms import transform_points
from ponderv2.scenes.batch import Batch
from ponderv2.scenes.reader import DatasetInfo, FrameChoice, Reader
from ponderv2.scenes.scene import Frame, PointCloud, Scene, Sweep

WIDTH, HEIGHT = 24, 16
UPRIGHT = (
    RotateConfig(axis="z", probability=1.0),
    ScaleConfig(limits=(0.8, 1.2)),
    FlipConfig(probability=0.5),
)
VOXEL = VoxelConfig(size=0.25)


@dataclass(frozen=True)
class ToyReader(Reader):
    """One scene, as a data set of its own kind would offer it."""

    folder: Path
    scene: Scene

    @property
    def root(self) -> Path:
        return self.folder

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo("toy", ("car", "road"))

    def names(self, split: str, with_frames: bool = False) -> tuple[str, ...]:
        return (self.scene.name,) if split == "train" else ()

    def read(
        self, name: str, split: str | None = None, labels: bool = True, frames: FrameChoice = "all"
    ) -> Scene:
        return self.scene if frames != "none" else replace(self.scene, frames=())


def cameras(n: int) -> list[Camera]:
    """Around the origin, looking at it from 5 m."""
    intrinsics = torch.tensor([[20.0, 0, 11.5], [0, 20, 7.5], [0, 0, 1]])
    found = []
    for i in range(n):
        angle = 2 * math.pi * i / n
        forward = -torch.tensor([math.cos(angle), math.sin(angle), 0.0])
        down = torch.tensor([0.0, 0.0, -1.0])
        turn = torch.stack([torch.linalg.cross(down, forward), down, forward])
        pose = torch.eye(4)
        pose[:3, :3], pose[:3, 3] = turn, turn @ (5.0 * forward)
        found.append(Camera(intrinsics, pose, WIDTH, HEIGHT))
    return found


@pytest.fixture
def images(tmp_path: Path) -> ToyReader:
    """A folder of images with poses; the colour of each tells its number."""
    frames = []
    for number, camera in enumerate(cameras(5)):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 40 * number, np.uint8)).save(tmp_path / f"{number}.png")
        frames.append(Frame(str(number), camera, color_path=tmp_path / f"{number}.png"))
    return ToyReader(tmp_path, Scene("folder", PointCloud.empty(), tuple(frames)))


@pytest.fixture
def drive(tmp_path: Path) -> ToyReader:
    """LiDAR points with intensity and time, a sweep, and a box that holds the points of class 0."""
    rng = torch.Generator().manual_seed(1)
    coord = (torch.rand(900, 3, generator=rng) - 0.5) * torch.tensor([60.0, 60.0, 4.0])
    box = Boxes(
        center=torch.tensor([[8.0, 3.0, 0.0], [-20.0, -20.0, 0.0]]),
        size=torch.tensor([[14.0, 10.0, 4.0], [9.0, 9.0, 4.0]]),
        yaw=torch.tensor([0.5, 2.0]),
        velocity=torch.full((2, 3), torch.nan),
        category=torch.tensor([0, 0]),
        instance=torch.tensor([4, 5]),
    )
    inside = box.contains(coord).any(dim=0)
    fields = {"intensity": torch.rand(900, generator=rng), "time": torch.rand(900, generator=rng)}
    cloud = PointCloud(coord, labels={"segment": torch.where(inside, 0, 1)}, fields=fields)
    np.savez(tmp_path / "0.npz", coord=coord.numpy())
    sweep = Sweep("0", "lidar", torch.eye(4), tmp_path / "0.npz")
    return ToyReader(tmp_path, Scene("drive", cloud, sweeps=(sweep,), boxes=box))


@pytest.fixture
def depth(tmp_path: Path) -> ToyReader:
    """A wall of points 5 m in front of each of four cameras that measure depth alone."""
    frames, points = [], []
    for number, camera in enumerate(cameras(4)):
        Image.fromarray(np.full((HEIGHT, WIDTH), 2000, np.uint16)).save(tmp_path / f"{number}.png")
        frames.append(Frame(str(number), camera, depth_path=tmp_path / f"{number}.png"))
        back = torch.linalg.inv(camera.world_to_camera)
        points.append(transform_points(back, torch.tensor([[x, 0.0, 2.0] for x in (-0.4, 0.0, 0.4)])))
    return ToyReader(tmp_path, Scene("scan", PointCloud(torch.cat(points)), tuple(frames)))


LIDAR = LabelledDataConfig(
    features=("coord",), fields=("intensity", "time"), augment=UPRIGHT, voxel=VOXEL, sphere_crop=None
)


def test_a_lidar_drive_brings_its_fields_and_boxes(drive: ToyReader) -> None:
    data = SceneDataset(drive, "train", LIDAR)
    assert LIDAR.n_channels == 5 and data.n_classes == 2
    for draw in range(6):
        batch = data.sample(0, draw)
        assert batch.feature.shape == (len(batch.coord), 5)
        assert torch.equal(batch.feature[:, 3], batch.fields["intensity"])
        assert batch.boxes is not None and batch.box_scene is not None and len(batch.boxes) == 2
        inside = batch.boxes.contains(batch.coord).any(dim=0)
        assert torch.equal(inside, batch.segment == 0) and inside.any()
    pair = Batch.collate([data.sample(0, 0), data.sample(0, 1)])
    assert pair.box_scene is not None and pair.box_scene.tolist() == [0, 0, 1, 1]


def test_crops_keep_the_boxes_whose_centres_they_hold(drive: ToyReader) -> None:
    near = LIDAR.model_copy(update={"crop": LocalCropConfig(radius=12.0)})
    sphere = LIDAR.model_copy(update={"sphere_crop": SphereCropConfig(n_points=150)})
    counts = set()
    for config in (near, sphere):
        data = SceneDataset(drive, "train", config)
        for draw in range(12):
            batch = data.sample(0, draw)
            assert batch.boxes is not None
            counts.add(len(batch.boxes))
            gap = (batch.boxes.center[:, None, :2] - batch.coord[None, :, :2]).norm(dim=-1)
            assert (gap.amin(dim=1) < 8.0).all()
    assert counts == {0, 1} or counts == {0, 1, 2}


def test_boxes_refuse_to_be_tilted(drive: ToyReader) -> None:
    tilted = (RotateConfig(axis="x", half_turns=(-0.01, 0.01), probability=1.0),)
    with pytest.raises(SceneError, match="cannot turn about x"):
        augment(drive.scene, tilted, torch.Generator())
    data = LabelledDataset(drive, "train", LIDAR.model_copy(update={"augment": tilted}))
    assert data.sample(0, 0).boxes is None  # semantic segmentation needs no boxes


def test_features_that_the_points_lack_are_named(drive: ToyReader) -> None:
    for update, text in (({"features": ("color",)}, "no color"), ({"fields": ("echo",)}, "no field 'echo'")):
        with pytest.raises(SceneError, match=text):
            LabelledDataset(drive, "train", LIDAR.model_copy(update=update)).sample(0, 0)


def test_images_alone_bring_images_and_pixels(images: ToyReader) -> None:
    config = PretrainDataConfig(
        augment=UPRIGHT,
        voxel=VOXEL,
        views=ViewSamplingConfig(n_views=3, n_pixels=10),
        images=ImageInputConfig(n_views=2, width=12, height=8),
    )
    data = PretrainDataset(images, "train", config)
    batch = data.sample(0, 0)
    assert batch.coord.shape == (0, 3) and batch.offset.tolist() == [0]
    assert batch.pixels is not None and bool(batch.pixels.colored.all()) and not batch.pixels.depth.any()
    assert batch.images is not None and batch.images.image.shape == (2, 3, 8, 12)
    # The middle of the room is in the middle of every image, and its camera is that of the image.
    at = transform_points(batch.images.world_to_camera, torch.zeros(2, 3))
    pixel, away = project(at, batch.images.intrinsics)
    torch.testing.assert_close(pixel, torch.tensor([[5.5, 3.5]] * 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(away, torch.full((2,), 5.0), atol=1e-3, rtol=0)
    value = {round(float(image.mean()) * 255) for image in batch.images.image}
    assert len(value) == 2 and value <= {0, 40, 80, 120, 160}
    validation = data.validation(0)
    assert validation.batch.images is not None and len(validation.frames) == 4
    both = Batch.collate([batch, data.sample(0, 1)])
    assert both.images is not None and both.images.view_scene.tolist() == [0, 0, 1, 1]


def test_scenes_with_images_are_not_merged() -> None:
    with pytest.raises(ValidationError, match="mix_probability"):
        LabelledDataConfig(images=ImageInputConfig())


def test_depth_alone_is_rendered_without_colours(depth: ToyReader) -> None:
    config = PretrainDataConfig(
        features=("coord",), augment=UPRIGHT, voxel=VOXEL, views=ViewSamplingConfig(n_views=2, n_pixels=8)
    )
    batch = PretrainDataset(depth, "train", config).sample(0, 0)
    assert batch.pixels is not None and not batch.pixels.colored.any()
    torch.testing.assert_close(batch.pixels.depth, torch.full((16,), 2.0))
    assert batch.images is None and batch.boxes is None and batch.feature.shape[1] == 3
    with pytest.raises(SceneError, match="no colour images"):
        PretrainDataset(depth, "train", config.model_copy(update={"images": ImageInputConfig()})).sample(0, 0)
