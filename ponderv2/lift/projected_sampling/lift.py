"""Cells projected into the images: bilinear features, weighted by the probability of their depth."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ponderv2.geometry.features import ImageFeatures, ImageMap
from ponderv2.geometry.transforms import transform_points
from ponderv2.geometry.volumes import SparseVolume
from ponderv2.lift.config import DepthBinsConfig
from ponderv2.lift.image_lift import ImageLift
from ponderv2.lift.projected_sampling.config import ProjectedSamplingConfig
from ponderv2.lift.volume_frame import VolumeFrame

LEAST_DEPTH = 1.0e-5
"""Metres: what is nearer is behind the camera."""


class ProjectedSampling(ImageLift):
    """Only cells that a camera shows are looked up: nothing is as large as all pixels times all depths but
    the distribution of depth itself, at the resolution of the maps."""

    def __init__(self, config: ProjectedSamplingConfig, in_channels: int) -> None:
        super().__init__(config, config.depth, in_channels)
        self.takes_mean = config.reduction == "mean"

    def lift(self, features: ImageFeatures, frame: VolumeFrame) -> SparseVolume:
        """Sum, or mean, over the cameras that see a cell; cells that none sees are empty."""
        position = node_positions(frame, corner=self.corners)
        n_nodes = position.shape[1]
        cameras = frame.cameras(features.world_to_camera, features.view_scene)
        seen: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.no_grad():
            for view, scene in enumerate(features.view_scene.tolist()):
                in_camera = transform_points(cameras[view].double(), position[scene])
                index, place, depth = self._seen(in_camera, features.maps[0], view)
                seen.append((index + scene * n_nodes, place, depth))
            every = torch.cat([index for index, _, _ in seen])
            number, row = torch.unique(every, return_inverse=True)
            rows_of_views = row.split([len(index) for index, _, _ in seen])
        wide = torch.promote_types(features.feature.dtype, torch.float32)
        rows = features.feature.new_zeros(len(number), features.feature.shape[1], dtype=wide)
        maps_of_views = zip(*(one.views() for one in features.maps), strict=True)
        for (_, place, depth), target, maps in zip(seen, rows_of_views, maps_of_views, strict=True):
            if len(target):
                parts = [_looked_up(values, likely, place, depth, self.bins) for values, likely in maps]
                rows.index_add_(0, target, torch.stack(parts).sum(0) if len(parts) > 1 else parts[0])
        if self.takes_mean:
            counts = torch.bincount(row, minlength=len(number)).clamp(min=1)
            rows = rows / counts[:, None].to(wide)
        n_x, n_y, n_z = frame.cells
        shape = (features.n_scenes, n_z, n_y, n_x)
        return SparseVolume(rows, number, shape, frame.lower.to(wide), frame.upper.to(wide))

    def _seen(self, in_camera: Tensor, one: ImageMap, view: int) -> tuple[Tensor, Tensor, Tensor]:
        """Cells in front of a camera, in its (padded) image and within the depths: their numbers, where they
        are in the image (0 to 1, from edge to edge), and their depths."""
        projected = in_camera @ one.intrinsics[view].double().T
        pixel, depth = projected[:, :2] / projected[:, 2:], in_camera[:, 2]
        rows, columns = one.feature.shape[2:]
        place = (pixel + 0.5) / torch.tensor([columns, rows], dtype=pixel.dtype, device=pixel.device)
        inside = (depth > LEAST_DEPTH) & ((place > 0) & (place < 1)).all(dim=1)
        if self.bins is not None:
            inside &= (depth >= self.bins.nearest) & (depth < self.bins.farthest)
        index = inside.nonzero()[:, 0]
        return index, place[index], depth[index]


def _looked_up(
    values: Float[Tensor, "channel row column"],
    likely: Float[Tensor, "bin row column"] | None,
    place: Float[Tensor, "node 2"],
    depth: Float[Tensor, " node"],
    bins: DepthBinsConfig | None,
) -> Float[Tensor, "node channel"]:
    """Bilinear feature times trilinear probability, zeros outside of the map."""
    values = values[None].to(torch.promote_types(values.dtype, torch.float32))
    grid = (place * 2 - 1).to(values.dtype)
    feature = F.grid_sample(values, grid[None, None], mode="bilinear", align_corners=False)[0, :, 0].T
    if bins is None or likely is None:
        return feature
    share = ((depth - bins.nearest) / (bins.n_bins * bins.width) * 2 - 1).to(values.dtype)
    where = torch.cat([grid, share[:, None]], dim=1)[None, None, None]
    volume = likely.to(values.dtype)[None, None]
    probability = F.grid_sample(volume, where, mode="bilinear", align_corners=False)[0, 0, 0, 0]
    return feature * probability[:, None]


def node_positions(frame: VolumeFrame, corner: bool) -> Float[Tensor, "scene node 3"]:
    """Middles (or lower corners) of the cells of every scene, x fastest, then y, then z; double precision."""
    n_x, n_y, n_z = frame.cells
    device = frame.lower.device
    axes = [torch.arange(n, device=device, dtype=torch.float64) for n in (n_z, n_y, n_x)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    cells = torch.stack([x, y, z], dim=-1).reshape(-1, 3) + (0.0 if corner else 0.5)
    share = cells / torch.tensor(frame.cells, device=device)
    lower, upper = frame.lower.double(), frame.upper.double()
    return lower[:, None] + share * (upper - lower)[:, None]
