"""Normals of points from a mesh: of the face on which the nearest place of the surface lies. Metres."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from ponderv2.errors import SceneError

SPACING = 0.03
"""Metres between the places of the surface among which candidates are looked for."""
N_CANDIDATES = 6
MOST_STEPS = 400
"""Along the edge of one face."""
MOST_PLACES = 500_000
"""As many as 450 square metres have in large faces; beyond that they lie wider apart."""
CHUNK = 1 << 15


@lru_cache(maxsize=2)
def read_obj(path: Path) -> Float32[ndarray, "face 3 3"]:
    """Corners of all triangles of a Wavefront file; kept, since the rooms of an area share one.

    Polygons become fans. Raises SceneError when the file cannot be read.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error
    vertices: list[ndarray] = []
    faces: list[ndarray] = []
    n_vertices = 0
    for kind, lines in _runs(text):
        try:
            if kind == b"v":
                vertices.append(_numbers(lines, 3))
                n_vertices += len(vertices[-1])
            elif kind == b"f":
                faces.append(_triangles(lines, n_vertices))
        except (ValueError, OverflowError) as error:
            raise SceneError(f"{path} is damaged ({error})", fix="unpack the archive again") from error
    if not vertices or not faces:
        raise SceneError(f"{path} holds no surface", fix="unpack the archive again")
    corner, place = np.concatenate(faces), np.concatenate(vertices).astype(np.float32)
    if corner.min(initial=0) < 0 or corner.max(initial=-1) >= n_vertices:
        raise SceneError(f"{path} has faces without vertices", fix="unpack the archive again")
    if not np.isfinite(place).all():
        raise SceneError(f"{path} has vertices that are nowhere", fix="unpack the archive again")
    return place[corner]


def _runs(text: bytes) -> list[tuple[bytes, bytes]]:
    """Neighbouring lines that begin with the same word."""
    characters = np.frombuffer(text, np.uint8)
    start = np.concatenate([[0], np.flatnonzero(characters == 10) + 1])
    start = start[start < len(characters) - 1]
    if not len(start):
        return []
    kind = characters[start].astype(np.int64) * 256 + characters[start + 1]
    first = start[np.flatnonzero(np.diff(kind, prepend=-1))]
    stop = np.append(first[1:], len(characters))
    runs = [(text[one:two].split(None, 1)[:1], text[one:two]) for one, two in zip(first, stop, strict=True)]
    return [(word[0], lines) for word, lines in runs if word]


def _numbers(lines: bytes, width: int) -> Float64[ndarray, "row width"]:
    """The first numbers of every line, after its word."""
    n_lines = len(lines.strip().splitlines())
    values = np.array(lines.replace(b"v", b" ").split(), np.float64)
    rows = values.reshape(n_lines, -1)[:, :width]
    if rows.shape[1] != width:
        raise ValueError(f"rows of {rows.shape[1]} numbers")
    return rows


def _triangles(lines: bytes, n_vertices: int) -> Int64[ndarray, "face 3"]:
    """Vertex numbers from 0, of `f a b c`, `f a/t/n b/t/n c/t/n` and polygons."""
    rows = [[word.split(b"/", 1)[0] for word in line.split()[1:]] for line in lines.strip().splitlines()]
    fans = [(row[0], row[at], row[at + 1]) for row in rows for at in range(1, len(row) - 1)]
    number = np.array(fans, np.int64).reshape(-1, 3)
    return np.where(number < 0, number + n_vertices, number - 1)


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


def face_normals(triangles: Float64[ndarray, "face 3 3"]) -> Float64[ndarray, "face 3"]:
    """Unit normals, corners counter-clockwise."""
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def nearest_normals(
    points: Float64[ndarray, "point 3"], triangles: Float64[ndarray, "face 3 3"]
) -> tuple[Float32[ndarray, "point 3"], Float32[ndarray, " point"]]:
    """Normal of the nearest face and the distance to it, metres.

    Candidates are the faces of the nearest places on an even net; among them the distance is exact.
    """
    from scipy.spatial import KDTree

    place, face = _net(triangles)
    tree = KDTree(place)
    normal = face_normals(triangles)
    found = np.empty(points.shape, np.float32)
    distance = np.empty(len(points), np.float32)
    for start in range(0, len(points), CHUNK):
        part = slice(start, start + CHUNK)
        near = np.asarray(tree.query(points[part], k=min(N_CANDIDATES, len(place)))[1])
        candidate = face[near.reshape(len(points[part]), -1)]
        squared = squared_distance(points[part][:, None], triangles[candidate])
        best = squared.argmin(axis=1)
        rows = np.arange(len(best))
        found[part] = normal[candidate[rows, best]]
        distance[part] = np.sqrt(squared[rows, best])
    return found, distance


def _net(
    triangles: Float64[ndarray, "face 3 3"],
) -> tuple[Float64[ndarray, "place 3"], Int64[ndarray, " place"]]:
    """Places at most SPACING apart on every triangle, if there are not too many, and the triangle of each."""
    longest = np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=2).max(axis=1)
    steps = np.clip(np.ceil(longest / SPACING), 1, MOST_STEPS).astype(np.int64)
    n_places = int((steps * (steps + 1) // 2).sum())
    if n_places > MOST_PLACES:  # a coarser net
        steps = np.maximum((steps * np.sqrt(MOST_PLACES / n_places)).astype(np.int64), 1)
    places, faces = [], []
    for n_steps in np.unique(steps):
        chosen = np.flatnonzero(steps == n_steps)
        first, second = np.meshgrid(np.arange(n_steps), np.arange(n_steps), indexing="ij")
        inside = first + second < n_steps
        # Centres of the small triangles, so that faces with a common edge share no place.
        share = np.stack([first[inside], second[inside]], axis=1) / n_steps + 1 / (3 * n_steps)
        weight = np.concatenate([1 - share.sum(axis=1, keepdims=True), share], axis=1)
        places.append(np.einsum("wc,fcd->fwd", weight, triangles[chosen]).reshape(-1, 3))
        faces.append(np.repeat(chosen, len(weight)))
    return np.concatenate(places), np.concatenate(faces)


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
