"""Heights from above of a plane and of points, where they are known."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ponderv2.geometry.rays import RayBundle
from ponderv2.reconstruction.birds_eye import heights_of_field, heights_of_points
from ponderv2.renderer.renderer import RenderedRays


@dataclass
class Slope:
    """z = 0.1 x where y > 0, in a frame of the volume that is moved and `scale` times as large."""

    scale: float = 0.25

    @property
    def lower(self) -> Tensor:
        return torch.tensor([-4.0, -3.0, -1.0])

    @property
    def upper(self) -> Tensor:
        return torch.tensor([4.0, 3.0, 2.0])

    @property
    def to_volume(self) -> Tensor:
        matrix = torch.eye(4) * self.scale
        matrix[:, 3] = torch.tensor([5.0, 6.0, 7.0, 1.0])
        return matrix

    def render(self, rays: RayBundle, chunk: int) -> RenderedRays:
        back = torch.linalg.inv(self.to_volume)
        start = rays.origins @ back[:3, :3].T + back[:3, 3]
        assert torch.equal(rays.directions[:, :2], torch.zeros(len(rays), 2))
        distance = (start[:, 2] - 0.1 * start[:, 0]) * self.scale
        opacity = (start[:, 1] > 0).float()
        return RenderedRays(torch.zeros(len(rays), 3), distance, torch.zeros(len(rays), 3), opacity)

    def signed_distance(self, points: Tensor) -> Tensor:
        raise NotImplementedError

    def color(self, points: Tensor, directions: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def cell(self) -> float:
        return 0.5

    @property
    def has_color(self) -> bool:
        return True

    def frame_gain(self, frame_id: str | None) -> Tensor:
        return torch.ones(3)


@pytest.mark.parametrize("cell", [0.5, 1.0])
def test_heights_are_those_of_the_surface_and_unknown_where_none_is(cell: float) -> None:
    found = heights_of_field(Slope(), cell)
    n_rows, n_columns = round(6 / cell), round(8 / cell)
    assert found.shape == (n_rows, n_columns)
    assert bool(torch.isnan(found[n_rows // 2 :]).all())
    x = -4.0 + cell * (torch.arange(n_columns) + 0.5)
    torch.testing.assert_close(found[: n_rows // 2], (0.1 * x).expand(n_rows // 2, -1), atol=1e-4, rtol=0)


def test_of_the_points_of_a_cell_the_highest_is_shown() -> None:
    points = torch.tensor([[-3.9, 2.9, 0.0], [-3.8, 2.8, 0.7], [3.9, -2.9, 1.5], [0.0, 0.0, 9.0]])
    found = heights_of_points(points, Slope(), 1.0)
    assert found.shape == (6, 8) and float(found[0, 0]) == pytest.approx(0.7)
    assert float(found[5, 7]) == pytest.approx(1.5) and int(torch.isfinite(found).sum()) == 2
