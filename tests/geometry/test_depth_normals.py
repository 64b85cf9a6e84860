"""Normals of depth images against planes and spheres in closed form."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ponderv2.geometry.depth_normals import normals_of_depth

WIDTH, HEIGHT = 40, 30
CAMERA = torch.tensor([[36.0, 0.0, 19.2], [0.0, 34.0, 14.1], [0.0, 0.0, 1.0]], dtype=torch.float64)
ALL = torch.arange(WIDTH * HEIGHT)


def rays() -> torch.Tensor:
    """(x, y, 1) of every pixel."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    pixel = torch.stack([x, y, torch.ones_like(x)], dim=-1).double()
    return pixel @ torch.linalg.inv(CAMERA).T


def plane(normal: tuple[float, float, float], distance: float) -> torch.Tensor:
    """Depth of the plane n p = -distance; 0 where it is not seen."""
    n = F.normalize(torch.tensor(normal, dtype=torch.float64), dim=0)
    depth = -distance / (rays() @ n)
    return torch.where(depth > 0, depth, 0.0)


@pytest.mark.parametrize("normal", [(0.0, 0.0, -1.0), (0.4, -0.2, -0.8), (-0.7, 0.1, -0.6)])
@pytest.mark.parametrize("radius", [1, 2, 3])
def test_the_normal_of_a_plane_is_exact_up_to_the_border(
    normal: tuple[float, float, float], radius: int
) -> None:
    found = normals_of_depth(plane(normal, 2.0), ALL, CAMERA, radius)
    seen = (found != 0).any(dim=1)
    corners = torch.tensor([0, WIDTH - 1, WIDTH * (HEIGHT - 1), WIDTH * HEIGHT - 1])
    inner = seen.view(HEIGHT, WIDTH)[radius:-radius, radius:-radius]
    assert inner.all() and (radius == 1 or not seen[corners].all())
    expected = F.normalize(torch.tensor(normal, dtype=torch.float64), dim=0)
    torch.testing.assert_close(found[seen], expected.expand(int(seen.sum()), 3))


def test_the_normals_of_a_sphere_point_away_from_its_centre() -> None:
    centre, reach = torch.tensor([0.1, -0.05, 3.0], dtype=torch.float64), 1.0
    direction = rays()
    b, a = direction @ centre, direction.square().sum(-1)
    inside = b.square() - a * (centre.square().sum() - reach**2)
    depth = torch.where(inside > 0, (b - inside.clamp(min=0).sqrt()) / a, 0.0)
    found = normals_of_depth(depth, ALL, CAMERA, 1)
    expected = (direction * depth[..., None] - centre).reshape(-1, 3) / reach
    facing = -(F.normalize(direction, dim=-1).reshape(-1, 3) * expected).sum(1)
    steep = facing < 0.6
    cosine = (found * expected).sum(1)
    known = (depth.reshape(-1) > 0) & ~steep
    assert known.sum() > 200 and cosine[known].min() > 0.999
    assert (found[depth.reshape(-1) == 0] == 0).all()


def test_a_step_in_depth_does_not_bend_the_normals_beside_it() -> None:
    near, far = plane((0.0, 0.0, -1.0), 1.5), plane((0.3, 0.0, -1.0), 3.0)
    columns = torch.arange(WIDTH)
    depth = torch.where(columns < 20, near, far)
    found = normals_of_depth(depth, ALL, CAMERA, 2).view(HEIGHT, WIDTH, 3)
    known = (found != 0).any(-1)
    assert known[5:-5, 18:22].all()  # more than half of the window is on the pixel's own side
    torch.testing.assert_close(found[5:-5, 15:20, 2], -torch.ones(20, 5, dtype=torch.float64))
    tilted = F.normalize(torch.tensor([0.3, 0.0, -1.0], dtype=torch.float64), dim=0)
    torch.testing.assert_close(found[5:-5, 20:25], tilted.expand(20, 5, 3))


def test_the_window_has_an_angle_where_no_radius_is_given(rng: torch.Generator) -> None:
    """Half a degree at 640 x 480, and never less than two pixels: the noise averages out alike."""
    depth = 2.0 + 0.01 * torch.randn(HEIGHT, WIDTH, generator=rng, dtype=torch.float64)
    for factor, radius in ((1.0, 2), (16.0, 5)):  # 36 and 576 pixels
        camera = CAMERA.clone()
        camera[:2] *= factor
        found = normals_of_depth(depth, ALL, camera)
        assert torch.equal(found, normals_of_depth(depth, ALL, camera, radius))
        assert not torch.equal(found, normals_of_depth(depth, ALL, camera, radius + 1))


def test_without_measurements_there_is_no_normal() -> None:
    depth = torch.zeros(HEIGHT, WIDTH)
    assert (normals_of_depth(depth, ALL, CAMERA.float()) == 0).all()
    depth[10, 5:15] = 2.0  # a line determines no plane
    found = normals_of_depth(depth, ALL, CAMERA.float(), 1)
    assert torch.isfinite(found).all() and (found == 0).all()
