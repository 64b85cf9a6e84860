"""What an encoder gives to everything after it: feature vectors at positions, or feature maps at cameras."""

from __future__ import annotations

from dataclasses import dataclass

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


Features = PointFeatures | ImageFeatures
