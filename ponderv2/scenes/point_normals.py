"""Normals of processed clouds: of unit length; for clouds that come without, estimated once and cached."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from ponderv2.geometry.normals import estimate_normals
from ponderv2.io.disk_cache import cached
from ponderv2.scenes.origin import far_outliers
from ponderv2.scenes.point_cloud_files import finite_rows

NOTE = "the scene has no normals: they were estimated from the points around each point"
ALL_ZERO = "the normals of the scene are all zero: they were estimated from the points around each point"
OF_UNIT_LENGTH = 0.02
"""Deviation of the usual length from 1 up to which normals are left as they are, to the last bit."""
FEW = 0.01
"""Share of points without a normal that is not worth a sentence."""


def unit_normals(
    values: ndarray, coord: Float[Tensor, "point 3"], source: Path, fix: str
) -> tuple[Float[Tensor, "row 3"], tuple[str, ...]]:
    """Normals of a file, and what to report about them.

    Where they are not of unit length, as bytes of -127..127 are, every one is divided by its length. Where
    all are zero, they are estimated. Single zeros stay. Raises SceneError where some are not finite.
    """
    normal = finite_rows(values, source, fix)
    length = torch.linalg.vector_norm(normal, dim=1)
    there = length > 0
    if not bool(there.any()):
        return (cached_normals(coord), (ALL_ZERO,)) if len(normal) else (normal, ())
    n_zero = int((~there).sum())
    notes = (f"{n_zero} of {len(normal)} normals are zero",) if n_zero > FEW * len(normal) else ()
    typical = float(length[there].median())
    if abs(typical - 1.0) <= OF_UNIT_LENGTH:
        return normal, notes
    unit = normal / torch.where(there, length, torch.ones_like(length))[:, None]
    return unit, (*notes, f"normals were of length {typical:.4g} and were divided by their lengths")


def cached_normals(coord: Float[Tensor, "point 3"]) -> Float[Tensor, "point 3"]:
    """Unit normals by principal components of 16 neighbours, turned towards the middle of the scene.

    For the same points nothing is computed again.
    """

    def make() -> dict[str, np.ndarray]:
        points = coord.numpy().astype(np.float64)
        middle = points[~far_outliers(points)].mean(axis=0)
        return {"normal": estimate_normals(points, towards=middle[None])}

    content = hashlib.sha256(coord.contiguous().numpy().data).hexdigest()
    found = cached("normals", content, make).get("normal")
    if found is None or found.shape != tuple(coord.shape) or found.dtype != np.float32:
        found = make()["normal"]
    return torch.from_numpy(found)
