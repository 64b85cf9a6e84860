"""Points and images in one volume, by hand; branches that were pre-trained alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from ponderv2.geometry.features import FusedFeatures, PointFeatures
from ponderv2.lift.config import DensifyConfig, DepthBinsConfig
from ponderv2.lift.densify import Densify
from ponderv2.lift.fused.config import FusedConfig
from ponderv2.lift.fused.lift import Fused
from ponderv2.lift.projected_sampling.config import ProjectedSamplingConfig
from ponderv2.models.config import PretextConfig
from tests.lift.test_image_lifts import features_of, frame_of

IMAGES = ProjectedSamplingConfig(depth=DepthBinsConfig(n_bins=7, nearest=1.0, width=1.1))


def points() -> PointFeatures:
    generator = torch.Generator().manual_seed(4)
    coord = torch.rand(40, 3, generator=generator).double() * torch.tensor([6.0, 6.0, 3.0]) - torch.tensor(
        [2.0, 3.0, 1.0]
    )
    return PointFeatures(torch.randn(40, 3, generator=generator).double(), coord, torch.tensor([25, 40]))


def test_volumes_are_summed_and_refined_together() -> None:
    torch.manual_seed(0)
    lift = Fused(FusedConfig(images=IMAGES), 3).double().eval()
    features = lift.with_depth(FusedFeatures(points(), features_of()))
    frame = frame_of(2)
    found = lift(features, frame).dense()
    total = (
        Densify(DensifyConfig())(features.points, frame).dense() + lift.images(features.images, frame).dense()
    )
    convolution, norm, _ = lift.refine
    expected = F.conv3d(total, convolution.weight, convolution.bias, padding=1) / math.sqrt(1 + norm.eps)  # pyright: ignore
    torch.testing.assert_close(found, expected.relu())
    assert features.feature is features.points.feature and features.n_scenes == 2


def test_a_missing_branch_is_refused() -> None:
    lift = Fused(FusedConfig(images=IMAGES), 3)
    for one in (points(), features_of()):
        with pytest.raises(ValueError, match="one of them is missing"):
            lift.with_depth(one)
        with pytest.raises(ValueError, match="one of them is missing"):
            lift(one, frame_of(2))


def model(**changes: Any) -> dict[str, Any]:
    return {
        "encoder": {"kind": "points_and_images"},
        "lift": {"kind": "fused"},
        "projection": {"kind": "conv3d"},
        **changes,
    }


def test_settings_of_a_fusion_agree() -> None:
    settings = PretextConfig.model_validate(model())
    assert settings.encoder.in_channels == 6 and settings.encoder.out_channels == 128
    with pytest.raises(ValidationError, match="needs features of points"):
        PretextConfig.model_validate(model(lift={"kind": "densify"}))
    with pytest.raises(ValidationError, match="pre-train each branch"):
        PretextConfig.model_validate(model(mask={"ratio": 0.3}))
