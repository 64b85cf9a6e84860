"""Images for encoders: what is done to pixels is done to cameras and depths."""

from __future__ import annotations

import pytest
import torch

from ponderv2.data.config import ImageAugmentConfig, ImageInputConfig
from ponderv2.data.image_augmentation import input_image
from ponderv2.geometry.cameras import project

INTRINSICS = torch.tensor([[40.0, 0.0, 30.3], [0.0, 42.0, 19.1], [0.0, 0.0, 1.0]], dtype=torch.float64)


def ramp(height: int = 48, width: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Colour and depth that tell the column and the row of a pixel: (4 column, 5 row, 0) and column + 1."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    color = torch.stack([column * 3.5, row * 5.0, torch.zeros_like(row)], dim=-1).float()
    return color, (column + 1).float()


@pytest.mark.parametrize(
    "augment",
    [None, {"zoom": (1.3, 1.3)}, {"flip": 1.0}, {"zoom": (1.0, 1.5), "flip": 1.0}],
)
def test_a_point_has_the_colour_and_depth_of_its_pixel_wherever_that_goes(augment: dict | None) -> None:
    color, depth = ramp()
    settings = None if augment is None else ImageAugmentConfig.model_validate(augment)
    config = ImageInputConfig(width=96, height=64, augment=settings)
    made = input_image(color, INTRINSICS, depth, config, torch.Generator().manual_seed(3))
    assert made.depth is not None and made.color.shape == (3, 64, 96) and made.depth.shape == (64, 96)
    points = torch.tensor([[0.1, 0.1, 1.0], [-0.2, 0.05, 1.0], [0.3, -0.2, 1.0]], dtype=torch.float64)
    before = project(points, INTRINSICS)[0]
    after = project(points, made.intrinsics)[0]
    compared = 0
    for (u, v), (x, y) in zip(before.tolist(), after.tolist(), strict=True):
        column, row = round(x), round(y)
        if not (1 <= column < 95 and 1 <= row < 63):
            continue
        compared += 1
        # Half a pixel of the resized image is less than half of an original one.
        assert float(made.color[0, row, column]) * 255 / 3.5 == pytest.approx(u, abs=0.6)
        assert float(made.color[1, row, column]) * 255 / 5.0 == pytest.approx(v, abs=0.6)
        assert float(made.depth[row, column]) - 1 == pytest.approx(u, abs=1.2)
    assert compared >= 2


def test_colours_change_in_training_alone_and_stay_in_range() -> None:
    color, _ = ramp()
    jitter = ImageAugmentConfig(brightness=0.5, contrast=0.5, saturation=0.5)
    config = ImageInputConfig(width=64, height=48, augment=jitter)
    plain = input_image(color, INTRINSICS, None, config)
    torch.testing.assert_close(plain.color, color.permute(2, 0, 1) / 255.0)
    torch.testing.assert_close(plain.intrinsics, INTRINSICS)
    first, second, other = (
        input_image(color, INTRINSICS, None, config, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.color, second.color) and not torch.equal(first.color, other.color)
    assert not torch.allclose(first.color, plain.color)
    assert float(first.color.min()) >= 0.0 and float(first.color.max()) <= 1.0
    assert torch.equal(first.intrinsics, plain.intrinsics)
