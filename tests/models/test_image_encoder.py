"""An encoder of images and a lift of its maps train as those of points do."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ponderv2.config import StrictConfig
from ponderv2.encoder.encoder import Prompt
from ponderv2.geometry.cameras import project
from ponderv2.geometry.features import Features, ImageFeatures
from ponderv2.geometry.transforms import transform_points
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.lift.config import DensifyConfig, RangeFrameConfig
from ponderv2.lift.volume_frame import VolumeFrame
from ponderv2.models import encoder_model, pretext
from ponderv2.models.config import PretextConfig
from ponderv2.models.pretext import PretextModel
from ponderv2.scenes.batch import Batch, ImageBatch
from tests.models.test_pretext_conditions import batch_of, config


class FilterConfig(StrictConfig):
    """One convolution per image."""

    needs: ClassVar[str] = "images"
    gives: ClassVar[str] = "images"
    conditions: ClassVar[tuple[str, ...]] = ()
    context_channels: ClassVar[int] = 0
    kind: Literal["filter"] = "filter"
    in_channels: int = 3
    out_channels: int = 6


class Filter(nn.Module):
    def __init__(self, settings: FilterConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(settings.in_channels, settings.out_channels, 3, padding=1)

    def forward(self, batch: Batch, prompt: Prompt | None = None) -> ImageFeatures:
        images = batch.images
        assert images is not None and prompt is None
        maps = self.conv(images.image)
        return ImageFeatures(
            maps, images.intrinsics, images.world_to_camera, images.view_scene, batch.n_scenes
        )


class UnprojectConfig(StrictConfig):
    """The feature of the nearest pixel at every cell, summed over the views that see it."""

    needs: ClassVar[str] = "images"
    align_with_sampling: ClassVar[bool] = True
    kind: Literal["unproject"] = "unproject"


class Unproject(nn.Module):
    def forward(self, features: Features, frame: VolumeFrame) -> FeatureVolume:
        assert isinstance(features, ImageFeatures)
        n_x, n_y, n_z = frame.cells
        lower, upper = frame.lower.float(), frame.upper.float()
        sums = features.feature.new_zeros(features.n_scenes, features.feature.shape[1], n_z, n_y, n_x)
        cameras = frame.cameras(features.world_to_camera, features.view_scene)
        for view, scene in enumerate(features.view_scene.tolist()):
            centres = self._centres(lower[scene], upper[scene], frame.cells)
            in_camera = transform_points(cameras[view], centres.reshape(-1, 3))
            pixel, depth = project(in_camera, features.intrinsics[view].expand(len(in_camera), 3, 3))
            column, row = pixel.round().long().unbind(1)
            height, width = features.feature.shape[2:]
            seen = (depth > 0) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            values = features.feature[view][:, row.clamp(0, height - 1), column.clamp(0, width - 1)] * seen
            sums = sums.index_add(0, torch.tensor([scene]), values.view(1, -1, n_z, n_y, n_x))
        return FeatureVolume(sums, lower, upper)

    @staticmethod
    def _centres(lower: Tensor, upper: Tensor, cells: tuple[int, int, int]) -> Tensor:
        axes = [
            (torch.arange(n) + 0.5) / n * (b - a) + a for n, a, b in zip(cells, lower, upper, strict=True)
        ]
        z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
        return torch.stack([x, y, z], dim=-1)


@pytest.fixture(autouse=True)
def _toys_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_model, "build_encoder", Filter)
    monkeypatch.setattr(pretext, "build_lift", lambda config, in_channels: Unproject())


def image_config() -> PretextConfig:
    """As the union of encoders would hold it, had it this kind."""
    plain = config().model_copy(update={"semantic": None, "conditions": ()})
    losses = plain.losses.model_copy(update={"semantic": 0.0})
    frame = RangeFrameConfig(lower=(-1.0, -1.0, -1.0), upper=(3.0, 3.0, 3.0), cells=(8, 8, 8))
    parts = {"encoder": FilterConfig(), "lift": UnprojectConfig(), "frame": frame, "losses": losses}
    return plain.model_copy(update=parts)


def image_batch(rng: torch.Generator) -> Batch:
    """Two scenes without a single point."""
    batch = batch_of("ScanNet", rng)
    pixels = batch.pixels
    assert pixels is not None
    images = ImageBatch(
        image=torch.rand(2, 3, 8, 8, generator=rng),
        intrinsics=pixels.intrinsics,
        world_to_camera=pixels.world_to_camera,
        view_scene=pixels.view_scene,
    )
    nothing = torch.zeros(0, dtype=torch.long)
    return replace(
        batch,
        coord=batch.coord[nothing],
        grid_coord=batch.grid_coord[nothing],
        feature=batch.feature[nothing],
        segment=batch.segment[nothing],
        instance=batch.instance[nothing],
        offset=torch.zeros_like(batch.offset),
        images=images,
    )


def test_a_rendered_pixel_trains_the_encoder_of_images(rng: torch.Generator) -> None:
    torch.manual_seed(0)
    model, batch = PretextModel(image_config()), image_batch(rng)
    step = model(batch, torch.Generator().manual_seed(1))
    step.losses.total().backward()
    assert torch.isfinite(step.losses.total()) and float(step.losses.color.detach()) > 0
    weight = model.backbone.conv.weight
    assert weight.grad is not None and float(weight.grad.abs().sum()) > 0
    assert [name for name in model.state_dict() if name.startswith("backbone.")] == [
        "backbone.conv.weight",
        "backbone.conv.bias",
    ]


def test_heads_of_points_refuse_features_of_images(rng: torch.Generator) -> None:
    model = PretextModel(image_config())
    with pytest.raises(ValueError, match="features of images"):
        model.encode_points(image_batch(rng))


def test_settings_of_a_lift_and_an_encoder_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValidationError, match="align_with_sampling"):
        PretextConfig.model_validate(
            config().model_dump()
            | {"frame": image_config().frame, "lift": DensifyConfig(align_with_sampling=False)}
        )
