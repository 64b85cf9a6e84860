"""The layouts of RGB-D recordings that are recognised, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ponderv2.datasets.recordings import Recording
from ponderv2.datasets.rgbd.calibration import ABOVE
from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.datasets.rgbd.layouts import (
    frame_files,
    generic,
    nerfstudio,
    redwood,
    replica,
    scannet,
    sun3d,
    tum,
)
from ponderv2.datasets.rgbd.layouts import sens as sens_file
from ponderv2.datasets.rgbd.masks import with_masks


@dataclass(frozen=True)
class Layout:
    """One way to lay out a recording."""

    expects: str
    """What a folder of this layout holds."""
    matches: Callable[[Path], bool]
    """Whether a path looks like it; reads no image."""
    reader: Callable[[Path, RgbdConfig], Recording]
    beside: tuple[str, ...] = ()
    """Files in the folder around the recording's that are read with it; {name} is that of the recording."""
    recognised: bool = True
    """Whether it is found without being asked for."""

    def read(self, path: Path, config: RgbdConfig = RgbdConfig()) -> Recording:
        """The recording, with masks that lie beside its images; settings decide what its files leave open.

        Raises SceneError when it looks like this layout but cannot be used.
        """
        return with_masks(self.reader(path, config), path, config.masks)


LAYOUTS: dict[str, Layout] = {
    "sens": Layout(sens_file.EXPECTS, sens_file.matches, lambda path, _: sens_file.read(path)),
    "tum": Layout(tum.EXPECTS, tum.matches, tum.read, ABOVE),
    "replica": Layout(replica.EXPECTS, replica.matches, replica.read, replica.BESIDE),
    "scannet": Layout(scannet.EXPECTS, scannet.matches, scannet.read, scannet.BESIDE),
    "nerfstudio": Layout(nerfstudio.EXPECTS, nerfstudio.matches, lambda path, _: nerfstudio.read(path)),
    "redwood": Layout(redwood.EXPECTS, redwood.matches, redwood.read, ABOVE),
    "sun3d": Layout(sun3d.EXPECTS, sun3d.matches, sun3d.read, ABOVE),
    "bundlefusion": Layout(
        frame_files.EXPECTS_BUNDLEFUSION, frame_files.matches_bundlefusion, frame_files.read_bundlefusion
    ),
    "7scenes": Layout(
        frame_files.EXPECTS_7SCENES, frame_files.matches_7scenes, frame_files.read_7scenes, ABOVE
    ),
    "generic": Layout(generic.EXPECTS, generic.matches, generic.read, ABOVE, recognised=False),
}


def detect_layout(path: Path) -> str | None:
    """Name of the first layout that fits, None when none does."""
    found = (name for name, layout in LAYOUTS.items() if layout.recognised and layout.matches(path))
    return next(found, None)
