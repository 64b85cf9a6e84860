"""Features of images averaged over the views that show a cell."""

from __future__ import annotations

import torch
from ponderv2.lift.mean_of_views.config import MeanOfViewsConfig
from torch import nn

from ponderv2.geometry.cameras import project
from ponderv2.geometry.features import Features, ImageFeatures
from ponderv2.geometry.transforms import transform_points
from ponderv2.geometry.volumes import SparseVolume
from ponderv2.lift.volume_frame import VolumeFrame


class MeanOfViews(nn.Module):
    """Features of images to a volume; it learns nothing."""

    def __init__(self, config: MeanOfViewsConfig) -> None:
        super().__init__()

    def forward(self, features: Features, frame: VolumeFrame) -> SparseVolume:
        """Nearest pixel of every view at the centre of every cell, averaged; zero where no view looks."""
        assert isinstance(features, ImageFeatures)
        n_x, n_y, n_z = frame.cells
        z, y, x = torch.meshgrid(torch.arange(n_z), torch.arange(n_y), torch.arange(n_x), indexing="ij")
        fraction = (torch.stack([x, y, z], dim=-1).reshape(-1, 3) + 0.5) / torch.tensor(frame.cells)
        cameras = frame.cameras(features.world_to_camera, features.view_scene)
        rows, columns = features.feature.shape[2:]
        total = features.feature.new_zeros(features.n_scenes, len(fraction), features.feature.shape[1])
        count = features.feature.new_zeros(features.n_scenes, len(fraction), 1)
        for view, scene in enumerate(features.view_scene.tolist()):
            lower, upper = frame.lower[scene], frame.upper[scene]
            centre = (lower + fraction.to(lower) * (upper - lower)).float()
            pixel, depth = project(transform_points(cameras[view], centre), features.intrinsics[view])
            column, row = pixel.round().long().unbind(dim=1)
            seen = (depth > 0) & (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
            where = seen.nonzero()[:, 0]
            shown = features.feature[view, :, row[where], column[where]].T
            total = total.index_put((torch.tensor(scene), where), shown, accumulate=True)
            count[scene, where] += 1
        values = (total / count.clamp(min=1)).flatten(0, 1)
        return SparseVolume(
            rows=values,
            number=torch.arange(len(values), device=values.device),
            shape=(features.n_scenes, n_z, n_y, n_x),
            lower=frame.lower.to(values.dtype),
            upper=frame.upper.to(values.dtype),
        )
