"""Pixels at many depths, added to the cells of a volume."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from ponderv2.geometry.cameras import unproject
from ponderv2.geometry.features import ImageFeatures, ImageMap
from ponderv2.geometry.transforms import transform_points
from ponderv2.geometry.volumes import SparseVolume
from ponderv2.lift.frustum_pooling.config import FrustumPoolingConfig
from ponderv2.lift.image_lift import ImageLift, corner_of_map
from ponderv2.lift.volume_frame import VolumeFrame

BLOCK = 16_384
"""Pixels at a depth whose features are there at once."""


class FrustumPooling(ImageLift):
    """The features of all pixels at all depths never exist side by side: they are added in blocks."""

    def __init__(self, config: FrustumPoolingConfig, in_channels: int) -> None:
        super().__init__(config, config.depth, in_channels)
        self.depths = config.depth

    def lift(self, features: ImageFeatures, frame: VolumeFrame) -> SparseVolume:
        """Sum over cameras and maps of feature times probability; cells that nothing reaches are empty."""
        cameras = frame.cameras(features.world_to_camera, features.view_scene)
        found: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            for one in features.maps:
                pixel = self._pixels(one, features.padded_size)
                for view, scene in enumerate(features.view_scene.tolist()):
                    found.append(self._reached(pixel, one, view, cameras[view], frame, scene))
            every = torch.cat([cell for cell, _ in found])
            number, row = torch.unique(every, return_inverse=True)
            rows_of_parts = row.split([len(cell) for cell, _ in found])
        wide = torch.promote_types(features.feature.dtype, torch.float32)
        rows = features.feature.new_zeros(len(number), features.feature.shape[1], dtype=wide)
        views = [view for one in features.maps for view in one.views()]
        for (_, entry), target, (feature, likely) in zip(found, rows_of_parts, views, strict=True):
            assert likely is not None
            pixels = feature.flatten(1).T.to(wide).contiguous()
            probability = likely.flatten().to(wide)[entry]
            rows += pooled(pixels, probability, entry % len(pixels), target, len(number))
        n_x, n_y, n_z = frame.cells
        shape = (features.n_scenes, n_z, n_y, n_x)
        return SparseVolume(rows, number, shape, frame.lower.to(wide), frame.upper.to(wide))

    def _pixels(self, one: ImageMap, padded_size: tuple[int, int] | None) -> Float[Tensor, "pixel 2"]:
        """Where the pixels of a map are in it, row by row."""
        rows, columns = one.feature.shape[2:]
        device = one.feature.device
        row, column = torch.meshgrid(
            torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
        )
        pixel = torch.stack([column, row], dim=-1).reshape(-1, 2).double()
        if self.corners:
            pixel = pixel + torch.tensor(corner_of_map(one, padded_size), device=device).double()
        return pixel

    def _reached(
        self,
        pixel: Float[Tensor, "pixel 2"],
        one: ImageMap,
        view: int,
        camera: Float[Tensor, "4 4"],
        frame: VolumeFrame,
        scene: int,
    ) -> tuple[Int[Tensor, " entry"], Int[Tensor, " entry"]]:
        """The cells that the pixels of a view reach, and the number (depth, then pixel) of what reaches each.

        Positions exist for a few depths at once: most of them may lie outside of the volume.
        """
        middle = 0.0 if self.corners else 0.5
        steps = torch.arange(self.depths.n_bins, device=pixel.device).double() + middle
        depths = self.depths.nearest + steps * self.depths.width
        to_volume, intrinsics = torch.linalg.inv(camera.double()), one.intrinsics[view].double()
        parts: list[tuple[Tensor, Tensor]] = []
        at_once = max(BLOCK // len(pixel), 1)
        for number, some in enumerate(depths.split(at_once)):
            points = unproject(pixel.repeat(len(some), 1), some.repeat_interleave(len(pixel)), intrinsics)
            cell, entry = self._cells(transform_points(to_volume, points), frame, scene)
            parts.append((cell, entry + number * at_once * len(pixel)))
        return torch.cat([cell for cell, _ in parts]), torch.cat([entry for _, entry in parts])

    def _cells(
        self, points: Float[Tensor, "point 3"], frame: VolumeFrame, scene: int
    ) -> tuple[Int[Tensor, " entry"], Int[Tensor, " entry"]]:
        """The cells of the points that the volume holds, and which points those are."""
        lower, upper = frame.lower[scene].double(), frame.upper[scene].double()
        cells = torch.tensor(frame.cells, device=points.device)
        place = (points - lower) / (upper - lower) * cells
        # Truncation, as published, also takes what is less than a cell below the range.
        cell = place.trunc().long() if self.corners else place.floor().long()
        inside = ((cell >= 0) & (cell < cells)).all(dim=1)
        entry = inside.nonzero()[:, 0]
        x, y, z = cell[entry].unbind(dim=1)
        n_x, n_y, n_z = frame.cells
        return ((scene * n_z + z) * n_y + y) * n_x + x, entry


def pooled(
    pixels: Float[Tensor, "pixel channel"],
    weight: Float[Tensor, " entry"],
    pixel: Int[Tensor, " entry"],
    row: Int[Tensor, " entry"],
    n_rows: int,
) -> Float[Tensor, "row channel"]:
    """sum of weight[e] pixels[pixel[e]] over the entries e of each row, in blocks. Differentiable once."""
    return _Pooled.apply(pixels, weight, pixel, row, n_rows)


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, pixel: Tensor, row: Tensor, n_rows: int) -> Tensor:
        ctx.save_for_backward(pixels, weight, pixel, row)
        rows = pixels.new_zeros(n_rows, pixels.shape[1])
        for some in torch.arange(len(row), device=row.device).split(BLOCK):
            rows.index_add_(0, row[some], pixels[pixel[some]] * weight[some, None])
        return rows

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        gradient = gradients[0]
        pixels, weight, pixel, row = ctx.saved_tensors
        of_pixels, of_weight = torch.zeros_like(pixels), torch.empty_like(weight)
        for some in torch.arange(len(row), device=row.device).split(BLOCK):
            arriving, at = gradient[row[some]], pixel[some]
            of_weight[some] = (arriving * pixels[at]).sum(1)
            of_pixels.index_add_(0, at, arriving * weight[some, None])
        return of_pixels, of_weight, None, None, None
