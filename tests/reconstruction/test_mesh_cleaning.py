"""What was observed of a box, and small components."""

from __future__ import annotations

import pytest
import torch

from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import Camera
from ponderv2.geometry.meshes import Mesh, SurfacePoints, merged, vertex_normals
from ponderv2.reconstruction.meshes import (
    DepthView,
    cropped,
    near_cloud,
    observed_points,
    remove_small_components,
)
from ponderv2.scenes.scene import PointCloud


def wall(depth: float, turned: bool = False, n: int = 9) -> Mesh:
    """A square of 2 x 2 m across the optical axis, facing the camera at the origin unless turned."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, n), torch.linspace(-1, 1, n), indexing="ij")
    vertices = torch.stack([x, y, torch.full_like(x, depth)], dim=-1).reshape(-1, 3)
    corner = (torch.arange(n - 1)[:, None] * n + torch.arange(n - 1)).reshape(-1)
    faces = torch.cat(
        [
            torch.stack([corner, corner + n, corner + 1], dim=-1),
            torch.stack([corner + 1, corner + n, corner + n + 1], dim=-1),
        ]
    )
    return Mesh(vertices, faces.flip(-1) if turned else faces)


def surface_of(mesh: Mesh) -> SurfacePoints:
    return SurfacePoints(mesh.vertices, vertex_normals(mesh))


def view(depth: float = 2.0) -> DepthView:
    """A camera at the origin that looks along z and measured a wall; its image reaches half a metre."""
    intrinsics = torch.tensor([[36.0, 0, 9.5], [0, 36.0, 9.5], [0, 0, 1]])
    return DepthView(Camera(intrinsics, torch.eye(4), 20, 20), torch.full((20, 20), depth))


def test_the_wall_of_this_test_faces_the_camera():
    assert (vertex_normals(wall(2.0))[:, 2] < 0).all()


def test_only_what_the_picture_shows_is_seen():
    mesh = wall(2.0)
    seen = observed_points(surface_of(mesh), [view()], 0.05)
    inside = mesh.vertices[:, :2].abs().amax(dim=-1) <= 0.5
    assert torch.equal(seen, inside)


@pytest.mark.parametrize("mesh", [wall(2.2), wall(1.7), wall(-2.0), wall(2.0, turned=True)])
def test_behind_before_backwards_and_behind_the_camera_is_not_seen(mesh):
    assert not observed_points(surface_of(mesh), [view()], 0.05).any()


def test_no_measurement_sees_nothing():
    assert not observed_points(surface_of(wall(2.0)), [view(0.0)], 0.05).any()


def test_near_cloud_keeps_what_faces_as_the_points_do():
    points = wall(2.0).vertices[:20]
    normal = torch.tensor([0.0, 0.0, -1.0]).expand(20, 3)
    cloud = PointCloud(points, torch.zeros(20, 3), normal)
    kept = near_cloud(wall(2.04), cloud, 0.05)
    assert kept[:20].all() and not kept[40:].any()
    assert not near_cloud(wall(2.04, turned=True), cloud, 0.05).any()


def test_small_components_go_and_the_largest_stays():
    small = Mesh(torch.eye(3) + 5.0, torch.tensor([[0, 1, 2]]))
    assert len(remove_small_components(merged([wall(2.0), small]), 10).faces) == len(wall(2.0).faces)
    assert len(remove_small_components(small, 10).faces) == 1


def test_nothing_observed_is_a_clear_error():
    with pytest.raises(SceneError, match="none of the"):
        cropped(wall(2.0), torch.zeros(81, dtype=torch.bool))
