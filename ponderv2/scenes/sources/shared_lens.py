"""One camera without a size, for colour and depth images of two sizes: to which its numbers belong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ponderv2.errors import SceneError
from ponderv2.scenes.sources.capture import Capture, Lens, RawFrame

CENTRED = 0.12
"""Parts of the width and height that the principal point may be from the middle of the image."""


def with_size_of_images(capture: Capture) -> tuple[Capture, tuple[str, ...]]:
    """The recording with the size of its camera, where one file without a size serves two sizes of images.

    The principal point lies near the middle of the images that the numbers belong to. Where it is near
    neither middle, they are those of the depth images.
    """
    sized = ((one, _sizes(one)) for one in capture.frames if _is_shared(one))
    first, sizes = next(((one, found) for one, found in sized if found is not None), (None, None))
    if first is None or sizes is None or sizes["depth"] == sizes["colour"]:
        return capture, ()
    apart = {name: _from_middle(first.depth_lens, size) for name, size in sizes.items()}
    nearest = min(apart, key=lambda name: apart[name])
    whose = nearest if apart[nearest] < CENTRED else "depth"
    new: dict[int, Lens] = {}
    for frame in capture.frames:
        if _is_shared(frame):
            new.setdefault(id(frame.depth_lens), replace(frame.depth_lens, size=sizes[whose]))
    frames = tuple(
        replace(frame, color_lens=new[id(frame.depth_lens)], depth_lens=new[id(frame.depth_lens)])
        if _is_shared(frame)
        else frame
        for frame in capture.frames
    )
    wide, high = sizes[whose]
    note = (
        f"the camera's numbers belong to the {whose} images of {wide} x {high} pixels, by its principal point"
    )
    return replace(capture, frames=frames), (note,)


def _sizes(frame: RawFrame) -> dict[str, tuple[int, int]] | None:
    """Width and height of both images; None for a frame that cannot be read, which is reported later."""
    assert frame.color is not None
    try:
        depth, color = frame.depth.depth().shape, frame.color.color().rgb.shape
    except SceneError:
        return None
    return {"depth": (depth[1], depth[0]), "colour": (color[1], color[0])}


def _is_shared(frame: RawFrame) -> bool:
    return frame.color_lens is frame.depth_lens and frame.depth_lens.size is None and frame.color is not None


def _from_middle(lens: Lens, size: tuple[int, int]) -> float:
    """The larger of both distances, as parts of width and height."""
    middle = (np.array(size) - 1) / 2
    return float((np.abs(lens.intrinsics[:2, 2] - middle) / np.array(size)).max())
