"""How near a surface is to a reference: accuracy, completeness, F-score, chamfer distance, normals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.geometry.meshes import Mesh, SurfacePoints, sample_surface


@dataclass(frozen=True)
class SurfaceMetrics:
    """Nearest-neighbour distances between points on two surfaces. Metres, shares 0..1."""

    accuracy: float
    """Mean distance from the surface to the reference."""
    completeness: float
    """Mean distance from the reference to the surface."""
    chamfer: float
    """Mean of accuracy and completeness (chamfer-L1)."""
    precision: float
    """Share of the surface that is nearer than `threshold` to the reference."""
    recall: float
    """Share of the reference that is nearer than `threshold` to the surface."""
    f_score: float
    """Harmonic mean of precision and recall; 0 when both are."""
    normal_consistency: float
    """Mean |cosine| between the normals of nearest neighbours, both ways."""
    threshold: float


def compare_meshes(
    mesh: Mesh,
    reference: Mesh,
    generator: torch.Generator,
    threshold: float = 0.05,
    n_points: int = 200_000,
) -> SurfaceMetrics:
    """Metrics from points spread evenly over both surfaces. ValueError: one has no area."""
    first, second = sample_surface(mesh, n_points, generator), sample_surface(reference, n_points, generator)
    return compare_surfaces(first, second, threshold)


def compare_surfaces(points: SurfacePoints, reference: SurfacePoints, threshold: float) -> SurfaceMetrics:
    """Metrics of two sets of points that cover their surfaces evenly."""
    to_reference, partner = _nearest(points.points, reference.points)
    to_surface, other = _nearest(reference.points, points.points)
    precision = float((to_reference < threshold).double().mean())
    recall = float((to_surface < threshold).double().mean())
    both = precision + recall
    accuracy, completeness = float(to_reference.mean()), float(to_surface.mean())
    agree_1 = (points.normals * reference.normals[partner]).sum(-1).abs().mean()
    agree_2 = (reference.normals * points.normals[other]).sum(-1).abs().mean()
    return SurfaceMetrics(
        accuracy=accuracy,
        completeness=completeness,
        chamfer=(accuracy + completeness) / 2,
        precision=precision,
        recall=recall,
        f_score=2 * precision * recall / both if both > 0 else 0.0,
        normal_consistency=float((agree_1 + agree_2) / 2),
        threshold=threshold,
    )


def _nearest(
    points: Float[Tensor, "point 3"], others: Float[Tensor, "other 3"]
) -> tuple[Float[Tensor, " point"], Int[Tensor, " point"]]:
    from scipy.spatial import KDTree

    # Walls along the axes tie whole branches of the tree: turning everything makes that 6 times as fast.
    turn = torch.linalg.qr(torch.tensor([[3.0, 1.0, 2.0], [1.0, 4.0, -1.0], [-2.0, 1.0, 5.0]]).double())[0]
    tree = KDTree((others.double() @ turn).numpy())
    distance, index = tree.query((points.double() @ turn).numpy())
    return torch.from_numpy(distance), torch.from_numpy(index)
