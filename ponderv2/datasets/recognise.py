"""Which layout and benchmark a folder without dataset.yaml has, by names of splits, scenes and arrays."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from ponderv2.datasets.kinds import in_place
from ponderv2.datasets.pointcept.reader import ArrayScenes
from ponderv2.datasets.ponderv2.images import SceneImages
from ponderv2.datasets.ponderv2.reader import PickledScenes, label_fields_in
from ponderv2.datasets.ponderv2.recordings import FOLDER
from ponderv2.datasets.scannet.detection_arrays import find_arrays
from ponderv2.errors import SceneError
from ponderv2.io.safe_pickle import PickledFile
from ponderv2.io.text import read_text
from ponderv2.scenes.folders import SceneLayout
from ponderv2.scenes.reader import DatasetInfo, LabelSet

LOOKED_AT = 20
"""Scenes whose names are compared with those of the benchmarks."""
DatasetName = Literal["ScanNet", "S3DIS", "Structured3D", "ScanNet++", ""]
"""Name of the condition in published models; empty for a folder of any other dataset."""
MAIN_FIELD: dict[str, str] = {"ScanNet": "segment20"}
"""Label array of the main benchmark, where it is not `segment`."""
DEPTH_SCALE: dict[str, float] = {"S3DIS": 1.0 / 4000.0}
"""Metres per unit of depth images, where it is not a millimetre."""
_TOP_CLASSES = ("metadata/semantic_benchmark/top100.txt", "semantic_benchmark/top100.txt", "top100.txt")


def recognise(root: Path) -> tuple[DatasetInfo, SceneLayout] | None:
    """What is known of the data, and how to read it; None where there are no scenes of a known layout.

    Raises:
        SceneError: the first scene is damaged, or not safe to open.
    """
    published = in_place(root)
    if published is not None:
        return published
    arrays = find_arrays(root)
    if arrays is not None:
        return arrays
    for layout in (ArrayScenes(SceneImages(root)), PickledScenes(SceneImages(root))):
        scenes = _splits(root, layout)
        if not scenes:
            continue
        first_split = next(iter(scenes))
        fields = _label_fields(root / first_split / scenes[first_split][0], layout)
        names = [name for names in scenes.values() for name in names[:LOOKED_AT]]
        benchmark = dataset_of(tuple(scenes), names, fields)
        info = _info(root, benchmark, tuple(scenes), fields)
        return info, _complete(layout, benchmark, info)
    return None


def _splits(root: Path, layout: SceneLayout) -> dict[str, tuple[str, ...]]:
    """Folders with scenes, train first; rgbd/ holds images."""
    try:
        folders = [
            path for path in root.iterdir() if path.is_dir() and path.name[0] != "." and path.name != FOLDER
        ]
    except OSError as error:
        raise SceneError(f"cannot read {root}: {error.strerror or error}") from error
    order = {"train": 0, "val": 1, "test": 2}
    folders.sort(key=lambda path: (order.get(path.name, 0), path.name))
    found = {folder.name: layout.scene_names(folder) for folder in folders}
    return {split: names for split, names in found.items() if names}


def _label_fields(location: Path, layout: SceneLayout) -> tuple[str, ...]:
    if isinstance(layout, ArrayScenes):
        return tuple(path.stem for path in sorted(location.glob("segment*.npy")))
    path = location.with_name(f"{location.name}.pth")
    with PickledFile.open(path) as file:
        if file.shape("coord") is None:
            listed = ", ".join(file.keys)[:200]
            raise SceneError(
                f"{path} holds no points 'coord' but: {listed}",
                fix="give the folder above train/, val/ or Area_1/",
            )
        return label_fields_in(file.keys)


def _info(root: Path, benchmark: str, splits: tuple[str, ...], fields: tuple[str, ...]) -> DatasetInfo:
    main = MAIN_FIELD.get(benchmark, "segment")
    if fields and main not in fields:
        main = fields[0]
    sets = label_sets_of(benchmark, root)
    mine = sets.get(main, LabelSet())
    return DatasetInfo(
        name=benchmark or root.absolute().name,
        class_names=mine.class_names,
        class_colors=mine.class_colors,
        label_field=main,
        other_labels={name: one for name, one in sets.items() if name != main},
        splits=splits,
        version="",
    )


def _complete(layout: SceneLayout, benchmark: str, info: DatasetInfo) -> SceneLayout:
    """The layout with what depends on the benchmark."""
    images = SceneImages(
        layout.images.root if isinstance(layout, ArrayScenes | PickledScenes) else Path(),
        DEPTH_SCALE.get(benchmark, 0.001),
        len(info.class_names) or None,
    )
    fields = (info.label_field, *info.other_labels) if benchmark else ()
    return ArrayScenes(images, fields) if isinstance(layout, ArrayScenes) else PickledScenes(images, fields)


def dataset_of(splits: Collection[str], scenes: Collection[str], fields: Collection[str]) -> DatasetName:
    """`scenes`: names of a few scenes, `fields`: label arrays of one of them."""
    if splits and all(re.fullmatch(r"Area_[1-6](_.*)?", split) for split in splits):
        return "S3DIS"
    if any(re.fullmatch(r"scene\d{4}_\d\d(_\d+)?", name) for name in scenes) or "segment200" in fields:
        return "ScanNet"
    if any(re.fullmatch(r"scene_\d{5}/room_\w+", name) for name in scenes):
        return "Structured3D"
    if any(re.fullmatch(r"[0-9a-f]{10}(_\d+)?", name) for name in scenes):
        return "ScanNet++"
    return ""


def label_sets_of(benchmark: str, root: Path) -> Mapping[str, LabelSet]:
    """Classes per label array of a benchmark; empty where they are not known."""
    if benchmark == "ScanNet":
        from ponderv2.datasets.scannet import scannet20, scannet200

        return {
            "segment20": LabelSet(scannet20.CLASS_NAMES, scannet20.COLORS),
            "segment200": LabelSet(scannet200.CLASS_NAMES, scannet200.COLORS),
        }
    if benchmark == "S3DIS":
        from ponderv2.datasets.s3dis import classes as s3dis

        return {"segment": LabelSet(s3dis.CLASS_NAMES, s3dis.COLORS)}
    if benchmark == "Structured3D":
        from ponderv2.datasets.structured3d import classes as structured3d

        return {"segment": LabelSet(structured3d.CLASS_NAMES, structured3d.COLORS)}
    if benchmark == "ScanNet++":
        return _scannetpp(root)
    return {}


def _scannetpp(root: Path) -> Mapping[str, LabelSet]:
    """The classes are in a list of the dataset, which may have been copied beside the scenes."""
    from ponderv2.datasets.scannetpp import reader as scannetpp

    for path in [base / name for base in (root, root.parent) for name in _TOP_CLASSES]:
        if not path.is_file():
            continue
        names = tuple(line.strip() for line in read_text(path).split("\n") if line.strip())
        return {"segment": LabelSet(names, scannetpp.class_colors(len(names)))}
    return {}
