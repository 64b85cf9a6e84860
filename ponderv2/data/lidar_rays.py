"""Rays from cameras to the points of a LiDAR: what is rendered where images have no depth.

Cameras are exposed at other times than the LiDAR, so that the poses of both count; readers have put both into
`Camera.world_to_camera`. A ray runs exactly through its point, between pixel centres.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ponderv2.data.config import ViewSamplingConfig
from ponderv2.data.scan_config import LidarRaysConfig
from ponderv2.data.sweeps import own_sensor
from ponderv2.data.views import SampledPixels, camera_fields
from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import Camera, project
from ponderv2.geometry.intrinsics import scaled_intrinsics
from ponderv2.geometry.transforms import transform_points
from ponderv2.scenes.batch import PixelBatch
from ponderv2.scenes.scene import Frame, Scene

IN_FRONT = 1.0e-5
"""Least depth of a point, metres (published)."""
SKY, GRID = 0.4, 4
"""Rays without a point: not in the upper share of an image, every n-th column and row (published)."""

ReadColor = Callable[[Frame], UInt8[Tensor, "row column 3"]]


@dataclass(frozen=True)
class LidarPixels:
    """The points of a LiDAR that a camera sees."""

    pixel: Float[Tensor, "hit 2"]
    """Column and row, between pixel centres, which are integers."""
    depth: Float[Tensor, " hit"]
    """Along the optical axis, metres."""
    point: Int[Tensor, " hit"]
    """Which points of the cloud these are."""

    def __len__(self) -> int:
        return len(self.depth)

    def take(self, index: Tensor) -> LidarPixels:
        """The chosen ones (indices or a mask)."""
        return LidarPixels(self.pixel[index], self.depth[index], self.point[index])

    def evenly(self, most: int) -> LidarPixels:
        """At most `most`, evenly spread over the order of the points."""
        if len(self) <= most:
            return self
        return self.take(torch.arange(most) * len(self) // most)


def seen_points(
    scene: Scene, camera: Camera, config: LidarRaysConfig, usable: Bool[Tensor, " point"] | None = None
) -> LidarPixels:
    """The points of a scene in the image of a camera, in their order. In double precision.

    `usable`: which points may be taken at all.
    """
    coord = scene.cloud.coord.double()
    planar = transform_points(own_sensor(scene).double(), coord)[:, :2].norm(dim=1)
    wanted = planar > config.closest
    if config.farthest is not None:
        wanted &= planar < config.farthest
    if usable is not None:
        wanted &= usable
    in_camera = transform_points(camera.world_to_camera.double(), coord)
    in_camera = torch.where(in_camera[:, 2:] > IN_FRONT, in_camera, torch.nan)
    pixel, depth = project(in_camera, camera.intrinsics.double())
    size = torch.tensor([camera.width, camera.height], dtype=torch.float64)
    inside = ((pixel > 0.0) & (pixel < (size if config.round_down else size - 1.0))).all(dim=1)
    index = torch.nonzero(wanted & inside)[:, 0]
    found = LidarPixels(pixel[index].float(), depth[index].float(), index)
    return found if config.occlusion == "none" else found.take(_nearest(found, camera.width, config.cell))


def measured_depth(
    scene: Scene, camera: Camera, config: LidarRaysConfig, width: int, height: int
) -> Float[Tensor, "row column"]:
    """A depth image of another size: the nearest point in each pixel, metres along the axis; 0 = none.

    Points that `config` leaves out, but for those beyond `farthest`, are left out here too.
    """
    scale = width / camera.width, height / camera.height
    resized = scaled_intrinsics(camera.intrinsics.double().numpy(), *scale)
    small = replace(camera, intrinsics=torch.from_numpy(resized), width=width, height=height)
    every = config.model_copy(update={"occlusion": "none", "farthest": None})
    found = seen_points(scene, small, every)
    column, row = found.pixel.round().long().unbind(1)
    return _depth_image(row, column, found.depth, height, width)


def _depth_image(
    row: Int[Tensor, " point"],
    column: Int[Tensor, " point"],
    depth: Float[Tensor, " point"],
    height: int,
    width: int,
) -> Float[Tensor, "row column"]:
    """The nearest depth in each pixel; 0 where there is none."""
    nearest = torch.full((height * width,), torch.inf)
    nearest.scatter_reduce_(0, row * width + column, depth, "amin")
    return torch.where(nearest.isfinite(), nearest, 0.0).view(height, width)


def _nearest(found: LidarPixels, width: int, cell: int) -> Int[Tensor, " kept"]:
    """Of the points that lie in one cell of pixels the nearest, of equals the first."""
    column, row = found.pixel.double().floor().long().div(cell, rounding_mode="floor").unbind(1)
    number = row * (width // cell + 1) + column
    by_depth = torch.argsort(found.depth, stable=True)
    order = by_depth[torch.argsort(number[by_depth], stable=True)]
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = number[order][1:] != number[order][:-1]
    return torch.sort(order[first]).values


def sparse_depth(hits: LidarPixels, camera: Camera, stride: int = 1) -> Float[Tensor, "row column"]:
    """Depth of the nearest point in every cell of `stride` pixels, metres; 0 where there is none."""
    n_rows = len(range(stride // 2, camera.height, stride))
    n_columns = len(range(stride // 2, camera.width, stride))
    column, row = (hits.pixel.round().long() // stride).unbind(1)
    row, column = row.clamp(0, n_rows - 1), column.clamp(0, n_columns - 1)
    return _depth_image(row, column, hits.depth, n_rows, n_columns)


def sample_lidar_rays(
    scene: Scene,
    frames: Sequence[Frame],
    config: ViewSamplingConfig,
    read_color: ReadColor,
    generator: torch.Generator,
    label_field: str = "",
    usable: Bool[Tensor, " point"] | None = None,
) -> SampledPixels:
    """At most `n_views` frames in random order with at most `n_pixels` rays each, drawn without replacement.

    Frames that see no point are left out. `config.lidar` must be set; `read_color` is asked only where
    colours are wanted. `label_field`: of the labels of points; without them rays have none.

    Raises:
        SceneError: no frame sees a point.
    """
    lidar = config.lidar
    assert lidar is not None
    labels = scene.cloud.labels.get(label_field)
    views: list[Frame] = []
    parts: list[dict[str, Tensor]] = []
    for number in torch.randperm(len(frames), generator=generator).tolist():
        frame = frames[number]
        found = visible_points(scene, frame, lidar, usable)
        if not len(found):
            continue
        drawn = found.take(torch.randperm(len(found), generator=generator)[: config.n_pixels])
        parts.append(_rays(frame, drawn, config, read_color, generator, labels))
        views.append(frame)
        if len(views) == config.n_views:
            break
    if not frames:
        raise SceneError(f"scene '{scene.name}' has no cameras for rays to start from", fix="add images")
    if not views:
        raise SceneError(
            f"no camera of scene '{scene.name}' sees a point of its LiDAR",
            fix="data.views.lidar may leave all out; ponder prepare ... --check tests the calibration",
        )
    counts = torch.tensor([len(part["depth"]) for part in parts])
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    pixels = PixelBatch(**camera_fields(views), view=torch.repeat_interleave(counts), **joined)
    return SampledPixels(tuple(views), pixels)


def visible_points(
    scene: Scene, frame: Frame, config: LidarRaysConfig, usable: Bool[Tensor, " point"] | None = None
) -> LidarPixels:
    """Those of `seen_points` that the mask of the image does not hide."""
    found = seen_points(scene, frame.camera, config, usable)
    if frame.mask_path is None or not len(found):
        return found
    visible = frame.read_visible()
    column, row = places(found.pixel, frame.camera, config.round_down).unbind(1)
    return found.take(visible[row, column])


def places(pixel: Float[Tensor, "ray 2"], camera: Camera, round_down: bool = False) -> Int[Tensor, "ray 2"]:
    """Column and row of the pixel that has the colour of a position: the nearest, or rounded down."""
    place = pixel.floor() if round_down else pixel.round()
    last = torch.tensor([camera.width - 1, camera.height - 1])
    return torch.minimum(place.long(), last).clamp(min=0)


def _rays(
    frame: Frame,
    found: LidarPixels,
    config: ViewSamplingConfig,
    read_color: ReadColor,
    generator: torch.Generator,
    labels: Int[Tensor, " point"] | None,
) -> dict[str, Tensor]:
    """The fields of rays of one view, those without a point last."""
    lidar = config.lidar
    assert lidar is not None
    colored = lidar.color and frame.has_color
    n_more = config.n_pixels - len(found) if lidar.top_up and colored else 0
    more = _other_pixels(frame.camera, n_more, generator)
    pixel = torch.cat([found.pixel, more])
    color = torch.zeros(len(pixel), 3)
    if colored:
        column, row = places(pixel, frame.camera, lidar.round_down).unbind(1)
        color = read_color(frame)[row, column].float() / 255.0
    label = torch.full((len(pixel),), -1)
    if labels is not None:
        label[: len(found)] = labels[found.point].long()
    return {
        "pixel": pixel,
        "color": color,
        "depth": torch.cat([found.depth, torch.zeros(len(more))]),
        "label": label,
        "colored": torch.full((len(pixel),), colored),
    }


def _other_pixels(camera: Camera, number: int, generator: torch.Generator) -> Float[Tensor, "ray 2"]:
    """`number` pixels of the grid below the sky, or all of them, in random order."""
    if number <= 0:
        return torch.zeros(0, 2)
    first = -(-int(SKY * camera.height) // GRID) * GRID
    rows, columns = torch.arange(first, camera.height, GRID), torch.arange(0, camera.width, GRID)
    chosen = torch.randperm(len(rows) * len(columns), generator=generator)[:number]
    return torch.stack([columns[chosen % len(columns)], rows[chosen // len(columns)]], dim=1).float()
