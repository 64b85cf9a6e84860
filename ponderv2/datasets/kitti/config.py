"""Settings of the KITTI reader. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ponderv2.datasets.settings import DatasetSettings


class KittiConfig(DatasetSettings):
    """KITTI object detection: a scene per frame, in the frame of its LiDAR: x forward, y left, z up.

    All commands also read its folder in place, without preparing it: `--data PATH`.
    """

    kind: Literal["kitti"] = "kitti"
    path: Path = Path("data/raw/kitti")
    """Folder of training/velodyne/000000.bin. Without ImageSets/train.txt and val.txt all is `train`."""
    cameras: tuple[Literal["image_2", "image_3"], ...] = ("image_2",)
    """Cameras whose images are frames of the scenes."""

    @classmethod
    def is_in_place(cls, root: Path) -> bool:
        """Whether a folder holds the frames of the object benchmark."""
        return (root / "training" / "velodyne").is_dir() and (root / "training" / "calib").is_dir()
