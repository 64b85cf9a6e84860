"""Settings of the SUN RGB-D reader. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import PositiveInt

from ponderv2.datasets.settings import DatasetSettings

INFO_FILES = ("sunrgbd_infos_train.pkl", "sunrgbd_infos_val.pkl")
OFFICIAL_FILES = ("SUNRGBDtoolbox", "SUNRGBDMeta3DBB_v2.mat", "SUNRGBDMeta.mat")
VOTENET_FOLDERS = "sunrgbd_pc_bbox_votes_*"


class SunRgbdConfig(DatasetSettings):
    """SUN RGB-D: a scene per RGB-D image, with oriented boxes; x right, y forward, z up.

    As it is downloaded (no MATLAB is needed), or as VoteNet or mmdetection3d processed it. All commands also
    read its folder in place, without preparing it: `--data PATH`.
    """

    pretrain_preset: ClassVar[str | None] = "indoor"

    kind: Literal["sunrgbd"] = "sunrgbd"
    path: Path = Path("data/raw/sunrgbd")
    """Folder of SUNRGBD/ and SUNRGBDtoolbox/, or sunrgbd_trainval/, or the folder above VoteNet's processed
    sunrgbd_pc_bbox_votes_50k_v1_train/, or of mmdetection3d's sunrgbd_infos_train.pkl."""
    labels: Literal["v1", "v2"] = "v1"
    """Version of the boxes: published results are on v1; those on v2 are not comparable with them. Processed
    arrays have the version that they were made with."""
    max_points: PositiveInt | None = 100_000
    """At most this many points of an image, drawn by its number; an image has some 300,000."""

    @classmethod
    def is_in_place(cls, root: Path) -> bool:
        """Whether a folder holds the data set in one of its layouts."""
        return layout_of(root) is not None


def layout_of(root: Path) -> Literal["official", "text", "arrays", "infos"] | None:
    """Which layout a folder has, by the names in it; None where it holds no SUN RGB-D."""
    if any((root / name).is_file() for name in INFO_FILES):
        return "infos"
    if (root / "calib").is_dir() and any((root / name).is_dir() for name in ("label", "label_v1")):
        return "text" if (root / "depth").is_dir() and (root / "image").is_dir() else None
    if any(root.glob(f"{VOTENET_FOLDERS}/*_bbox.npy")) or any(root.glob("*[0-9]_bbox.npy")):
        return (
            "arrays" if any(root.glob("*_pc.npz")) or any(root.glob(f"{VOTENET_FOLDERS}/*_pc.npz")) else None
        )
    return "official" if any((root / name).exists() for name in OFFICIAL_FILES) else None
