"""Settings of the nuScenes reader. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from ponderv2.datasets.settings import DatasetSettings


class NuscenesConfig(DatasetSettings):
    """nuScenes: a scene per key frame, in the frame of its LiDAR: x right, y forward, z up.

    All commands also read its folder in place, without preparing it: `--data PATH`.
    """

    kind: Literal["nuscenes"] = "nuscenes"
    path: Path = Path("data/raw/nuscenes")
    """Folder of v1.0-trainval (or v1.0-mini, v1.0-test) and samples/, or that folder of tables itself."""
    version: str = ""
    """Name of the folder of tables. By default v1.0-trainval and v1.0-test if they are there, else the only
    one."""
    sweeps: NonNegativeInt = 10
    """LiDAR sweeps of a scene, the key frame included; prepared scenes hold a copy of each."""
    following: NonNegativeInt = 0
    """Later sweeps that are added to them, for targets of pre-training; never accumulated."""
    cameras: tuple[
        Literal[
            "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT"
        ],
        ...,
    ] = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
    """Cameras whose images are frames of the scenes, in this order."""
    scenes: tuple[str, ...] = ()
    """Names or patterns (`scene-00*`) of the drives that are prepared; empty = all."""
    every: PositiveInt = 1
    """Every n-th key frame of all, sorted by time: less data, as in published ablations."""

    @classmethod
    def is_in_place(cls, root: Path) -> bool:
        """Whether a folder holds tables of nuScenes or infos made of them, or is a folder of tables."""
        folders = (root, *sorted(root.glob("v1.0-*")))
        tables = ("sample_data.json", "sample.json", "scene.json")  # an archive may be extracted by half
        there = any((folder / name).is_file() for folder in folders for name in tables)
        return there or bool(info_files(root))


def info_files(root: Path) -> list[Path]:
    """Pickles of other programs, made of the tables: `*nuscenes*infos*_train.pkl`, in `root` or its info/."""
    found = [one for folder in (root, root / "info") for one in sorted(folder.glob("*nuscenes*_infos_*.pkl"))]
    return [one for one in found if split_of(one) and "dbinfos" not in one.name]


def split_of(path: Path) -> str:
    """The split in the name of a file of infos; empty where there is none."""
    last = path.stem.rpartition("_")[2]
    return last if last in ("train", "val", "test") else ""


def data_folder(root: Path) -> Path:
    """Folder of samples/ and sweeps/: `root`, or raw/ in it."""
    return root / "raw" if (root / "raw" / "samples").is_dir() else root
