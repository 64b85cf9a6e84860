"""Any folder of depth images, perhaps colour images, and a text file of poses; read where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from ponderv2.checks.agreement import spread_frames
from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.errors import SceneError
from ponderv2.io.images import COLOR_ENDINGS
from ponderv2.scenes.sources.capture import Capture, Lens, MaskFile, PictureFile, RawFrame
from ponderv2.scenes.sources.layouts.calibration import Calibration, find_calibration
from ponderv2.scenes.sources.layouts.generic_parts import ImageList, find_images, find_poses
from ponderv2.scenes.sources.layouts.image_folders import ids_of
from ponderv2.scenes.sources.named_files import NamedFiles
from ponderv2.scenes.sources.pairing import Pairing, Poses, pair_frames
from ponderv2.scenes.sources.pose_lists import PoseList
from ponderv2.scenes.sources.pose_readings import ChosenReading, PoseReading, choose_reading
from ponderv2.scenes.sources.shared_lens import with_size_of_images
from ponderv2.scenes.sources.text_files import read_lens

EXPECTS = "a folder of depth images, one of colour images where there are some, and a text file of poses"
LOOKED_AT = 16
"""Frames that decide how the poses are to be read."""
FARTHEST_IN_METRES = 40.0
"""Median of depth in floats up to which they are metres, else millimetres."""


def matches(path: Path) -> bool:
    """Depth images, where they usually are. What is not clear is asked for when it is read."""
    try:
        return path.is_dir() and find_images(path, None, "depth") is not None
    except SceneError:
        return True


def read(path: Path, config: RgbdConfig = RgbdConfig()) -> Capture:
    """What the settings leave open is decided by the depth images, or asked for.

    Raises SceneError naming what is missing or not clear, and the option that says it.
    """
    given = config.generic
    depths = find_images(path, given.depth, "depth")
    if depths is None:
        raise SceneError(f"no folder of depth images in {path}", fix="--depth-dir NAME")
    colors = None if given.color == "none" else find_images(path, given.color, "color", without=depths)
    listed, where = find_poses(path, given.poses)
    known = Calibration() if config.intrinsics is not None else find_calibration(path)
    lens, said = _lens(path, config, known, depths, colors)

    def paired(camera_to_world: Float[ndarray, "pose 4 4"]) -> Pairing:
        names = None if colors is None else colors.names
        return pair_frames(path, names, depths.names, Poses(camera_to_world, listed.names), config.pairing)

    chosen = _reading(listed, config, known, depths, lens, paired)
    pairing = paired(chosen.reading.camera_to_world(listed))
    color_lens = lens if known.color is None or known.color is known.depth else known.color
    files = NamedFiles(path)
    frames = tuple(
        RawFrame(
            name,
            None if colors is None or one.color is None else PictureFile(colors.paths[one.color]),
            PictureFile(depths.paths[one.depth or 0]),
            one.camera_to_world,
            color_lens,
            lens,
            _mask(files, one.name),
        )
        for name, one in zip(ids_of(pairing), pairing.frames, strict=True)
    )
    where_from = "no colour images: depth alone" if colors is None else f"colour from {colors.where}"
    notes = (f"depth from {depths.where}, {where_from}, poses from {where}", chosen.note, *said, *known.notes)
    if any(frame.mask is not None for frame in frames):
        notes = (
            *notes,
            f"masks of the same names, black hides, for {sum(f.mask is not None for f in frames)} frames",
        )
    return Capture(
        "generic",
        frames,
        chosen.reading.depth_unit,
        notes=(*notes, *pairing.notes, *depths.notes, *(() if colors is None else colors.notes)),
        repairs=(*known.repairs, *pairing.repairs),
        unit_declared=True,
    )


def _mask(files: NamedFiles, name: str) -> MaskFile | None:
    """An image of the frame's name in masks/ or mask/."""
    found = (files.find(f"{folder}/{name}", COLOR_ENDINGS) for folder in ("masks", "mask"))
    path = next((one for one in found if one is not None), None)
    return None if path is None else MaskFile(path)


def _reading(
    listed: PoseList,
    config: RgbdConfig,
    known: Calibration,
    depths: ImageList,
    lens: Lens,
    paired: Callable[[Float[ndarray, "pose 4 4"]], Pairing],
) -> ChosenReading:
    """Looks at some of the paired frames."""
    start = PoseReading("xyzw", "camera_to_world", "opencv", 1.0, 0.001)
    frames = paired(start.camera_to_world(listed)).frames
    places = [frames[index].depth or 0 for index in spread_frames(len(frames), LOOKED_AT)]
    images = [_depth(depths.paths[place]) for place in places]

    def poses_of_images(camera_to_world: Float[ndarray, "pose 4 4"]) -> Float[ndarray, "image 4 4"]:
        found = {one.depth: one.camera_to_world for one in paired(camera_to_world).frames}
        return np.stack([found.get(place, np.full((4, 4), np.nan)) for place in places])

    unit = config.depth_scale or known.depth_scale or _unit_of_floats(images)
    sized = [(depth, lens.at_size(depth.shape[1], depth.shape[0])) for depth, _ in images]
    return choose_reading(listed, config.generic, unit, sized, poses_of_images)


def _depth(path: Path) -> tuple[Float64[ndarray, "row column"], bool]:
    """Raw numbers, 0 = no measurement, and whether they are floats."""
    values = PictureFile(path).depth()
    floats = values.dtype.kind == "f"
    depth = values.astype(np.float64)
    if values.dtype == np.uint16:
        depth[depth == 65535] = 0.0
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0.0), floats


def _unit_of_floats(images: Sequence[tuple[Float64[ndarray, "row column"], bool]]) -> float | None:
    """Metres or millimetres, by size; None for whole numbers."""
    measured = [depth[depth > 0] for depth, floats in images if floats]
    if not measured or not any(map(len, measured)):
        return None
    return 1.0 if float(np.median(np.concatenate(measured))) < FARTHEST_IN_METRES else 0.001


def _lens(
    path: Path, config: RgbdConfig, known: Calibration, depths: ImageList, colors: ImageList | None
) -> tuple[Lens, tuple[str, ...]]:
    """The depth camera with the size of its images. Raises SceneError where nothing says it."""
    lens = known.depth if config.intrinsics is None else read_lens(config.intrinsics)
    if lens is None:
        raise SceneError(
            f"no intrinsics in {path}",
            fix="--intrinsics FILE with fx fy cx cy or 3x3 numbers of the depth camera",
        )
    color = None if colors is None else PictureFile(colors.paths[0])
    frame = RawFrame("", color, PictureFile(depths.paths[0]), np.eye(4), lens, lens)
    capture, notes = with_size_of_images(Capture("generic", (frame,), 1.0))
    # Those of --intrinsics are said where it is read for the frames.
    return capture.frames[0].depth_lens, notes if config.intrinsics is None else ()
