"""Cameras: round trips, and one map for all points against one map each."""

from __future__ import annotations

import torch

from ponderv2.geometry.cameras import Camera, project, unproject
from ponderv2.geometry.transforms import transform_points


def test_one_map_for_all_points_equals_the_same_map_for_each(rng: torch.Generator):
    points = torch.randn(7, 5, 3, generator=rng, dtype=torch.float64)
    transform = torch.eye(4, dtype=torch.float64) + 0.3 * torch.randn(4, 4, generator=rng).double()
    each = transform_points(transform.expand(7, 5, 4, 4), points)
    assert torch.allclose(transform_points(transform, points), each, rtol=1e-12)
    assert torch.allclose(transform_points(transform, points[0, 0]), each[0, 0], rtol=1e-12)


def test_project_undoes_unproject_with_a_pixel_that_is_not_square(rng: torch.Generator):
    intrinsics = torch.tensor([[500.0, 2.0, 31.0], [0.0, 380.0, 20.0], [0.0, 0.0, 1.0]])
    pixel, depth = 60.0 * torch.rand(9, 2, generator=rng), 1.0 + torch.rand(9, generator=rng)
    back, far = project(unproject(pixel, depth, intrinsics.expand(9, 3, 3)), intrinsics.expand(9, 3, 3))
    assert torch.allclose(back, pixel, atol=1e-3) and torch.allclose(far, depth)


def test_a_camera_moves_with_the_world(rng: torch.Generator):
    moved_by = torch.eye(4)
    moved_by[:3] += 0.2 * torch.randn(3, 4, generator=rng)
    world_to_camera = torch.eye(4)
    world_to_camera[:3, 3] = torch.tensor([0.1, -0.4, 2.0])
    camera = Camera(torch.eye(3), world_to_camera, 64, 48)
    points = torch.randn(6, 3, generator=rng)
    moved = transform_points(camera.moved(moved_by).world_to_camera, transform_points(moved_by, points))
    assert torch.allclose(moved, transform_points(camera.world_to_camera, points), atol=1e-5)
    centre = transform_points(world_to_camera, camera.centre)
    assert torch.allclose(centre, torch.zeros(3), atol=1e-6)
