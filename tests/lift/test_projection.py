"""The networks on volumes: sizes, types and memory layouts."""

from __future__ import annotations

import pytest
import torch

from ponderv2.lift.config import ConvBlock3DConfig, DoubleConvUNet3DConfig, UNet3DConfig
from ponderv2.lift.kinds import build_projection

CONFIGS = [
    UNet3DConfig(f_maps=4, n_levels=3, out_channels=5),
    DoubleConvUNet3DConfig(f_maps=4, n_levels=3, out_channels=5),
    ConvBlock3DConfig(out_channels=5),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
@pytest.mark.parametrize("size", [(8, 8, 8), (5, 9, 14), (1, 3, 6)])
def test_any_size_comes_back_the_same(
    config: UNet3DConfig | DoubleConvUNet3DConfig | ConvBlock3DConfig, size: tuple[int, int, int]
) -> None:
    model = build_projection(config, 3).eval()
    assert model(torch.randn(2, 3, *size)).shape == (2, 5, *size)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_channels_last_in_memory_gives_the_same(
    config: UNet3DConfig | DoubleConvUNet3DConfig | ConvBlock3DConfig,
) -> None:
    model = build_projection(config, 3)
    x = torch.randn(2, 3, 6, 8, 4)
    model.train()
    one = model(x)
    two = model(x.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_every_parameter_gets_a_gradient(
    config: UNet3DConfig | DoubleConvUNet3DConfig | ConvBlock3DConfig,
) -> None:
    model = build_projection(config, 3)
    model(torch.randn(2, 3, 4, 6, 8)).square().sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []
