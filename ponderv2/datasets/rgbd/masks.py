"""Masks of a recording: those that its layout names, and those that lie beside the images."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ponderv2.datasets.frame_names import some
from ponderv2.datasets.recordings import ImageFile, MaskFile, RawFrame, Recording

FOLDERS = ("masks", "mask")
"""Beside the folder of the images, or in it."""
DYNAMIC = "dynamic_mask_"
"""instant-ngp's name of a mask, which lies beside its image and is white where something moves."""
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

MaskUse = Literal["black", "white", "ignore"]


def with_masks(recording: Recording, root: Path, use: MaskUse | None) -> tuple[Recording, tuple[str, ...]]:
    """The recording with a mask for every frame that has one, and what to say about them.

    Args:
        recording: With the masks that its layout names.
        root: Folder of the recording: masks are looked for in no folder around it.
        use: What hides, by the user. None: black (white in instant-ngp's masks). `ignore`: no masks.
    """
    beside = _Beside(root)
    frames = tuple(
        frame if frame.mask is not None else replace(frame, mask=beside.of(frame))
        for frame in recording.frames
    )
    masks = [frame.mask for frame in frames if frame.mask is not None]
    if not masks:
        return recording, ()
    named = some(list(Counter(_where(mask.path, root) for mask in masks)))
    count = f"{len(masks)} of {len(frames)} frames"
    if use == "ignore":
        frames = tuple(replace(frame, mask=None) for frame in frames)
        return replace(recording, frames=frames), (f"masks of {count} ({named}) left aside, as asked for",)
    if use is not None:
        frames = tuple(_hiding(frame, use) for frame in frames)
    hiding = " and ".join(sorted({frame.mask.hides for frame in frames if frame.mask is not None}))
    note = (
        f"masks of {count} ({named}): what is {hiding} is hidden; --set source.masks=white, black or ignore"
    )
    return replace(recording, frames=frames), (note,)


def _hiding(frame: RawFrame, hides: Literal["black", "white"]) -> RawFrame:
    return frame if frame.mask is None else replace(frame, mask=MaskFile(frame.mask.path, hides))


def _where(path: Path, root: Path) -> str:
    folder = path.parent
    return str(folder.relative_to(root)) if folder.is_relative_to(root) and folder != root else path.name


class _Beside:
    """Finds the mask of an image; every folder is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, dict[str, Path]] = {}

    def of(self, frame: RawFrame) -> MaskFile | None:
        """By the name of the colour image or, in a view without one, of the depth image."""
        image = frame.depth if frame.color is None else frame.color
        if not isinstance(image, ImageFile):
            return None
        path = image.path
        folders = [path.parent] if path.parent == self.root else [path.parent, path.parent.parent]
        for folder in folders:
            for name in FOLDERS:
                files = self._files(folder / name)
                found = files.get(path.stem.lower()) or files.get(path.name.lower())
                if found is not None:
                    return MaskFile(found)
        same = self._files(path.parent)
        moving = same.get(f"{DYNAMIC}{path.stem.lower()}") or same.get(f"{DYNAMIC}{path.name.lower()}")
        if moving is not None:
            return MaskFile(moving, "white")
        stem, _, kind = path.stem.lower().rpartition(".")
        alike = same.get(f"{stem}.mask") if kind in ("color", "depth", "rgb") else None
        return None if alike is None else MaskFile(alike)

    def _files(self, folder: Path) -> dict[str, Path]:
        """Images of a folder by their lower-case name without ending."""
        if folder not in self._listed:
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            images = [path for path in files if path.suffix.lower() in ENDINGS]
            self._listed[folder] = {path.stem.lower(): path for path in images}
        return self._listed[folder]
