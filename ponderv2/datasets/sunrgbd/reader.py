"""SUN RGB-D as a source of scenes, prepared or read in place: a scene per image, with its boxes."""

from __future__ import annotations

from pathlib import Path

from ponderv2.datasets.drives import DriveSource, no_scenes
from ponderv2.datasets.sunrgbd.classes import BOX_CLASSES
from ponderv2.datasets.sunrgbd.config import SunRgbdConfig, layout_of
from ponderv2.datasets.sunrgbd.mmdet3d import find_infos
from ponderv2.datasets.sunrgbd.official import TABLE, find_images
from ponderv2.datasets.sunrgbd.votenet import LABELS, ArrayImages, TextImages
from ponderv2.scenes.reader import DatasetInfo

EXPECTED = "give the folder of SUNRGBD/ and SUNRGBDtoolbox/, sunrgbd_trainval/, or processed arrays"
COMPARABLE = "published results are on v1; results on v1 and v2 are not comparable"


def source(config: SunRgbdConfig) -> DriveSource:
    """All images. Raises SceneError when there are none, or their labels cannot be used."""
    root = Path(config.path)
    layout = layout_of(root)
    match layout:
        case "official":
            images = find_images(root, config)
            about = f"labels {config.labels} ({TABLE[config.labels]}): {COMPARABLE}"
        case "text":
            images = TextImages(root, config)
            about = f"labels {config.labels} ({LABELS[config.labels]}/): {COMPARABLE}"
        case "arrays":
            images = ArrayImages(root, config)
            about = f"labels {_version_of(images)}: {COMPARABLE}"
        case "infos":
            images = find_infos(root, config)
            about = f"labels as the infos were made with: mmdetection3d takes v1; {COMPARABLE}"
        case None:
            raise no_scenes("images of SUN RGB-D", root, EXPECTED)
    splits = tuple(split for split in ("train", "val") if images.names(split))
    if not splits:
        raise no_scenes("images of SUN RGB-D", root, EXPECTED)
    info = DatasetInfo("SUN RGB-D", splits=splits, box_classes=BOX_CLASSES)
    return DriveSource(info, images, (about, "x right, y forward, z up, from the camera"))


def _version_of(images: ArrayImages) -> str:
    """By the names of the folders."""
    for split in ("train", "val"):
        names = images.names(split)
        folder = images._files(split, names[0])[0].absolute().parent.name if names else ""
        for version in ("v1", "v2"):
            if f"_{version}" in folder:
                return f"{version} (by the name of {folder})"
    return "of an unknown version"
