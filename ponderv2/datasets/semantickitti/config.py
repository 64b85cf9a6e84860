"""Settings of the SemanticKITTI reader. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt

from ponderv2.datasets.settings import DatasetSettings


class SemanticKittiConfig(DatasetSettings):
    """SemanticKITTI: a scene per scan, in the frame of its LiDAR: x forward, y left, z up.

    All commands also read its folder in place, without preparing it: `--data PATH`.
    """

    kind: Literal["semantickitti"] = "semantickitti"
    path: Path = Path("data/raw/semantickitti")
    """Folder of sequences/00/velodyne/000000.bin, or the one above it that holds dataset/."""
    sweeps: NonNegativeInt = 1
    """Scans of a scene, itself included. More need poses.txt; prepared scenes hold a copy of each."""
    cameras: tuple[Literal["image_2", "image_3"], ...] = ("image_2",)
    """Cameras whose images are frames of the scenes, where those of the odometry set are there."""
    scenes: tuple[str, ...] = ()
    """Names or patterns (`00`, `0*`) of the sequences that are prepared; empty = all."""

    @classmethod
    def is_in_place(cls, root: Path) -> bool:
        """Whether a folder holds sequences of scans."""
        return folder_of_sequences(root) is not None


def folder_of_sequences(root: Path) -> Path | None:
    """The folder with 00/velodyne/, of those where it usually is."""
    for folder in (root / "sequences", root / "dataset" / "sequences", root):
        if any((folder / name / "velodyne").is_dir() for name in map("{:02d}".format, range(22))):
            return folder
    return None
