"""Rays and nearest points on triangles, by both engines, against closed forms and Open3D."""

import numpy as np
import pytest

from ponderv2.geometry.raycasting import Raycaster
from ponderv2.reconstruction.fusion import load_open3d

SQUARE = (
    np.array([[0.0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0], [0, 0, 3], [2, 0, 3], [2, 2, 3], [0, 2, 3]]),
    np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]]),
)
"""Two squares of edge 2 above each other, at heights 0 and 3."""


@pytest.fixture(params=[True, False], ids=["embree", "libigl"])
def engine(request: pytest.FixtureRequest) -> bool:
    if request.param:
        pytest.importorskip("embreex", reason="no wheel of embreex for this machine")
    return request.param


def tangle(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two hundred triangles in any position."""
    return rng.uniform(-1, 1, (600, 3)), np.arange(600).reshape(200, 3)


def test_the_first_of_two_squares_is_hit_at_the_known_distance(engine: bool) -> None:
    squares = Raycaster(*SQUARE, embree=engine)
    origins = np.array([[0.5, 1.0, 1.0], [0.5, 1.0, 1.0], [0.5, 1.0, 1.0], [0.5, 1.0, -2.0]])
    directions = np.array([[0, 0, 1.0], [0, 0, -0.5], [1.0, 0, 0], [0.0, 0.1, 1.0]])
    distance, face = squares.cast(origins, directions)
    # Lengths of the direction: half the direction, twice the number. Along x nothing is hit.
    assert distance.tolist() == pytest.approx([2.0, 2.0, np.inf, 2.0])
    assert face.tolist() == [3, 1, -1, 1]
    assert squares.occluded(origins, directions, until=2.1).tolist() == [True, True, False, True]
    assert not squares.occluded(origins, directions, until=1.9).any()


def test_the_nearest_point_is_on_a_face_an_edge_or_a_corner(engine: bool) -> None:
    squares = Raycaster(*SQUARE, embree=engine)
    points = np.array([[1.5, 0.5, 0.4], [-3.0, 1.5, 0.0], [5.0, 6.0, 3.0]])
    distance, face = squares.nearest(points)
    assert distance.tolist() == pytest.approx([0.4, 3.0, 5.0])
    assert face.tolist()[0] == 0 and face.tolist()[1] == 1 and face.tolist()[2] in (2, 3)
    assert np.allclose(squares.face_normals(), [0, 0, 1])


def test_both_engines_agree_with_open3d(engine: bool) -> None:
    o3d = load_open3d()
    rng = np.random.default_rng(4)
    vertices, faces = tangle(rng)
    ours = Raycaster(vertices, faces, embree=engine)
    theirs = o3d.t.geometry.RaycastingScene(nthreads=1)
    theirs.add_triangles(
        o3d.core.Tensor(vertices.astype(np.float32)), o3d.core.Tensor(faces.astype(np.uint32))
    )
    rays = rng.uniform(-1, 1, (3000, 6)).astype(np.float32)
    distance, face = ours.cast(rays[:, :3], rays[:, 3:])
    answer = theirs.cast_rays(o3d.core.Tensor(rays), nthreads=1)
    hit = np.isfinite(answer["t_hit"].numpy())
    assert 500 < hit.sum() < 2900
    assert (np.isfinite(distance) == hit).all() and ((face >= 0) == hit).all()
    assert np.allclose(distance[hit], answer["t_hit"].numpy()[hit], rtol=1e-4, atol=1e-5)
    assert (face[hit] == answer["primitive_ids"].numpy()[hit]).mean() > 0.999
    cosine = (ours.face_normals()[face[hit]] * answer["primitive_normals"].numpy()[hit]).sum(axis=1)
    assert (
        np.quantile(np.abs(cosine) / np.linalg.norm(answer["primitive_normals"].numpy()[hit], axis=1), 0.01)
        > 0.999
    )

    near, _ = ours.nearest(rays[:, :3])
    found = theirs.compute_closest_points(o3d.core.Tensor(rays[:, :3].copy()), nthreads=1)
    # Open3D looks for them in float32.
    assert np.allclose(near, np.linalg.norm(found["points"].numpy() - rays[:, :3], axis=1), atol=1e-4)


def test_no_ray_and_no_point_give_nothing(engine: bool) -> None:
    squares = Raycaster(*SQUARE, embree=engine)
    none = np.zeros((0, 3))
    assert [len(part) for part in (*squares.cast(none, none), *squares.nearest(none))] == [0, 0, 0, 0]


def test_a_face_of_missing_vertices_is_refused() -> None:
    with pytest.raises(ValueError, match="3 vertices"):
        Raycaster(np.zeros((3, 3)), np.array([[0, 1, 3]]))
    with pytest.raises(ValueError, match="got 0 faces"):
        Raycaster(np.zeros((3, 3)), np.zeros((0, 3), np.int64))
