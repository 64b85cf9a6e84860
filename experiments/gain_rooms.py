"""Rooms of the pre-training benchmark: read once, kept in memory, cropped and augmented as tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.data.voxelise import voxelise
from ponderv2.geometry.cameras import unproject
from ponderv2.geometry.transforms import transform_points
from ponderv2.scenes.batch import Batch, PixelBatch
from ponderv2.scenes.scene import Scene
from ponderv2.store.store import SceneStore

FINE = 0.06
"""Metres between the points that are kept of a room: finer than the voxels, so that each crop differs."""


@dataclass(frozen=True)
class Room:
    """One room in metres; rays are kept as pixels of its images."""

    name: str
    coord: Float[Tensor, "point 3"]
    color: Float[Tensor, "point 3"]
    """-1..1."""
    normal: Float[Tensor, "point 3"]
    segment: Int[Tensor, " point"]
    intrinsics: Float[Tensor, "view 3 3"]
    world_to_camera: Float[Tensor, "view 4 4"]
    view: Int[Tensor, " pixel"]
    pixel: Float[Tensor, "pixel 2"]
    pixel_color: Float[Tensor, "pixel 3"]
    depth: Float[Tensor, " pixel"]
    label: Int[Tensor, " pixel"]
    hit: Float[Tensor, "pixel 3"]
    """The surface point that each pixel shows."""


@dataclass(frozen=True)
class CropSettings:
    """How training pieces of rooms look."""

    voxel: float = 0.15
    half_side: float = 1.6
    """Metres; pieces are columns with a square base."""
    n_rays: int = 700
    """Per piece."""
    scale: float = 0.1
    """Sizes vary by this share."""
    color_noise: float = 0.05
    drop_color: float = 0.0
    """Share of the pieces whose colours the encoder does not see."""


def read_room(scene: Scene, label_field: str, n_pixels: int) -> Room:
    """One point per cell of `FINE` metres and some random pixels with a depth, from all images."""
    cloud = scene.cloud
    index = voxelise(cloud.coord, FINE).index
    generator = torch.Generator().manual_seed(0)
    cameras = [frame.camera for frame in scene.frames]
    per_view = -(-n_pixels // len(scene.frames))
    parts = []
    for number, frame in enumerate(scene.frames):
        depth, color, label = frame.read_depth(), frame.read_color(), frame.read_semantic()
        valid = (depth > 0.05).nonzero()
        chosen = valid[torch.randperm(len(valid), generator=generator)[:per_view]]
        row, column = chosen.unbind(1)
        view = torch.full_like(row, number)
        picked = depth[row, column]
        pixel = torch.stack([column, row], 1).float()
        parts.append((view, pixel, color[row, column].float() / 255, picked, label[row, column]))
    view, pixel, pixel_color, depth, label = (torch.cat(part) for part in zip(*parts, strict=True))
    intrinsics = torch.stack([torch.as_tensor(camera.intrinsics).float() for camera in cameras])
    world_to_camera = torch.stack([torch.as_tensor(camera.world_to_camera).float() for camera in cameras])
    return Room(
        name=scene.name,
        coord=cloud.coord[index],
        color=cloud.color[index] / 127.5 - 1.0,
        normal=cloud.normal[index],
        segment=cloud.labels[label_field][index].long(),
        intrinsics=intrinsics,
        world_to_camera=world_to_camera,
        view=view,
        pixel=pixel,
        pixel_color=pixel_color,
        depth=depth,
        label=label,
        hit=surface_points(pixel, depth, intrinsics[view], world_to_camera[view]),
    )


def surface_points(
    pixel: Float[Tensor, "pixel 2"],
    depth: Float[Tensor, " pixel"],
    intrinsics: Float[Tensor, "pixel 3 3"],
    world_to_camera: Float[Tensor, "pixel 4 4"],
) -> Float[Tensor, "pixel 3"]:
    """Where in the world each pixel's surface lies."""
    return transform_points(torch.linalg.inv(world_to_camera), unproject(pixel, depth, intrinsics))


def read_rooms(store: SceneStore, split: str, limit: int, n_pixels: int) -> list[Room]:
    """The first rooms of a split."""
    names = store.names(split)[:limit]
    return [read_room(store.read(name, split), store.info.label_field, n_pixels) for name in names]


def random_turn(generator: torch.Generator, scale: float) -> Float[Tensor, "4 4"]:
    """A turn about the vertical, perhaps a mirror image, and a little scaling."""
    angle, mirror, size = torch.rand(3, generator=generator).tolist()
    cosine, sine = math.cos(2 * math.pi * angle), math.sin(2 * math.pi * angle)
    turn = torch.eye(4)
    turn[:2, :2] = torch.tensor([[cosine, -sine], [sine, cosine]])
    if mirror < 0.5:
        turn[:3, 0] *= -1
    turn[:3, :3] *= 1.0 + scale * (2 * size - 1)
    return turn


def moved(room: Room, transform: Float[Tensor, "4 4"]) -> Room:
    """The room after x' = transform x (a similarity without shift); cameras move with it."""
    linear = transform[:3, :3]
    scale = torch.linalg.det(linear).abs() ** (1 / 3)
    return replace(
        room,
        coord=room.coord @ linear.T,
        normal=room.normal @ linear.T / scale,
        hit=room.hit @ linear.T,
        world_to_camera=room.world_to_camera @ torch.linalg.inv(transform),
    )


def training_piece(
    room: Room, settings: CropSettings, generator: torch.Generator, around: Tensor | None = None
) -> Batch:
    """A random column of the room, turned and scaled. `around` (a mask) says where it may be centred."""
    room = moved(room, random_turn(generator, settings.scale))
    candidates = torch.arange(len(room.coord)) if around is None else around.nonzero()[:, 0]
    centre = candidates[int(torch.randint(len(candidates), (), generator=generator))]
    middle = room.coord[centre, :2]
    inside = ((room.coord[:, :2] - middle).abs() < settings.half_side).all(1)
    color = room.color * (1 + settings.color_noise * torch.randn(3, generator=generator))
    color = color + settings.color_noise * torch.randn(3, generator=generator)
    if float(torch.rand((), generator=generator)) < settings.drop_color:
        color = torch.zeros_like(color)
    batch = _batch(replace(room, color=color), inside, settings.voxel, generator)
    if settings.n_rays == 0:
        return batch
    seen = ((room.hit[:, :2] - middle).abs() < settings.half_side).all(1).nonzero()[:, 0]
    chosen = seen[torch.randperm(len(seen), generator=generator)[: settings.n_rays]].sort().values
    return replace(batch, pixels=_pixels(room, chosen))


def whole_room(room: Room, voxel: float) -> tuple[Batch, Int[Tensor, " point"]]:
    """All voxels of a room, not augmented, and the voxel of every point."""
    voxels = voxelise(room.coord, voxel)
    return _voxels(room, voxels.index, voxels.grid_coord), voxels.inverse


def _batch(room: Room, inside: Tensor, voxel: float, generator: torch.Generator) -> Batch:
    index = inside.nonzero()[:, 0]
    labelled = room.segment[index] >= 0
    voxels = voxelise(room.coord[index], voxel, generator=generator, preferred=labelled)
    return _voxels(room, index[voxels.index], voxels.grid_coord)


def _voxels(room: Room, index: Tensor, grid_coord: Tensor) -> Batch:
    coord = room.coord[index]
    height = coord[:, 2:] - 1.3
    return Batch(
        coord=coord,
        grid_coord=grid_coord,
        feature=torch.cat([room.color[index], room.normal[index], height], 1),
        offset=torch.tensor([len(index)]),
        segment=room.segment[index],
        units_per_metre=torch.ones(1),
        condition="rooms",
        names=(room.name,),
    )


def _pixels(room: Room, chosen: Tensor) -> PixelBatch:
    return PixelBatch(
        intrinsics=room.intrinsics,
        world_to_camera=room.world_to_camera,
        view_scene=torch.zeros(len(room.intrinsics), dtype=torch.long),
        view=room.view[chosen],
        pixel=room.pixel[chosen],
        color=room.pixel_color[chosen],
        depth=room.depth[chosen],
        label=room.label[chosen],
    )


def training_batch(pieces: list[Batch], device: str) -> Batch:
    """Several pieces as one batch on a device."""
    return on_device(Batch.collate(pieces), device)


def on_device(batch: Batch, device: str) -> Batch:
    """The same batch with all tensors on a device."""

    def move(part: Batch | PixelBatch) -> dict[str, Tensor]:
        return {name: value.to(device) for name, value in vars(part).items() if isinstance(value, Tensor)}

    pixels = None if batch.pixels is None else replace(batch.pixels, **move(batch.pixels))  # pyright: ignore
    return replace(batch, pixels=pixels, **move(batch))  # pyright: ignore
