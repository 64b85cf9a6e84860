"""Where cells are centred: networks that copy an image of coordinates must give each pixel its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.data.config import ImageFeaturesConfig
from ponderv2.image_features.alignment import Centres, CentreTrace, on_grid
from ponderv2.image_features.network import ImageNetwork, InputRules, Provenance
from ponderv2.scenes.feature_maps import sample_feature_map


def averaging(kernel: int, stride: int, padding: int | str = 0) -> nn.Conv2d:
    """The mean over the kernel: of a linear image the value at the kernel's middle."""
    layer = nn.Conv2d(3, 3, kernel, stride, padding, groups=3, bias=False)
    nn.init.constant_(layer.weight, 1.0 / kernel**2)
    return layer


class TensorFlowPadding(nn.Conv2d):
    """Pads in its own code, the larger half at the end, so that the output has a ceil(size / stride) side."""

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        for length in reversed(input.shape[2:]):
            total = max((-(-length // self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - length, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads))


def same(kernel: int, stride: int) -> nn.Conv2d:
    layer = TensorFlowPadding(3, 3, kernel, stride, groups=3, bias=False)
    nn.init.constant_(layer.weight, 1.0 / kernel**2)
    return layer


class Layers(nn.Module):
    """The outputs of all stages."""

    def __init__(self, *stages: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = []
        for stage in self.stages:
            images = stage(images)
            found.append(images)
        return tuple(found)


class Residual(nn.Module):
    """A strided block with a shortcut of a 1 x 1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.shortcut = averaging(3, 2, 1), averaging(1, 2)

    def forward(self, values: Tensor) -> Tensor:
        return (self.main(values) + self.shortcut(values)) / 2.0


NETWORKS = {
    "patches": (averaging(8, 8),),
    "symmetric": (averaging(3, 2, 1), averaging(3, 2, 1), averaging(5, 2, 2)),
    "tensorflow": (same(3, 2), same(5, 2), same(3, 2)),
    "valid": (averaging(3, 1), averaging(4, 4)),
    "pooled": (averaging(3, 2, 1), nn.AvgPool2d(2, 2), averaging(2, 2)),
    "residual": (averaging(3, 2, 1), Residual(), Residual()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pixel_gets_its_own_coordinates_from_every_layer(name: str) -> None:
    height, width = 64, 96
    rules = InputRules((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), longest_side=96, multiple=8)
    config = ImageFeaturesConfig(cell=8)
    network = ImageNetwork(Layers(*NETWORKS[name]), rules, Provenance(name, "here", "0"), config)
    row, column = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    image = torch.stack([column / width, row / height, torch.zeros_like(row)])

    features = network(image[None])[0]

    assert features.shape == (3 * len(NETWORKS[name]), 8, 12)
    pixel = torch.tensor([[30.0, 30.0], [47.5, 33.25], [60.0, 28.0]])
    found = sample_feature_map(features, pixel, (width, height))
    for layer in range(len(NETWORKS[name])):
        torch.testing.assert_close(found[:, 3 * layer] * width, pixel[:, 0], rtol=0, atol=0.02)
        torch.testing.assert_close(found[:, 3 * layer + 1] * height, pixel[:, 1], rtol=0, atol=0.02)


def test_centres_follow_the_arithmetic_of_convolutions() -> None:
    layers = Layers(averaging(3, 2, 1), averaging(3, 2, 1), averaging(7, 1, 3))
    with CentreTrace(layers, (32, 40)) as trace:
        layers(torch.zeros(1, 3, 32, 40))
    assert trace.of((16, 20)) == (Centres(0.0, 2.0), Centres(0.0, 2.0))
    assert trace.of((8, 10)) == (Centres(0.0, 4.0), Centres(0.0, 4.0))
    # A size that nothing led to is taken for an even partition.
    assert trace.of((4, 4)) == (Centres(3.5, 8.0), Centres(4.5, 10.0))


def test_a_map_on_its_own_grid_is_unchanged_and_a_coarser_grid_keeps_constants(rng: torch.Generator) -> None:
    values = torch.randn(2, 3, 6, 8, generator=rng)
    even = Centres.even(48, 6), Centres.even(64, 8)
    torch.testing.assert_close(on_grid(values, even, (48, 64), (6, 8)), values)
    constant = on_grid(torch.ones(1, 1, 6, 8), even, (48, 64), (2, 3))
    torch.testing.assert_close(constant, torch.ones(1, 1, 2, 3))


def test_images_are_resized_to_multiples_with_their_aspect() -> None:
    rules = InputRules(longest_side=320, multiple=14)
    network = ImageNetwork(Layers(averaging(14, 14)), rules, Provenance("x", "y", "z"), ImageFeaturesConfig())
    assert network.input_size(480, 640) == (238, 322)
    assert network.grid_size(480, 640) == (17, 23)
    assert network.input_size(640, 480) == (322, 238)
    assert network.input_size(1, 4000) == (14, 322)
