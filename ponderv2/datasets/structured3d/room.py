"""A room of Structured3D becomes a scene: perspective views are its frames, all views give points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int16, Integer, UInt8, UInt16
from numpy import ndarray

from ponderv2.datasets.structured3d.classes import NYU40_IDS
from ponderv2.datasets.structured3d.config import Structured3dConfig
from ponderv2.datasets.structured3d.views import (
    PUBLISHED_FROM_WORLD,
    camera_rays,
    measured,
    panorama_rays,
    parse_centre,
    parse_pose,
    pixel_normals,
    pixel_normals_as_published,
    usable,
)
from ponderv2.errors import SceneError
from ponderv2.io.archives import ArchiveMember
from ponderv2.io.images import decode_color, decode_integers
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, PreparedScene, SceneStream

OWN_WORLD = "world: the dataset's own, right-handed, z up (the published points are its mirror image)"
PUBLISHED_WORLD = "world: as published, a mirror image of the room; cameras have determinant -1"
MILLIMETRE = 0.001


@dataclass(frozen=True)
class RoomFiles:
    """Where the files of one room are, by their usual names: depth.png, semantic.png, rgb_rawlight.png."""

    scene: str
    room: str
    panorama: dict[str, ArchiveMember] = field(default_factory=dict)
    """With camera_xyz.txt; empty where there is none."""
    views: dict[str, dict[str, ArchiveMember]] = field(default_factory=dict)
    """Per perspective view, with camera_pose.txt."""


@dataclass(frozen=True)
class _Points:
    """Points of one view in the world; arrays of one length."""

    coord: Float32[ndarray, "point 3"]
    color: UInt8[ndarray, "point 3"]
    normal: Float32[ndarray, "point 3"]
    segment: Int16[ndarray, " point"]

    def take(self, index: ndarray) -> _Points:
        return _Points(self.coord[index], self.color[index], self.normal[index], self.segment[index])


@dataclass(frozen=True)
class _Images:
    """The decoded images of one view."""

    color: UInt8[ndarray, "row column 3"]
    depth: UInt16[ndarray, "row column"]
    semantic: UInt16[ndarray, "row column"]


@dataclass
class _Findings:
    """What is learnt while views are read; the only thing here that changes."""

    parts: list[_Points] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    n_views: int = 0
    n_frames: int = 0
    n_held_out: int = 0
    n_thin: int = 0
    rawlight: bool = False


def prepare_room(files: RoomFiles, config: Structured3dConfig) -> SceneStream:
    """Frames as a generator, the points after all frames. Raises SceneError when there are no points."""
    found = _Findings()
    return SceneStream(_frames(files, config, found), lambda: _surface(files, config, found))


def _frames(files: RoomFiles, config: Structured3dConfig, found: _Findings) -> Iterator[DecodedFrame]:
    for name in sorted(files.views, key=_by_number):
        found.n_views += 1
        try:
            frame, usable_share, points = _view(name, files, config, found)
        except SceneError as error:
            found.repairs.append(f"view {name} was left out: {error.message}")
            continue
        if usable_share < config.min_coverage:
            found.n_thin += 1
        else:
            found.n_frames += 1
            held_out = config.holdout > 0 and found.n_frames % config.holdout == 0
            found.n_held_out += held_out
            if held_out:
                points = None
            yield replace(_smaller(frame, config.max_image_size), held_out=held_out)
        if points is not None and len(points.coord):
            found.parts.append(_one_per_cube(points, config.voxel))


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (2**31, name)


def _view(
    name: str, files: RoomFiles, config: Structured3dConfig, found: _Findings
) -> tuple[DecodedFrame, float, _Points | None]:
    """The frame, the usable share of its pixels, and its points where they are wanted."""
    where = f"{files.scene}/2D_rendering/{files.room}/perspective/{config.furniture}/{name}"
    members = files.views[name]
    member = _member(members, "camera_pose.txt", where)
    try:
        pose = parse_pose(member.read().decode("ascii", "replace"))
    except ValueError as error:
        raise SceneError(f"{member}: {error}") from error
    images = _images(members, config.lighting, where, found)
    height, width = images.depth.shape
    intrinsics = pose.intrinsics(width, height, config.mirrored_as_published)
    rays = camera_rays(intrinsics, width, height)
    known = measured(images.depth)
    local = rays * (images.depth * np.float32(MILLIMETRE))[..., None]
    normal = _normals(local, known, config, step=max(width // 400, 1), closed=False)
    mask = usable(local, normal, known, images.semantic, config.min_cosine)
    valid = mask if config.filter_frame_depth else known
    frame = DecodedFrame(
        id=name,
        intrinsics=intrinsics,
        camera_to_world=_stored(config) @ pose.camera_to_world,
        color=images.color,
        depth=np.where(valid, images.depth, 0).astype(np.uint16),
        depth_scale=MILLIMETRE,
        semantic=classes(images.semantic),
    )
    points = None
    if config.points != "panorama":
        points = _points(local, normal, mask, images, pose.camera_to_world)
    return frame, float(mask.mean()), points


def _panorama(files: RoomFiles, config: Structured3dConfig, found: _Findings) -> _Points:
    where = f"{files.scene}/2D_rendering/{files.room}/panorama"
    member = _member(files.panorama, "camera_xyz.txt", where)
    try:
        centre = parse_centre(member.read().decode("ascii", "replace"))
    except ValueError as error:
        raise SceneError(f"{member}: {error}") from error
    images = _images(files.panorama, config.lighting, f"{where}/{config.furniture}", found)
    height, width = images.depth.shape
    known = measured(images.depth)
    rays = panorama_rays(width, height, config.mirrored_as_published)
    local = rays * (images.depth * np.float32(MILLIMETRE))[..., None]
    normal = _normals(local, known, config, step=1, closed=True)
    mask = usable(local, normal, known, images.semantic, config.min_cosine)
    to_world = np.eye(4)
    to_world[:3, 3] = centre
    return _points(local, normal, mask, images, to_world)


def _normals(
    local: Float32[ndarray, "row column 3"],
    known: Bool[ndarray, "row column"],
    config: Structured3dConfig,
    step: int,
    closed: bool,
) -> Float32[ndarray, "row column 3"]:
    if config.mirrored_as_published:
        return pixel_normals_as_published(local)
    return pixel_normals(local, known, step, closed)


def _images(members: dict[str, ArchiveMember], lighting: str, where: str, found: _Findings) -> _Images:
    """Colour, depth and classes of a view. Raises SceneError naming the file that cannot be used."""
    wanted = f"rgb_{lighting}.png"
    if wanted not in members and "rgb_rawlight.png" in members:
        wanted, found.rawlight = "rgb_rawlight.png", True
    colour, depth, semantic = (
        _member(members, name, where) for name in (wanted, "depth.png", "semantic.png")
    )
    images = _Images(
        decode_color(colour.read(), str(colour)),
        decode_integers(depth.read(), str(depth)),
        decode_integers(semantic.read(), str(semantic), indexed=True),
    )
    sizes = {images.color.shape[:2], images.depth.shape, images.semantic.shape}
    if len(sizes) > 1 or 0 in images.depth.shape:
        raise SceneError(f"the images of {where} ({colour.archive.name}) differ in size: {sorted(sizes)}")
    return images


def _member(members: dict[str, ArchiveMember], name: str, where: str) -> ArchiveMember:
    if name not in members:
        archives = sorted({member.archive.name for member in members.values() if member.name})
        raise SceneError(f"{', '.join(archives) or 'the folder'}: {where} has no {name}")
    return members[name]


def _points(
    local: Float32[ndarray, "row column 3"],
    normal: Float32[ndarray, "row column 3"],
    mask: Bool[ndarray, "row column"],
    images: _Images,
    to_world: Float[ndarray, "4 4"],
) -> _Points:
    rotation = to_world[:3, :3].T
    coord = local[mask] @ rotation + to_world[:3, 3]
    turned = normal[mask] @ rotation
    return _Points(
        coord.astype(np.float32),
        images.color[mask],
        turned.astype(np.float32),
        classes(images.semantic[mask]),
    )


def classes(nyu40: Integer[ndarray, "*pixel"]) -> Int16[ndarray, "*pixel"]:
    """Class number of each NYU40 id, -1 for ids that are not used."""
    table = np.full(2**16, -1, np.int16)
    table[list(NYU40_IDS)] = np.arange(len(NYU40_IDS))
    return table[nyu40]


def _one_per_cube(points: _Points, size: float) -> _Points:
    """The first point of every cube, in the order of the points."""
    cells = np.floor(points.coord.astype(np.float64) / size).astype(np.int64)
    cells -= cells.min(axis=0)
    extent = cells.max(axis=0) + 1
    key = (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]
    return points.take(np.sort(np.unique(key, return_index=True)[1]))


def _stored(config: Structured3dConfig) -> Float[ndarray, "4 4"]:
    """From the dataset's world to that of the store."""
    return PUBLISHED_FROM_WORLD if config.mirrored_as_published else np.eye(4)


def _smaller(frame: DecodedFrame, longest: int | None) -> DecodedFrame:
    """Colour averaged, depth and classes of the nearest pixel."""
    assert frame.color is not None and frame.depth is not None  # views without an image were left out
    height, width = frame.depth.shape
    shrink = (longest or max(width, height)) / max(width, height)
    if shrink >= 1.0:
        return frame
    from PIL import Image

    from ponderv2.geometry.intrinsics import scaled_intrinsics

    new_width, new_height = max(round(width * shrink), 1), max(round(height * shrink), 1)
    row = np.clip(((np.arange(new_height) + 0.5) * height / new_height).astype(np.int64), 0, height - 1)
    column = np.clip(((np.arange(new_width) + 0.5) * width / new_width).astype(np.int64), 0, width - 1)
    color = Image.fromarray(frame.color).resize((new_width, new_height), Image.Resampling.BOX)
    semantic = frame.semantic
    return replace(
        frame,
        intrinsics=scaled_intrinsics(frame.intrinsics, new_width / width, new_height / height),
        color=np.asarray(color),
        depth=frame.depth[np.ix_(row, column)],
        semantic=None if semantic is None else semantic[np.ix_(row, column)],
    )


def _surface(files: RoomFiles, config: Structured3dConfig, found: _Findings) -> PreparedScene:
    parts = list(found.parts)
    if config.points != "perspective":
        try:
            parts.insert(0, _panorama(files, config, found))
        except SceneError as error:
            if not parts:
                raise
            found.repairs.append(f"the panorama was left out: {error.message}")
    parts = [part for part in parts if len(part.coord)]
    if not parts:
        reason = found.repairs[0] if found.repairs else "no pixel has depth, class and a clear view"
        raise SceneError(f"no points in {files.scene}/{files.room}: {reason}", fix="leave the room out")
    columns = ("coord", "color", "normal", "segment")
    whole = _one_per_cube(
        _Points(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns)), config.voxel
    )
    turn = _stored(config)[:3, :3].T.astype(np.float32)
    labels = {"segment": whole.segment}
    cloud = PreparedCloud(whole.coord @ turn, whole.color, whole.normal @ turn, labels)
    notes = _notes(config, found, len(whole.coord))
    return PreparedScene(cloud, None, tuple(notes), tuple(found.repairs))


def _notes(config: Structured3dConfig, found: _Findings, n_points: int) -> list[str]:
    notes = [PUBLISHED_WORLD if config.mirrored_as_published else OWN_WORLD, f"points from {config.points}"]
    notes.append(f"{found.n_frames} of {found.n_views} views as frames, {found.n_held_out} of them held out")
    if found.n_thin:
        notes.append(
            f"{found.n_thin} views show too little: under {config.min_coverage:.0%} of usable pixels"
        )
    if found.rawlight and config.lighting != "rawlight":
        notes.append(f"no {config.lighting} images of some views: rawlight instead")
    return notes
