"""Feature pyramid (Lin et al. 2017): stages of several widths and strides to maps of one width."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Pyramid(nn.Module):
    """1x1 convolutions, coarser maps added to finer ones (nearest neighbour), 3x3 convolutions.

    Further, coarser maps are 3x3 convolutions of stride 2 of the last one, after a ReLU.
    """

    def __init__(self, widths: Sequence[int], channels: int, n_maps: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths)
        self.further = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(n_maps - len(widths))
        )

    def forward(self, stages: Sequence[Tensor]) -> list[Float[Tensor, "view channel row column"]]:
        """The maps, the finest first."""
        sums = [one(stage) for one, stage in zip(self.lateral, stages, strict=True)]
        for number in range(len(sums) - 1, 0, -1):
            finer = sums[number - 1]
            sums[number - 1] = finer + F.interpolate(sums[number], finer.shape[2:], mode="nearest")
        maps = [one(part) for one, part in zip(self.smooth, sums, strict=True)]
        for convolution in self.further:
            maps.append(convolution(maps[-1].relu()))
        return maps
