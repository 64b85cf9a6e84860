"""How near a rendered image is to the real one: PSNR, SSIM, depth and normal error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class DepthErrors:
    """Of the pixels that count; nan where none does."""

    mean_absolute: float
    """Metres."""
    root_mean_square: float
    """Metres."""
    median: float
    """Metres."""
    n_pixels: int


def psnr(
    picture: Float[Tensor, "row column 3"],
    truth: Float[Tensor, "row column 3"],
    valid: Bool[Tensor, "row column"] | None = None,
) -> float:
    """Peak signal-to-noise ratio of colours 0..1, decibel: -10 log10 of the mean squared error.

    With `valid` over those pixels only. Infinite for equal images, nan where no pixel counts.
    """
    squared = (picture.double() - truth.double()) ** 2
    error = float((squared if valid is None else squared[valid]).mean())
    return math.inf if error == 0 else -10.0 * math.log10(error) if error == error else math.nan


def ssim(picture: Float[Tensor, "row column 3"], truth: Float[Tensor, "row column 3"]) -> float:
    """Structural similarity of colours 0..1, mean over pixels and channels (Wang et al. 2004).

    Gaussian window of 11 x 11 and standard deviation 1.5, constants 0.01 and 0.03, no padding. nan for
    images smaller than the window.
    """
    if min(picture.shape[:2]) < 11:
        return math.nan
    first, second = picture.double().movedim(-1, 0), truth.double().movedim(-1, 0)
    stacked = torch.stack([first, second, first**2, second**2, first * second])
    mean_1, mean_2, square_1, square_2, product = _blurred(stacked)
    variance_1, variance_2 = square_1 - mean_1**2, square_2 - mean_2**2
    covariance = product - mean_1 * mean_2
    c1, c2 = 0.01**2, 0.03**2
    similar = (2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)
    return float((similar / ((mean_1**2 + mean_2**2 + c1) * (variance_1 + variance_2 + c2))).mean())


def _blurred(stacked: Float[Tensor, "kind 3 row column"]) -> Tensor:
    offset = torch.arange(-5, 6, dtype=stacked.dtype, device=stacked.device)
    window = torch.exp(-0.5 * (offset / 1.5) ** 2)
    window = window / window.sum()
    flat = stacked.flatten(0, 1)[:, None]
    blurred = F.conv2d(F.conv2d(flat, window.view(1, 1, 11, 1)), window.view(1, 1, 1, 11))
    return blurred[:, 0].unflatten(0, stacked.shape[:2])


def depth_errors(
    depth: Float[Tensor, "row column"],
    truth: Float[Tensor, "row column"],
    valid: Bool[Tensor, "row column"] | None = None,
) -> DepthErrors:
    """Errors where the truth has a measurement (> 0) and `valid` holds."""
    counts = truth > 0
    error = (depth.double() - truth.double())[counts if valid is None else counts & valid].abs()
    if error.numel() == 0:
        return DepthErrors(math.nan, math.nan, math.nan, 0)
    return DepthErrors(
        float(error.mean()), float((error**2).mean().sqrt()), float(error.median()), error.numel()
    )


def normal_error(
    normal: Float[Tensor, "row column 3"],
    truth: Float[Tensor, "row column 3"],
    valid: Bool[Tensor, "row column"] | None = None,
) -> float:
    """Mean angle between normals, degrees, where both have a direction; nan where no pixel counts."""
    first, second = F.normalize(normal.double(), dim=-1), F.normalize(truth.double(), dim=-1)
    counts = (first.norm(dim=-1) > 0.5) & (second.norm(dim=-1) > 0.5)
    counts = counts if valid is None else counts & valid
    cosine = (first * second).sum(-1)[counts].clamp(-1.0, 1.0)
    return float(torch.rad2deg(torch.arccos(cosine)).mean())


def normals_from_depth(
    depth: Float[Tensor, "row column"], intrinsics: Float[Tensor, "3 3"], largest_step: float = 0.05
) -> Float[Tensor, "row column 3"]:
    """Normals of the measured surface in camera coordinates, towards the camera; zero where unknown.

    From central differences of the unprojected pixels. Unknown at the border, beside missing measurements
    and where neighbours differ by more than `largest_step` of their depth.
    """
    rows, columns = depth.shape
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    pixel = torch.stack([x, y, torch.ones_like(x)], dim=-1).to(depth)
    points = pixel @ torch.linalg.inv(intrinsics).T.to(depth) * depth[..., None]
    normal = torch.zeros(rows, columns, 3, dtype=depth.dtype)
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    inner = F.normalize(torch.linalg.cross(down, across), dim=-1)
    around = torch.stack([depth[1:-1, 2:], depth[1:-1, :-2], depth[2:, 1:-1], depth[:-2, 1:-1]])
    centre = depth[1:-1, 1:-1]
    known = (around > 0).all(dim=0) & ((around - centre).abs() < largest_step * centre).all(dim=0)
    normal[1:-1, 1:-1] = torch.where(known[..., None], inner, 0.0)
    return normal


def mean_metrics(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every metric over the views that have it; nan where none has, as psnr without any colour."""
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: [row[name] for row in rows if math.isfinite(row.get(name, math.nan))] for name in names}
    return {name: sum(values) / len(values) if values else math.nan for name, values in found.items()}
