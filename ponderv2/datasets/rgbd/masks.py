"""Masks of a recording: those that its layout names, and those that lie beside the images."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ponderv2.datasets.frame_names import some
from ponderv2.datasets.recordings import ImageFile, MaskFile, RawFrame, Recording

FOLDERS = ("masks", "mask")
"""Beside the folder of the images, in it, or in the folder of the recording."""
DYNAMIC = "dynamic_mask_"
"""instant-ngp's name of a mask, which lies beside its image and is white on moving objects."""
ENDINGS = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")

MaskUse = Literal["black", "white", "ignore"]


def with_masks(recording: Recording, path: Path, use: MaskUse | None) -> Recording:
    """The recording with a mask for every frame that has one, and a note about them.

    Args:
        recording: With the masks that its layout names.
        path: Folder or file of the recording: masks are looked for in no folder around it.
        use: What hides, by the user. None: black (white in instant-ngp's masks). `ignore`: no masks.
    """
    root = path if path.is_dir() else path.parent
    finder = _MaskFinder(root)
    frames = tuple(
        frame if frame.mask is not None else replace(frame, mask=finder.find(frame))
        for frame in recording.frames
    )
    masks = [frame.mask for frame in frames if frame.mask is not None]
    if not masks:
        return recording
    folders = some(list(Counter(_where(mask.path, root) for mask in masks)))
    count = f"masks of {len(masks)} of {len(frames)} frames ({folders})"
    if use == "ignore":
        frames = tuple(replace(frame, mask=None) for frame in frames)
        note = f"{count} left aside, as asked for"
    else:
        frames = frames if use is None else tuple(_hiding(frame, use) for frame in frames)
        hiding = " and ".join(sorted({frame.mask.hides for frame in frames if frame.mask is not None}))
        note = f"{count}: what is {hiding} is hidden; --set source.masks=white, black or ignore"
    return replace(recording, frames=frames).noted(note)


def _hiding(frame: RawFrame, hides: Literal["black", "white"]) -> RawFrame:
    return frame if frame.mask is None else replace(frame, mask=MaskFile(frame.mask.path, hides))


def _where(path: Path, root: Path) -> str:
    folder = path.parent
    return str(folder.relative_to(root)) if folder.is_relative_to(root) and folder != root else path.name


class _MaskFinder:
    """Finds the mask of a frame by the names of its images, whatever the case; lists every folder once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, dict[str, Path]] = {}

    def find(self, frame: RawFrame) -> MaskFile | None:
        """By the name of the colour image, else of the depth image: `NAME`, or `NAME.ENDING` as of COLMAP."""
        paths = [one.path for one in (frame.color, frame.depth) if isinstance(one, ImageFile)]
        if paths:
            beside = self._beside(paths[0])
            if beside is not None:
                return beside
        for path in paths:
            for folder in self._folders(path):
                for name in FOLDERS:
                    found = self._named(self._images(folder / name), path)
                    if found is not None:
                        return MaskFile(found)
        return None

    def _beside(self, path: Path) -> MaskFile | None:
        """instant-ngp's `dynamic_mask_NAME`, or `NAME.mask` of `NAME.color`."""
        images = self._images(path.parent)
        moving = self._named(images, path, DYNAMIC)
        if moving is not None:
            return MaskFile(moving, "white")
        stem, _, kind = path.stem.lower().rpartition(".")
        alike = images.get(f"{stem}.mask") if kind in ("color", "depth", "rgb") else None
        return None if alike is None else MaskFile(alike)

    def _folders(self, path: Path) -> tuple[Path, ...]:
        """Folders that may contain masks: the image's, the one around it, the recording's."""
        around = () if path.parent == self.root else (path.parent.parent, self.root)
        return tuple(dict.fromkeys((path.parent, *around)))

    def _named(self, images: dict[str, Path], path: Path, prefix: str = "") -> Path | None:
        found = images.get(f"{prefix}{path.stem.lower()}") or images.get(f"{prefix}{path.name.lower()}")
        return None if found == path else found

    def _images(self, folder: Path) -> dict[str, Path]:
        """Images of a folder by their lower-case name without ending."""
        if folder not in self._listed:
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            images = [path for path in files if path.suffix.lower() in ENDINGS]
            self._listed[folder] = {path.stem.lower(): path for path in images}
        return self._listed[folder]
