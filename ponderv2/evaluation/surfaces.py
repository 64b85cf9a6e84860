"""How near a surface is to a reference: accuracy, completeness, F-score, chamfer distance, normals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ponderv2.geometry.meshes import Mesh, SurfacePoints, sample_surface
from ponderv2.geometry.raycasting import Raycaster


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
    expected: Callable[[SurfacePoints], Bool[Tensor, " point"]] | None = None,
) -> SurfaceMetrics:
    """Metrics from points spread evenly over either surface to the other surface, not to points on it.

    `expected` says which points of the reference the mesh is asked to have (those that were observed): only
    there is completeness measured. To be near any part of the reference is accurate.

    Raises:
        ValueError: one has no area, or nothing is expected.
    """
    points, wanted = sample_surface(mesh, n_points, generator), sample_surface(reference, n_points, generator)
    if expected is not None:
        wanted = wanted.part(expected(wanted))
    if len(wanted.points) == 0:
        raise ValueError("no point of the reference is expected")
    forth = _distance_and_cosine(points, reference)
    back = _distance_and_cosine(wanted, mesh)
    return _metrics(forth, back, threshold)


def compare_surfaces(points: SurfacePoints, reference: SurfacePoints, threshold: float) -> SurfaceMetrics:
    """Metrics of two sets of points that cover their surfaces evenly (and densely, beside the threshold)."""
    to_reference, partner = _nearest(points.points, reference.points)
    to_surface, other = _nearest(reference.points, points.points)
    forth = (points.normals * reference.normals[partner]).sum(-1).abs()
    back = (reference.normals * points.normals[other]).sum(-1).abs()
    return _metrics((to_reference, forth), (to_surface, back), threshold)


def _metrics(forth: tuple[Tensor, Tensor], back: tuple[Tensor, Tensor], threshold: float) -> SurfaceMetrics:
    """From distances and cosines of the surface's points to the reference, and of the reference's to it."""
    precision = float((forth[0] < threshold).double().mean())
    recall = float((back[0] < threshold).double().mean())
    both = precision + recall
    accuracy, completeness = float(forth[0].double().mean()), float(back[0].double().mean())
    return SurfaceMetrics(
        accuracy=accuracy,
        completeness=completeness,
        chamfer=(accuracy + completeness) / 2,
        precision=precision,
        recall=recall,
        f_score=2 * precision * recall / both if both > 0 else 0.0,
        normal_consistency=float((forth[1].double().mean() + back[1].double().mean()) / 2),
        threshold=threshold,
    )


def _distance_and_cosine(
    points: SurfacePoints, mesh: Mesh
) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Exact distance to a mesh, and |cosine| between the normals there."""
    raycaster = Raycaster(mesh.vertices.numpy(), mesh.faces.numpy())
    distance, face = raycaster.nearest(points.points.numpy())
    normal = torch.from_numpy(raycaster.face_normals()[face])
    return torch.from_numpy(distance), (normal * points.normals).sum(-1).abs()


def _nearest(
    points: Float[Tensor, "point 3"], others: Float[Tensor, "other 3"]
) -> tuple[Float[Tensor, " point"], Int[Tensor, " point"]]:
    from scipy.spatial import KDTree

    # Walls along the axes tie whole branches of the tree: turning everything makes that 6 times as fast.
    turn = torch.linalg.qr(torch.tensor([[3.0, 1.0, 2.0], [1.0, 4.0, -1.0], [-2.0, 1.0, 5.0]]).double())[0]
    tree = KDTree((others.double() @ turn).numpy())
    distance, index = tree.query((points.double() @ turn).numpy())
    return torch.from_numpy(distance), torch.from_numpy(index)
