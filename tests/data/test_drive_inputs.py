"""Inputs of drives: points in the frame of the LiDAR, clipped to a box; scaled and hidden intensities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ponderv2.data.augment_config import IntensityDropConfig, RotateConfig
from ponderv2.data.augmentation import augment
from ponderv2.data.config import ClipConfig, LabelledDataConfig, VoxelConfig
from ponderv2.data.datasets import LabelledDataset
from ponderv2.data.fragments import TestView, fragments
from ponderv2.data.missing_inputs import HiddenInputs, with_all_inputs
from ponderv2.data.preprocess import clipped
from ponderv2.randomness import make_generator
from ponderv2.scenes.reader import DatasetInfo, FrameChoice, Reader
from ponderv2.scenes.scene import PointCloud, Scene

CLIP = ClipConfig(lower=(-20.0, -20.0, -4.0), upper=(20.0, 20.0, 2.0))
LIDAR = LabelledDataConfig(
    voxel=VoxelConfig(size=0.5),
    features=("coord",),
    fields=("intensity",),
    centred=False,
    augment=(),
    sphere_crop=None,
    mix_probability=0.0,
)


@dataclass(frozen=True)
class Drive(Reader):
    scene: Scene

    @property
    def root(self) -> Path:
        return Path("drive")

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo("toy", ("car", "road"))

    def names(self, split: str, with_frames: bool = False) -> tuple[str, ...]:
        return (self.scene.name,)

    def read(
        self, name: str, split: str | None = None, labels: bool = True, frames: FrameChoice = "all"
    ) -> Scene:
        return self.scene


@pytest.fixture
def scan() -> Scene:
    """Points off the origin: the middle of their box is not where the LiDAR is."""
    rng = torch.Generator().manual_seed(3)
    coord = torch.rand(700, 3, generator=rng) * torch.tensor([50.0, 30.0, 8.0]) - torch.tensor(
        [5.0, 9.0, 5.0]
    )
    fields = {"intensity": torch.rand(700, generator=rng)}
    return Scene("drive/0", PointCloud(coord, labels={"segment": torch.arange(700) % 2}, fields=fields))


def rows(points: torch.Tensor) -> list[list[float]]:
    return sorted(points.double().round(decimals=4).tolist())


def test_without_centring_an_encoder_sees_the_coordinates_of_the_sensor(scan: Scene) -> None:
    data = LabelledDataset(Drive(scan), "train", LIDAR)
    for batch in (data.sample(0, 0), data.whole(scan).batch):
        known = set(
            map(tuple, rows(torch.cat([scan.cloud.coord, scan.cloud.fields["intensity"][:, None]], 1)))
        )
        assert set(map(tuple, rows(batch.feature))) <= known
        assert torch.equal(batch.feature[:, :3], batch.coord)
    first = next(iter(fragments(scan, TestView(half_turns=1.0), LIDAR, "toy")))
    turned = scan.cloud.coord[first.index] * torch.tensor([-1.0, -1.0, 1.0])
    torch.testing.assert_close(first.batch.coord, turned, atol=1e-5, rtol=0)


def test_centring_stays_the_default(scan: Scene) -> None:
    batch = (
        LabelledDataset(Drive(scan), "train", LIDAR.model_copy(update={"centred": True})).whole(scan).batch
    )
    assert float((batch.coord.amin(0) + batch.coord.amax(0))[:2].abs().max()) < 1e-4
    assert float(batch.coord[:, 2].min()) == pytest.approx(0.0, abs=0.5)


def test_clipping_moves_points_to_the_border_and_drops_none(scan: Scene) -> None:
    expected = np.clip(scan.cloud.coord.numpy(), CLIP.lower, CLIP.upper)
    config = LIDAR.model_copy(update={"clip": CLIP})
    assert np.array_equal(clipped(scan, config).cloud.coord.numpy(), expected.astype(np.float32))
    assert clipped(scan, LIDAR) is scan
    data = LabelledDataset(Drive(scan), "train", config)
    whole = data.whole(scan)
    assert len(whole.voxels.inverse) == len(scan.cloud)
    shown = [whole.batch.coord, data.sample(0, 0).coord]
    shown += [one.batch.coord for one in fragments(scan, TestView(), config, "toy")]
    for coord in shown:
        assert (coord <= coord.new_tensor(CLIP.upper)).all() and (coord >= coord.new_tensor(CLIP.lower)).all()
    with pytest.raises(ValidationError, match="below"):
        ClipConfig(lower=(0.0, 0.0, 3.0), upper=(1.0, 1.0, 2.0))


def test_scaled_fields_are_what_the_files_hold(scan: Scene) -> None:
    raw = LIDAR.model_copy(update={"scales": {"intensity": 255.0}})
    batch, usual = (LabelledDataset(Drive(scan), "train", one).whole(scan).batch for one in (raw, LIDAR))
    torch.testing.assert_close(batch.feature[:, 3], 255.0 * usual.feature[:, 3])
    assert torch.equal(batch.feature[:, :3], usual.feature[:, :3])


def test_intensities_are_hidden_in_training_and_evaluation_alike(scan: Scene) -> None:
    step = IntensityDropConfig(probability=0.0, point_probability=0.5)
    dropped = augment(scan, (step,), make_generator("x", 1)).cloud.fields["intensity"]
    known = scan.cloud.fields["intensity"]
    assert 200 < int((dropped == 0).sum()) < 500 and torch.equal(dropped[dropped > 0], known[dropped > 0])
    everything = augment(scan, (IntensityDropConfig(probability=1.0),), make_generator("x", 1))
    assert not everything.cloud.fields["intensity"].any()

    inputs = ("coord", "intensity")
    hidden = HiddenInputs.of_augmentation([step.model_dump()])
    cloud, notes = with_all_inputs(scan.cloud, inputs, hidden, hide=("intensity",))
    assert not cloud.fields["intensity"].any() and notes == ()
    bare = replace(scan.cloud, fields={})
    cloud, notes = with_all_inputs(bare, inputs, HiddenInputs.of_augmentation([]))
    assert not cloud.fields["intensity"].any() and "every intensity known" in notes[0]
    assert with_all_inputs(scan.cloud, inputs)[0].fields["intensity"] is known


def test_a_turned_scene_keeps_its_distance_to_the_sensor(scan: Scene) -> None:
    config = LIDAR.model_copy(update={"augment": (RotateConfig(probability=1.0),)})
    batch = LabelledDataset(Drive(scan), "train", config).sample(0, 4)
    known = scan.cloud.coord.norm(dim=1)
    gap = (batch.coord.norm(dim=1)[:, None] - known).abs().amin(dim=1)
    assert float(gap.max()) < 1e-4
