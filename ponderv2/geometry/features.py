"""What an encoder gives to everything after it: feature vectors at positions, or feature maps at cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PointFeatures:
    """A feature vector at each of some positions, scenes concatenated."""

    feature: Float[Tensor, "point channel"]
    coord: Float[Tensor, "point 3"]
    """Where the vectors are, in the frame and units of the scenes."""
    offset: Int[Tensor, " scene"]
    """Exclusive ends of the scenes."""

    @property
    def n_scenes(self) -> int:
        """Scenes of the batch, also those without a point."""
        return len(self.offset)


@dataclass(frozen=True)
class ImageMap:
    """A feature map for each of some views, and where its pixels look."""

    feature: Float[Tensor, "view channel row column"]
    intrinsics: Float[Tensor, "view 3 3"]
    """Of the pixels of the map, whose centres are at integers."""
    depth_probability: Float[Tensor, "view bin row column"] | None = None
    """How likely what a pixel shows is in each of some intervals of depth; None: not estimated."""

    def views(self) -> list[tuple[Tensor, Tensor | None]]:
        """Features and probabilities of each view. All at once, as the gradient of a view that is taken alone
        is as large as that of all."""
        of_depth = self.depth_probability
        apart = [None] * len(self.feature) if of_depth is None else of_depth.unbind()
        return list(zip(self.feature.unbind(), apart, strict=True))


@dataclass(frozen=True)
class ImageFeatures:
    """A feature map for each of some views, in the order of the scenes that they show."""

    feature: Float[Tensor, "view channel row column"]
    intrinsics: Float[Tensor, "view 3 3"]
    """Of the pixels of the *maps*, whose centres are at integers."""
    world_to_camera: Float[Tensor, "view 4 4"]
    """From the frame of the scene: any invertible affine map."""
    view_scene: Int[Tensor, " view"]
    """Scene of the batch that each view shows."""
    n_scenes: int
    coarser: tuple[ImageMap, ...] = ()
    """Further maps of the same views, each coarser than the one before."""
    padded_size: tuple[int, int] | None = None
    """Rows and columns of the images that the maps cover; None: a map has the size of its images."""
    depth_probability: Float[Tensor, "view bin row column"] | None = None
    """As in `ImageMap`, of the finest map."""

    @property
    def maps(self) -> tuple[ImageMap, ...]:
        """All maps, the finest first."""
        return (ImageMap(self.feature, self.intrinsics, self.depth_probability), *self.coarser)

    def with_maps(self, maps: Sequence[ImageMap]) -> ImageFeatures:
        """The same views with other maps."""
        first = maps[0]
        return replace(
            self,
            feature=first.feature,
            intrinsics=first.intrinsics,
            depth_probability=first.depth_probability,
            coarser=tuple(maps[1:]),
        )


@dataclass(frozen=True)
class FusedFeatures:
    """Features of points and of images of the same scenes, of one width."""

    points: PointFeatures
    images: ImageFeatures

    @property
    def n_scenes(self) -> int:
        """Scenes of the batch."""
        return self.points.n_scenes

    @property
    def feature(self) -> Float[Tensor, "point channel"]:
        """Of the points."""
        return self.points.feature


Features = PointFeatures | ImageFeatures | FusedFeatures


def intrinsics_of_map(
    intrinsics: Float[Tensor, "view 3 3"], size: Sequence[int], image_size: Sequence[int]
) -> Float[Tensor, "view 3 3"]:
    """Of the pixels of a map of `size` rows and columns that covers images of `image_size`, whose intrinsics
    are given. Outer edges agree, and pixel centres are at integers in both."""
    y, x = (small / large for small, large in zip(size, image_size, strict=True))
    to_map = torch.tensor([[x, 0.0, x / 2 - 0.5], [0.0, y, y / 2 - 0.5], [0.0, 0.0, 1.0]])
    return to_map.to(intrinsics) @ intrinsics
