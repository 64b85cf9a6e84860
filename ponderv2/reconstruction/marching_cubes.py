"""Signed distance on a grid -> triangles, block by block, so that memory does not grow with the scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.geometry.connected_components import connected_components
from ponderv2.geometry.meshes import Mesh

if TYPE_CHECKING:
    from numpy import ndarray

SignedDistance = Callable[[Float[Tensor, "point 3"]], Float[Tensor, " point"]]
"""Points in scene units -> signed distance, positive in free space; nan where nothing is known."""


@dataclass(frozen=True)
class Lattice:
    """Points of a regular grid: lower + cell * (x, y, z)."""

    lower: Float[Tensor, "3"]
    cell: float
    size: tuple[int, int, int]
    """Points along x, y, z."""

    @staticmethod
    def covering(lower: Float[Tensor, "3"], upper: Float[Tensor, "3"], cell: float) -> Lattice:
        """The smallest lattice from `lower` on that reaches `upper`."""
        x, y, z = (torch.ceil((upper - lower) / cell - 1e-6).long() + 1).tolist()
        return Lattice(lower, cell, (x, y, z))

    def points(self, first: tuple[int, ...], last: tuple[int, ...]) -> Float[Tensor, "point 3"]:
        """Of the block from `first` to `last` (inclusive), x-major."""
        axes = [torch.arange(a, b + 1, dtype=torch.float64) for a, b in zip(first, last, strict=True)]
        index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
        return (self.lower.double() + self.cell * index).float()


def extract_surface(
    signed_distance: SignedDistance,
    lattice: Lattice,
    block: int = 64,
    occupied: Callable[[Float[Tensor, "3"], Float[Tensor, "3"]], bool] | None = None,
) -> Mesh:
    """Marching cubes (Lewiner) at distance zero; faces are counter-clockwise seen from free space.

    Blocks of `block` cells share a layer of points, and the vertices on it are joined afterwards. Blocks for
    which `occupied(lower, upper)` is false are skipped. Raises SceneError with the range of distances when
    there is no surface.
    """
    vertices: list[Tensor] = []
    faces: list[Tensor] = []
    n_vertices, smallest, largest = 0, float("inf"), float("-inf")
    for first, last in _blocks(lattice, block):
        if occupied is not None and not occupied(_corner(lattice, first), _corner(lattice, last)):
            continue
        values = signed_distance(lattice.points(first, last)).detach().float().cpu().numpy()
        if np.isfinite(values).any():
            smallest, largest = min(smallest, np.nanmin(values)), max(largest, np.nanmax(values))
        shape = [b - a + 1 for a, b in zip(first, last, strict=True)]
        found = _marching_cubes(values.reshape(shape))
        if found is not None:
            vertices.append(found[0] + torch.tensor(first))
            faces.append(found[1] + n_vertices)
            n_vertices += len(found[0])
    if not faces:
        raise SceneError(
            f"the signed distance has no zero crossing: it runs from {smallest:.3f} to {largest:.3f}",
            fix="train longer, or fit the scene's own frames first, for long: --refine 2000",
        )
    return _in_scene_units(*_joined(torch.cat(vertices), torch.cat(faces), lattice, block), lattice)


def _blocks(lattice: Lattice, block: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    starts = [range(0, max(size - 1, 1), block) for size in lattice.size]
    for x in starts[0]:
        for y in starts[1]:
            for z in starts[2]:
                first = (x, y, z)
                yield first, tuple(min(a + block, n - 1) for a, n in zip(first, lattice.size, strict=True))


def _corner(lattice: Lattice, index: tuple[int, ...]) -> Float[Tensor, "3"]:
    return lattice.lower + lattice.cell * torch.tensor(index, dtype=lattice.lower.dtype)


def _marching_cubes(
    values: ndarray,
) -> tuple[Float[Tensor, "vertex 3"], Int[Tensor, "face 3"]] | None:
    """Vertices in cells and faces of one block. Cells that touch an unknown value give nothing."""
    from skimage.measure import marching_cubes

    known = np.isfinite(values)
    if min(values.shape) < 2 or not known.any() or not (values[known].min() < 0 < values[known].max()):
        return None
    try:
        # descent by the left-hand rule: seen from the larger values faces are counter-clockwise.
        # 1.0 where unknown: those cells are dropped below.
        filled = np.where(known, values, 1.0)
        vertices, faces, _, _ = marching_cubes(filled, 0.0, gradient_direction="descent")
    except (RuntimeError, ValueError):  # skimage: no surface
        return None
    if not known.all():
        cell = np.floor(vertices[faces].mean(axis=1)).astype(np.int64)
        faces = faces[_known_cells(known)[cell[:, 0], cell[:, 1], cell[:, 2]]]
    if len(faces) == 0:
        return None
    return torch.from_numpy(vertices.astype(np.float64)), torch.from_numpy(faces.astype(np.int64))


def _known_cells(known: ndarray) -> ndarray:
    """Cells whose 8 corners are all known."""
    cells = np.ones([n - 1 for n in known.shape], dtype=bool)
    for corner in np.ndindex(2, 2, 2):
        cells &= known[tuple(slice(at, at + n) for at, n in zip(corner, cells.shape, strict=True))]
    return cells


def _joined(
    vertices: Float[Tensor, "vertex 3"], faces: Int[Tensor, "face 3"], lattice: Lattice, block: int
) -> tuple[Float[Tensor, "joined 3"], Int[Tensor, "used 3"]]:
    """Vertices on faces between blocks occur once per block: make them one, drop faces that vanish."""
    from scipy.spatial import KDTree

    remainder = torch.remainder(vertices + block / 2, block) - block / 2
    shared = torch.nonzero((remainder.abs() < 1e-3).any(dim=-1))[:, 0]
    label = torch.arange(len(vertices))
    if len(shared) and max(lattice.size) - 1 > block:
        pairs = shared.numpy()[KDTree(vertices[shared].numpy()).query_pairs(1e-3, output_type="ndarray")]
        first, second = torch.from_numpy(pairs.astype(np.int64)).unbind(dim=1)
        label = connected_components(first, second, len(vertices))
    n_joined = int(label.max()) + 1
    merged = torch.zeros(n_joined, 3, dtype=vertices.dtype)
    merged[label] = vertices
    faces = label[faces]
    a, b, c = faces.unbind(dim=1)
    return merged, faces[(a != b) & (b != c) & (c != a)]


def _in_scene_units(vertices: Tensor, faces: Tensor, lattice: Lattice) -> Mesh:
    mesh = Mesh((lattice.lower.double() + lattice.cell * vertices).float(), faces)
    return mesh.with_faces(torch.ones(len(faces), dtype=torch.bool))
