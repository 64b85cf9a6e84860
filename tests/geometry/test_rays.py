"""Rays through pixels and against boxes, compared with projection and with points on the faces."""

from __future__ import annotations

import torch

from ponderv2.geometry.cameras import project
from ponderv2.geometry.rays import RayBundle, intersect_box, rays_that_hit, rays_through_pixels
from ponderv2.geometry.transforms import transform_points


def _views(rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Two cameras; the second mirrors and scales."""
    intrinsics = torch.tensor([[50.0, 0.0, 31.0], [0.0, 55.0, 23.0], [0.0, 0.0, 1.0]]).expand(2, -1, -1)
    rotation, _ = torch.linalg.qr(torch.randn(2, 3, 3, generator=rng))
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[:, :3, :3] = rotation * torch.tensor([1.0, 4.0])[:, None, None]
    poses[1, :3, 0] *= -1
    poses[:, :3, 3] = torch.randn(2, 3, generator=rng)
    return intrinsics.contiguous(), poses


def test_points_along_rays_project_back_to_their_pixels(rng: torch.Generator) -> None:
    intrinsics, poses = _views(rng)
    pixel = torch.rand(40, 2, generator=rng) * torch.tensor([63.0, 47.0])
    view = torch.randint(0, 2, (40,), generator=rng)
    depth = torch.rand(40, generator=rng) + 0.5
    found = rays_through_pixels(pixel, view, intrinsics, poses, torch.tensor([3, 5]))
    points = found.rays.origins + found.rays.directions * (depth * found.distance_per_depth)[:, None]
    projected, measured = project(transform_points(poses[view], points), intrinsics[view])
    torch.testing.assert_close(projected, pixel, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(measured, depth, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.rays.directions.norm(dim=-1), torch.ones(40))
    torch.testing.assert_close(found.rays.scene, torch.tensor([3, 5])[view])


def test_distance_is_depth_over_the_cosine_when_the_pose_only_scales(rng: torch.Generator) -> None:
    intrinsics, poses = _views(rng)
    pixel = torch.rand(10, 2, generator=rng) * 40
    view = torch.ones(10, dtype=torch.long)
    found = rays_through_pixels(pixel, view, intrinsics, poses, torch.tensor([0, 0]))
    scale = torch.linalg.det(poses[1, :3, :3]).abs() ** (1 / 3)
    torch.testing.assert_close(found.distance_per_depth, 1.0 / (found.cosine * scale))


def test_box_is_entered_and_left_at_its_faces() -> None:
    origins = torch.tensor([[-2.0, 0.1, 0.2], [0.0, 0.0, 0.0], [-2.0, 3.0, 0.0], [2.0, 0.0, 0.0]])
    directions = torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [1.0, 0, 0], [1.0, 0, 0]])
    rays = RayBundle(origins, directions, torch.zeros(4).long())
    box = torch.tensor([[-0.5, -0.5, -0.5]]), torch.tensor([[0.5, 0.5, 0.7]])
    near, far = intersect_box(rays, *box, near_plane=0.01)
    torch.testing.assert_close(near, torch.tensor([1.5, 0.01, 0.0, 0.0]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(far, torch.tensor([2.5, 0.7, 0.0, 0.0]), rtol=1e-4, atol=1e-4)
    assert rays_that_hit(rays, *box).tolist() == [True, True, False, False]


def test_each_ray_meets_the_box_of_its_scene() -> None:
    rays = RayBundle(torch.zeros(2, 3), torch.tensor([[0.0, 0.6, 0.8]] * 2), torch.tensor([0, 1]))
    half = torch.tensor([[1.0], [2.0]]).expand(2, 3)
    _, far = intersect_box(rays, -half, half, near_plane=0.0)
    torch.testing.assert_close(far, torch.tensor([1.25, 2.5]), rtol=1e-4, atol=1e-4)
