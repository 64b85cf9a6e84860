"""One scene as lattices of signed distance and colour feature, fitted to its own frames. Metres."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ponderv2.geometry.interpolation import corner_products
from ponderv2.geometry.rays import RayBundle, intersect_box
from ponderv2.out_of_memory import in_chunks
from ponderv2.reconstruction.config import RefineConfig
from ponderv2.renderer.compositing import neus_alpha, weights_from_alpha
from ponderv2.renderer.renderer import RenderedRays
from ponderv2.renderer.sampling import Interval, importance_edges


@dataclass(frozen=True)
class LatticeCorners:
    """The 8 lattice points around each point. Corner-major, which is several times faster on a CPU."""

    rows: Int[Tensor, "8 point"]
    """x fastest. One beyond the last row for lattice points that hold no value: they count as zero."""
    fraction: Float[Tensor, "3 point"]
    """x, y, z within the cell, 0..1."""
    cell: float

    def interpolate(self, table: Float[Tensor, "row channel"]) -> Float[Tensor, "point channel"]:
        """The values at the points."""
        factors = (torch.stack([1.0 - part, part]) for part in self.fraction)
        weight = corner_products(*factors) * (self.rows < len(table))
        rows = self.rows.clamp(max=len(table) - 1).T.contiguous()
        return F.embedding_bag(rows, table, mode="sum", per_sample_weights=weight.T.contiguous())

    def interpolate_scalar(self, table: Float[Tensor, " row"]) -> Float[Tensor, " point"]:
        """The value at the points."""
        value = self._corners(table)
        for part in self.fraction:
            value = torch.lerp(value[0::2], value[1::2], part)
        return value[0]

    def slope(self, table: Float[Tensor, " row"]) -> Float[Tensor, "point 3"]:
        """The derivative of `interpolate_scalar` with respect to the points."""
        slopes = []
        for axis in range(3):
            value = self._corners(table)
            for other, part in enumerate(self.fraction):
                low, high = value[0::2], value[1::2]
                value = (high - low) / self.cell if other == axis else torch.lerp(low, high, part)
            slopes.append(value[0])
        return torch.stack(slopes, dim=-1)

    def _corners(self, table: Tensor) -> Float[Tensor, "8 point"]:
        return F.pad(table, (0, 1)).index_select(0, self.rows.view(-1)).view(8, -1)


class SparseLattice(nn.Module):
    """Which points of a lattice hold values. Only their positions are stored with the scene."""

    def __init__(
        self,
        lower: Float[Tensor, "3"],
        cell: float,
        size: tuple[int, int, int],
        position: Int[Tensor, " row"],
    ) -> None:
        """`size`: lattice points along x, y, z; `position`: (z * size_y + y) * size_x + x, ascending."""
        super().__init__()
        self.cell, self.size = cell, size
        self.lower: Tensor
        self.position: Tensor
        self.index: Tensor
        self.register_buffer("lower", lower.float().clone())
        self.register_buffer("position", position.long())
        index = torch.full((size[0] * size[1] * size[2],), len(position), dtype=torch.int32)
        index[position.long()] = torch.arange(len(position), dtype=torch.int32)
        self.register_buffer("index", index, persistent=False)
        offset = [x + size[0] * (y + size[1] * z) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
        self.offset: Tensor
        self.register_buffer("offset", torch.tensor(offset)[:, None], persistent=False)

    @property
    def n_rows(self) -> int:
        """Lattice points that hold a value."""
        return len(self.position)

    def points(self) -> Float[Tensor, "row 3"]:
        """Where the values are, scene units."""
        x = self.position % self.size[0]
        y = torch.div(self.position, self.size[0], rounding_mode="floor") % self.size[1]
        z = torch.div(self.position, self.size[0] * self.size[1], rounding_mode="floor")
        return self.lower + self.cell * torch.stack([x, y, z], dim=-1).float()

    def corners(self, points: Float[Tensor, "point 3"]) -> LatticeCorners:
        """Around points; outside, around the nearest point inside."""
        position = (points.T - self.lower[:, None]) / self.cell
        largest = torch.tensor(self.size, device=points.device)[:, None] - 1.001
        position = position.clamp(min=0.0).minimum(largest)
        x, y, z = position.long()
        corner = x + self.size[0] * (y + self.size[1] * z)
        rows = self.index.index_select(0, (corner + self.offset).view(-1)).view(8, -1)
        return LatticeCorners(rows, position - position.floor(), self.cell)


def lattice_size(lower: Float[Tensor, "3"], upper: Float[Tensor, "3"], cell: float) -> tuple[int, int, int]:
    """Lattice points along x, y, z that cover a box, with one to spare."""
    x, y, z = (torch.ceil((upper - lower) / cell).long() + 2).tolist()
    return x, y, z


def dense_lattice(lower: Float[Tensor, "3"], upper: Float[Tensor, "3"], cell: float) -> SparseLattice:
    """Every lattice point of a box."""
    size = lattice_size(lower, upper, cell)
    return SparseLattice(lower, cell, size, torch.arange(size[0] * size[1] * size[2]))


def lattice_around(
    points: Float[Tensor, "point 3"],
    lower: Float[Tensor, "3"],
    upper: Float[Tensor, "3"],
    cell: float,
    n_rings: int,
) -> SparseLattice:
    """The corners of the cells that hold a point and of `n_rings` rings of cells around them."""
    size = lattice_size(lower, upper, cell)
    index = ((points - lower) / cell).floor().long()
    inside = ((index >= 0) & (index < torch.tensor(size) - 1)).all(dim=-1)
    x, y, z = index[inside].unbind(dim=-1)
    used = torch.zeros(size[2], size[1], size[0], dtype=torch.bool)
    used.view(-1)[(z * size[1] + y) * size[0] + x] = True
    return SparseLattice(lower, cell, size, torch.nonzero(_grown(used, n_rings).view(-1))[:, 0])


def _grown(used: Bool[Tensor, "z y x"], n_rings: int) -> Bool[Tensor, "z y x"]:
    """Grown by `n_rings` downwards and `n_rings` + 1 upwards along each axis: cells become their corners."""
    for axis in range(3):
        grown = used.clone()
        length = used.shape[axis]
        for step in range(-n_rings, n_rings + 2):
            source = used.narrow(axis, max(-step, 0), length - abs(step))
            target = grown.narrow(axis, max(step, 0), length - abs(step))
            target |= source
        used = grown
    return used


SMALLEST_WEIGHT = 1e-3
"""Samples of less weight are left out of colours."""
POINTS_IN_CACHE = 16384
"""Points that are looked up at once without gradients: several times as fast as all together."""
MAX_SAMPLING_INV_S = 60.0
"""1/metre. Upper limit while samples are placed, so that none slips through a thin surface."""
NEAR = 0.05
"""Metres from the camera to the first sample."""


@dataclass(frozen=True)
class ShadedRays:
    """Rays with the samples that they were made of."""

    color: Float[Tensor, "ray 3"]
    distance: Float[Tensor, " ray"]
    opacity: Float[Tensor, " ray"]
    weights: Float[Tensor, "ray interval"]
    sdf: Float[Tensor, "ray sample"]


class RefinedScene(nn.Module):
    """Cells, colour decoder and exposure of one scene. Made by `empty_scene`, fitted by `refine`."""

    def __init__(
        self, config: RefineConfig, lattices: list[SparseLattice], frame_ids: tuple[str, ...]
    ) -> None:
        """`lattices`: coarse, fine and, where the settings have one, that of detail."""
        super().__init__()
        self.config, self.frame_ids = config, frame_ids
        self.lattices = nn.ModuleList(lattices)
        widths = [config.channels, config.channels, config.detail_channels][: len(lattices)]
        self.distances = nn.ParameterList(nn.Parameter(torch.zeros(grid.n_rows)) for grid in lattices[:2])
        self.features = nn.ParameterList(
            nn.Parameter(torch.zeros(grid.n_rows, width))
            for grid, width in zip(lattices, widths, strict=True)
        )
        self.n_features = config.channels + sum(widths[2:])
        self.background = nn.Parameter(torch.zeros(self.n_features))
        self.decoder = nn.Sequential(
            nn.Linear(self.n_features + 9, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 3)
        )
        self.exposure = nn.Parameter(torch.zeros(len(frame_ids), 3))
        self.fitted: Tensor
        self.register_buffer("fitted", torch.zeros(len(frame_ids), dtype=torch.bool))
        self.sharpness: Tensor  # the name in files
        self.register_buffer("sharpness", torch.tensor(config.inv_s[0]))

    @property
    def inv_s(self) -> Float[Tensor, ""]:
        """1/metre: inverse steepness s of NeuS."""
        return self.sharpness

    @property
    def grids(self) -> list[SparseLattice]:
        """Coarse, fine and, where there is one, that of detail."""
        return [grid for grid in self.lattices if isinstance(grid, SparseLattice)]

    @property
    def lower(self) -> Float[Tensor, "3"]:
        """Of the box that the scene fills."""
        return self.grids[0].lower

    @property
    def upper(self) -> Float[Tensor, "3"]:
        """Of the box that the scene fills."""
        grid = self.grids[0]
        return grid.lower + grid.cell * (torch.tensor(grid.size, device=grid.lower.device) - 1.001)

    @property
    def cell(self) -> float:
        """Of the coarse lattice, which covers everything, metres."""
        return self.grids[0].cell

    @property
    def has_color(self) -> bool:
        """Colours are fitted together with distances."""
        return True

    @property
    def to_volume(self) -> Float[Tensor, "4 4"]:
        """Rays are rendered in the frame of the scene."""
        return torch.eye(4)

    def signed_distance(self, points: Float[Tensor, "point 3"]) -> Float[Tensor, " point"]:
        """Positive in free space."""
        if torch.is_grad_enabled():
            return self._distance(points)
        return torch.cat([self._distance(part) for part in points.split(POINTS_IN_CACHE)])

    def _distance(self, points: Tensor) -> Tensor:
        coarse, fine = (
            self.grids[level].corners(points).interpolate_scalar(table)
            for level, table in enumerate(self.distances)
        )
        return coarse + fine

    def gradient(self, points: Float[Tensor, "point 3"]) -> Float[Tensor, "point 3"]:
        """Of the signed distance: outward, about unit length near surfaces."""
        total = torch.zeros_like(points)
        for level, table in enumerate(self.distances):
            total = total + self.grids[level].corners(points).slope(table)
        return total

    def feature(self, points: Float[Tensor, "point 3"]) -> Float[Tensor, "point channel"]:
        """Colour feature: coarse plus fine, then detail."""
        coarse, fine, *detail = (
            self.grids[level].corners(points).interpolate(table) for level, table in enumerate(self.features)
        )
        return torch.cat([coarse + fine, *detail], dim=-1)

    def decode(
        self, feature: Float[Tensor, "point channel"], directions: Float[Tensor, "point 3"]
    ) -> Float[Tensor, "point 3"]:
        """Colour 0..1 of a feature for unit viewing directions."""
        plain = feature[:, :3]
        if self.n_features > self.config.channels:
            plain = plain + feature[:, self.config.channels : self.config.channels + 3]
        return torch.sigmoid(plain + self.decoder(torch.cat([feature, _harmonics(directions)], dim=-1)))

    def color(
        self, points: Float[Tensor, "point 3"], directions: Float[Tensor, "point 3"]
    ) -> Float[Tensor, "point 3"]:
        """Colour 0..1 of points for unit viewing directions, at the mean exposure."""
        return self.decode(self.feature(points), directions)

    def weights(
        self, sdf: Float[Tensor, "ray sample"], starts: Float[Tensor, "ray sample"], inv_s: Tensor
    ) -> Float[Tensor, "ray interval"]:
        """Share of each interval between neighbouring samples in what the ray sees."""
        step = starts[:, 1:] - starts[:, :-1]
        slope = (sdf[:, 1:] - sdf[:, :-1]) / (step + 1e-9)
        return weights_from_alpha(neus_alpha((sdf[:, 1:] + sdf[:, :-1]) / 2, slope, step, inv_s))

    def shade(self, rays: RayBundle, starts: Float[Tensor, "ray sample"]) -> ShadedRays:
        """Colour and distance of rays from samples at ascending distances. Differentiable.

        Features are composited along the ray and decoded once.
        """
        sdf = self.signed_distance(along(rays, starts)).view(starts.shape)
        weights = self.weights(sdf, starts, self.inv_s)
        middle = (starts[:, 1:] + starts[:, :-1]) / 2
        counted = weights.detach() > SMALLEST_WEIGHT
        ray = torch.nonzero(counted)[:, 0]
        points = rays.origins[ray] + rays.directions[ray] * middle[counted][:, None]
        parts = self.feature(points) * weights[counted][:, None]
        opacity = weights.sum(-1)
        feature = (1.0 - opacity)[:, None] * self.background
        feature = feature.index_add(0, ray, parts)
        distance = (weights * middle).sum(-1) / (opacity + 1e-6)
        return ShadedRays(self.decode(feature, rays.directions), distance, opacity, weights, sdf)

    def interval(self, rays: RayBundle) -> Interval:
        """Where rays run through the box."""
        return Interval(*intersect_box(rays, self.lower[None], self.upper[None], NEAR))

    @torch.no_grad()
    def place_samples(
        self, rays: RayBundle, n_even: int, n_samples: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "ray sample"]:
        """Distances, ascending, denser where the ray meets surface; jittered with a generator."""
        interval = self.interval(rays)
        shift = 0.5 if generator is None else torch.rand(len(rays), n_even, generator=generator)
        fraction = ((torch.arange(n_even) + shift) / n_even).to(interval.near)
        even = interval.distances(fraction.expand(len(rays), n_even))
        sdf = self.signed_distance(along(rays, even)).view(even.shape)
        weights = self.weights(sdf, even, self.inv_s.clamp(max=MAX_SAMPLING_INV_S)) + 1e-4 / n_even
        noise = None if generator is None else torch.rand(len(rays), n_samples, generator=generator)
        return importance_edges(even, weights, n_samples - 1, noise)

    @torch.no_grad()
    def render(self, rays: RayBundle, chunk: int) -> RenderedRays:
        """Rays in the frame of the scene at the mean exposure, at most `chunk` at once."""
        parts = in_chunks(lambda rows: self._render(rays.part(rows)), len(rays), chunk, "rays")
        return RenderedRays.concatenated(parts)

    def frame_gain(self, frame_id: str | None) -> Float[Tensor, "3"]:
        """Factor of the colours of a frame. Frames that were not fitted take the mean of their neighbours."""
        fitted = torch.nonzero(self.fitted)[:, 0]
        if frame_id not in self.frame_ids or len(fitted) == 0:
            return torch.ones(3)
        index = self.frame_ids.index(frame_id)
        before, after = fitted[fitted <= index][-1:], fitted[fitted >= index][:1]
        return self.exposure.detach()[torch.cat([before, after])].mean(dim=0).exp()

    def _render(self, rays: RayBundle) -> RenderedRays:
        longest = float((self.upper - self.lower).norm())
        n_even = int(min(max(longest / (2.0 * self.config.cell), 64), 256))
        shaded = self.shade(rays, self.place_samples(rays, n_even, 32))
        hit = rays.origins + rays.directions * shaded.distance[:, None]
        normal = F.normalize(self.gradient(hit), dim=-1) * (shaded.opacity > 0.5)[:, None]
        return RenderedRays(shaded.color.clamp(0.0, 1.0), shaded.distance, normal, shaded.opacity)


def along(rays: RayBundle, starts: Float[Tensor, "ray sample"]) -> Float[Tensor, "point 3"]:
    """The samples of all rays, ray-major."""
    return (rays.origins[:, None] + rays.directions[:, None] * starts[..., None]).reshape(-1, 3)


def empty_scene(
    config: RefineConfig,
    surface: Float[Tensor, "point 3"],
    box: tuple[Float[Tensor, "3"], Float[Tensor, "3"]],
    frame_ids: tuple[str, ...],
) -> RefinedScene:
    """Cells of zeros around the observed points of the `surface`, and coarse ones in the whole box."""
    lower, upper = box
    grids = [
        dense_lattice(lower, upper, config.cell * config.coarse_factor),
        lattice_around(surface, lower, upper, config.cell, 2),
    ]
    if config.detail_cell is not None:
        grids.append(lattice_around(surface, lower, upper, config.detail_cell, 1))
    return RefinedScene(config, grids, frame_ids)


def scene_of_state(
    config: RefineConfig,
    state: dict[str, Tensor],
    frame_ids: tuple[str, ...],
    sizes: list[tuple[int, int, int]],
) -> RefinedScene:
    """The scene that `state_dict` describes; `sizes` are those of its lattices."""
    cells = (config.cell * config.coarse_factor, config.cell, config.detail_cell)
    grids = [
        SparseLattice(state[f"lattices.{level}.lower"], cell, size, state[f"lattices.{level}.position"])
        for level, (cell, size) in enumerate(zip(cells, sizes, strict=False))
        if cell is not None
    ]
    scene = RefinedScene(config, grids, frame_ids)
    scene.load_state_dict(state)
    return scene


def _harmonics(directions: Float[Tensor, "point 3"]) -> Float[Tensor, "point 9"]:
    """Spherical harmonics up to degree 2, not normalised."""
    x, y, z = directions.unbind(dim=-1)
    one = torch.ones_like(x)
    return torch.stack([one, x, y, z, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 1], dim=-1)
