"""Normals of points from a mesh: of the face on which the nearest point of the surface lies. Metres."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from ponderv2.geometry.normals import face_normals

SPACING = 0.03
"""Metres between the samples of the surface, of which the nearest are candidates."""
N_CANDIDATES = 6
MOST_STEPS = 400
"""Along the edge of one face."""
MOST_SAMPLES = 500_000
"""As many as 450 square metres have in large faces; beyond that they lie wider apart."""
CHUNK = 1 << 15


def near_box(
    triangles: Float64[ndarray, "face 3 3"],
    lower: Float64[ndarray, "3"],
    upper: Float64[ndarray, "3"],
) -> Float64[ndarray, "kept 3 3"]:
    """Triangles that have an area and reach into a box."""
    reach = (triangles.max(axis=1) >= lower) & (triangles.min(axis=1) <= upper)
    kept = triangles[reach.all(axis=1)]
    area = np.linalg.norm(np.cross(kept[:, 1] - kept[:, 0], kept[:, 2] - kept[:, 0]), axis=1)
    return kept[area > 1e-10]


def nearest_normals(
    points: Float64[ndarray, "point 3"], triangles: Float64[ndarray, "face 3 3"]
) -> tuple[Float32[ndarray, "point 3"], Float32[ndarray, " point"]]:
    """Normal of the nearest face and the distance to it, metres.

    Candidates are the faces of the nearest samples of the surface; among them the distance is exact.
    """
    from scipy.spatial import KDTree

    sample, face = _surface_samples(triangles)
    tree = KDTree(sample)
    normal = face_normals(triangles)
    found = np.empty(points.shape, np.float32)
    distance = np.empty(len(points), np.float32)
    for start in range(0, len(points), CHUNK):
        part = slice(start, start + CHUNK)
        near = np.asarray(tree.query(points[part], k=min(N_CANDIDATES, len(sample)))[1])
        candidate = face[near.reshape(len(points[part]), -1)]
        squared = squared_distance(points[part][:, None], triangles[candidate])
        best = squared.argmin(axis=1)
        rows = np.arange(len(best))
        found[part] = normal[candidate[rows, best]]
        distance[part] = np.sqrt(squared[rows, best])
    return found, distance


def _surface_samples(
    triangles: Float64[ndarray, "face 3 3"],
) -> tuple[Float64[ndarray, "sample 3"], Int64[ndarray, " sample"]]:
    """Points at most SPACING apart on every triangle, if there are not too many, and the triangle of each."""
    longest = np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=2).max(axis=1)
    steps = np.clip(np.ceil(longest / SPACING), 1, MOST_STEPS).astype(np.int64)
    n_samples = int((steps * (steps + 1) // 2).sum())
    if n_samples > MOST_SAMPLES:  # farther apart
        steps = np.maximum((steps * np.sqrt(MOST_SAMPLES / n_samples)).astype(np.int64), 1)
    samples, faces = [], []
    for n_steps in np.unique(steps):
        chosen = np.flatnonzero(steps == n_steps)
        first, second = np.meshgrid(np.arange(n_steps), np.arange(n_steps), indexing="ij")
        inside = first + second < n_steps
        # Centres of the small triangles, so that faces with a common edge share no sample.
        share = np.stack([first[inside], second[inside]], axis=1) / n_steps + 1 / (3 * n_steps)
        weight = np.concatenate([1 - share.sum(axis=1, keepdims=True), share], axis=1)
        samples.append(np.einsum("wc,fcd->fwd", weight, triangles[chosen]).reshape(-1, 3))
        faces.append(np.repeat(chosen, len(weight)))
    return np.concatenate(samples), np.concatenate(faces)


def squared_distance(
    points: Float64[ndarray, "#row #column 3"], triangles: Float64[ndarray, "row column 3 3"]
) -> Float64[ndarray, "row column"]:
    """From points to triangles: to the plane where the foot lies inside, else to the nearest edge."""
    corner = [triangles[..., index, :] for index in range(3)]
    normal = np.cross(corner[1] - corner[0], corner[2] - corner[0])
    inside = np.ones(triangles.shape[:2], bool)
    edge = np.full(triangles.shape[:2], np.inf)
    for index in range(3):
        along = corner[(index + 1) % 3] - corner[index]
        away = points - corner[index]
        inside &= (np.cross(along, away) * normal).sum(axis=-1) >= 0
        length = np.maximum((along * along).sum(axis=-1), 1e-20)
        share = np.clip((away * along).sum(axis=-1) / length, 0.0, 1.0)
        edge = np.minimum(edge, ((away - share[..., None] * along) ** 2).sum(axis=-1))
    plane = ((points - corner[0]) * normal).sum(axis=-1) ** 2 / (normal * normal).sum(axis=-1)
    return np.where(inside, plane, edge)
