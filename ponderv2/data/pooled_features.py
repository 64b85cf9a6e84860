"""Image features of a scene averaged in space, over all images that show a place.

Features of one image say where they were seen from, and what lies beside a thing in the image however far
behind it; the mean over all images and over what is near in space keeps what belongs to the place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.data.views import FramePixels, surface_points
from ponderv2.data.voxelise import voxelise
from ponderv2.geometry.nearest_points import NearestPoints
from ponderv2.scenes.scene import Frame

CELL = 0.75
"""Side of the cells that are averaged first, in deviations of the mean."""
FARTHEST = 2.5
"""Deviations beyond which a cell does not count."""
MOST_VIEWS = 8.0
"""Values in a cell beyond which it counts no more."""


@dataclass(frozen=True)
class PooledFeatures:
    """A feature for every cell of a scene that an image with a depth shows."""

    cells: NearestPoints
    """The means of the cells, in the frame of the scene, with the reach of a feature."""
    feature: Float[Tensor, "cell channel"]

    @staticmethod
    def of(
        frames: Sequence[Frame], decode: Callable[[Frame], FramePixels], deviation: float, n_channels: int
    ) -> PooledFeatures:
        """Gaussian means of the features at the cells of the feature maps.

        Args:
            frames: Of a scene that was not moved. Those without depth or features do not count.
            decode: Gives their images, with features.
            deviation: Of the Gaussian, in units of the scene.
            n_channels: Of the features.
        """
        from scipy.sparse import coo_matrix, identity

        found = [one for frame in frames if (one := _lifted(frame, decode(frame))) is not None]
        if not found:
            return PooledFeatures(
                NearestPoints.of(torch.zeros(0, 3), deviation), torch.zeros(0, n_channels).half()
            )
        points, values = (torch.cat(part) for part in zip(*found, strict=True))
        cell = voxelise(points, CELL * deviation).inverse
        count = torch.bincount(cell)[:, None].to(values.dtype)
        middle = torch.zeros(len(count), 3).index_add_(0, cell, points) / count
        mean = torch.zeros(len(count), values.shape[1]).index_add_(0, cell, values) / count
        cells = NearestPoints.of(middle, deviation)
        tree = cells.tree
        assert tree is not None
        pairs = tree.sparse_distance_matrix(tree, FARTHEST * deviation, output_type="coo_matrix")
        others = pairs.row != pairs.col
        weight = np.exp(-0.5 * np.square(pairs.data[others] / deviation))
        near = coo_matrix((weight, (pairs.row[others], pairs.col[others])), shape=pairs.shape).tocsr()
        near = near + identity(len(count))
        share = count.clamp(max=MOST_VIEWS).numpy()
        pooled = (near @ (share * mean.numpy())) / (near @ share)
        return PooledFeatures(cells, torch.from_numpy(pooled).half())

    @property
    def n_bytes(self) -> int:
        """Memory, about."""
        return 100 * len(self.feature) + 2 * self.feature.numel() + 1000

    def at(self, points: Float[Tensor, "query 3"]) -> Float[Tensor, "query channel"]:
        """Of the nearest cell; zero where none is within reach."""
        found = torch.zeros(len(points), self.feature.shape[1])
        row = self.cells.rows(points)
        near = row >= 0
        found[near] = self.feature[row[near]].float()
        return found


def _lifted(frame: Frame, decoded: FramePixels) -> tuple[Tensor, Tensor] | None:
    """Where the cells of a feature map lie in the scene, and their features."""
    values = decoded.image_feature
    if values is None or not decoded.measured:
        return None
    n_rows, n_columns = values.shape[1:]
    height, width = decoded.depth.shape
    row = ((torch.arange(n_rows) + 0.5) * height / n_rows).long()
    column = ((torch.arange(n_columns) + 0.5) * width / n_columns).long()
    numbers = (row[:, None] * width + column).flatten()
    vectors = values.flatten(1).T.float()
    usable = (decoded.depth.flatten()[numbers] > 0) & torch.isfinite(vectors).all(dim=1)
    if not bool(usable.any()):
        return None
    return surface_points(frame, decoded, numbers[usable]), vectors[usable]
