"""Rays and nearest points on a triangle mesh. Metres.

Embree casts the rays (`embreex`, about ten times as fast), libigl where Embree has no wheel (Linux on ARM);
libigl finds the nearest points. Everything runs on one thread: results do not depend on the number of cores.
"""

from __future__ import annotations

from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from numpy import ndarray

from ponderv2.geometry.normals import face_normals


class Raycaster:
    """A triangle mesh that answers queries."""

    def __init__(
        self,
        vertices: Float[ndarray, "vertex 3"],
        faces: Integer[ndarray, "face 3"],
        embree: bool | None = None,
    ) -> None:
        """Build the search tree of the rays; that of the nearest points follows when it is needed.

        Args:
            vertices: positions; rounded to float32, as Embree keeps them.
            faces: indices of the corners.
            embree: which library casts the rays; None = Embree where it is installed.

        Raises:
            ValueError: there is no triangle, or an index of a vertex that does not exist.
        """
        if len(faces) == 0 or faces.min() < 0 or faces.max() >= len(vertices):
            raise ValueError(f"expected triangles of {len(vertices)} vertices, got {len(faces)} faces")
        self._vertices = np.ascontiguousarray(vertices, np.float32).astype(np.float64)
        self._faces = np.ascontiguousarray(faces, np.int64)
        self._embree: Any = None
        if embree if embree is not None else find_spec("embreex") is not None:
            self._embree = _embree_scene(self._vertices, self._faces)

    @cached_property
    def _tree(self) -> Any:
        import igl

        tree = igl.AABB()
        tree.init(self._vertices, self._faces)
        return tree

    def cast(
        self, origins: Float[ndarray, "ray 3"], directions: Float[ndarray, "ray 3"]
    ) -> tuple[Float[ndarray, " ray"], Int[ndarray, " ray"]]:
        """First hit of each ray: distance in lengths of the direction (inf = none) and face (-1 = none)."""
        if len(origins) == 0:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        if self._embree is not None:
            start, along = (np.ascontiguousarray(part, np.float32) for part in (origins, directions))
            answer = self._embree.run(start, along, output=True)
            distance, face = answer["tfar"], answer["primID"].astype(np.int64)
        else:
            start, along = (np.ascontiguousarray(part, np.float64) for part in (origins, directions))
            face, distance, _ = self._tree.intersect_ray_first(self._vertices, self._faces, start, along)
        distance = np.where(face >= 0, distance, np.inf).astype(np.float32)
        return distance, np.where(face >= 0, face, -1).astype(np.int64)

    def occluded(
        self, origins: Float[ndarray, "ray 3"], directions: Float[ndarray, "ray 3"], until: float
    ) -> Bool[ndarray, " ray"]:
        """Whether something lies on each ray nearer than `until` lengths of its direction."""
        distance, _ = self.cast(origins, directions)
        return distance < until

    def nearest(
        self, points: Float[ndarray, "point 3"]
    ) -> tuple[Float[ndarray, " point"], Int[ndarray, " point"]]:
        """Distance of each point to the mesh, and the face that is nearest."""
        if len(points) == 0:
            return np.zeros(0), np.zeros(0, np.int64)
        asked = np.ascontiguousarray(points, np.float64)
        squared, face, _ = self._tree.squared_distance(self._vertices, self._faces, asked)
        return np.sqrt(squared), face.astype(np.int64)

    def face_normals(self) -> Float[ndarray, "face 3"]:
        """Unit normals by the order of the corners; zero for a face without area."""
        return face_normals(self._vertices[self._faces]).astype(np.float32)


def _embree_scene(vertices: Float[ndarray, "vertex 3"], faces: Int[ndarray, "face 3"]) -> Any:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, vertices.astype(np.float32), faces.astype(np.int32))
    return scene
