"""Features of the encoder along rays: what a pixel shows, as the encoder itself knows it.

The volume that colours and distances are rendered from is made by a network on top of the encoder. It may do
the work in the encoder's place; what it knows can then not be read from the encoder by a linear layer. A
target that is linear in these features can.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.geometry.interpolation import RowIndex, corners_at, weighted_sum
from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.volumes import SparseVolume

LEAST_SHARE = 0.05
"""Of the weights of a ray in occupied cells. With less its feature shrinks towards zero."""


def composited_features(
    volume: SparseVolume,
    rays: RayBundle,
    starts: Float[Tensor, "ray sample"],
    weights: Float[Tensor, "ray sample"],
) -> Float[Tensor, "ray channel"]:
    """sum_i w_i E(x_i) / sum_i w_i O(x_i) over the samples of a ray.

    E interpolates the rows of the occupied cells, O is the same of ones: the quotient is a mean over occupied
    cells, whatever part of the ray lies in empty ones. It is linear in the rows; the cost is linear in the
    samples and does not depend on the empty cells.
    """
    n_rays, n_samples = starts.shape
    if n_rays == 0 or len(volume.number) == 0:
        return volume.rows.new_zeros(n_rays, volume.rows.shape[1])
    with torch.no_grad():
        points = (rays.origins[:, None] + rays.directions[:, None] * starts[..., None]).reshape(-1, 3)
        scene = rays.scene[:, None].expand_as(starts).reshape(-1)
        n_scenes, *cells = volume.shape
        grid = volume.with_values(volume.rows.new_zeros(()).expand(n_scenes, 1, *cells))
        corners = corners_at(grid, points, scene)
        # From numbers of cells to rows of the occupied ones; what is empty has coefficient 0.
        number = corners.index.index.long()
        row = torch.searchsorted(volume.number, number).clamp(max=len(volume.number) - 1)
        share = corners.weight[:, 0] * (volume.number[row] == number)
        index = RowIndex(row.view(n_rays, -1), len(volume.rows))
    coefficient = weights[:, :, None] * share.view(n_rays, n_samples, -1)
    coefficient = coefficient.reshape(n_rays, 1, -1)
    total = weighted_sum(volume.rows, coefficient, index)[:, 0]
    return total / coefficient.sum(-1).clamp(min=LEAST_SHARE)
