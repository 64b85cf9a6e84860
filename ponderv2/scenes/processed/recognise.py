"""Which layout a folder without dataset.yaml has, by what is in it, and which benchmark it is of."""

from __future__ import annotations

from pathlib import Path

from ponderv2.errors import SceneError
from ponderv2.io.safe_pickle import PickledFile
from ponderv2.scenes.processed.datasets import DEPTH_SCALE, MAIN_FIELD, dataset_of, label_sets_of
from ponderv2.scenes.processed.layout import SceneLayout
from ponderv2.scenes.processed.photographs import Photographs
from ponderv2.scenes.processed.pointcept import ArrayScenes
from ponderv2.scenes.processed.ponderv2 import PickledScenes, label_fields_in
from ponderv2.scenes.processed.ponderv2_recordings import FOLDER
from ponderv2.scenes.reader import DatasetInfo, LabelSet

LOOKED_AT = 20
"""Scenes whose names are compared with those of the benchmarks."""


def recognise(root: Path) -> tuple[DatasetInfo, SceneLayout] | None:
    """What is known of the data, and how to read it; None where there are no scenes of a known layout.

    Raises:
        SceneError: the first scene is damaged, or not safe to open.
    """
    for layout in (ArrayScenes(Photographs(root)), PickledScenes(Photographs(root))):
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
    """Folders with scenes, train first; rgbd/ holds photographs."""
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


def _label_fields(place: Path, layout: SceneLayout) -> tuple[str, ...]:
    if isinstance(layout, ArrayScenes):
        return tuple(path.stem for path in sorted(place.glob("segment*.npy")))
    path = place.with_name(f"{place.name}.pth")
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
    photographs = Photographs(
        layout.photographs.root if isinstance(layout, ArrayScenes | PickledScenes) else Path(),
        DEPTH_SCALE.get(benchmark, 0.001),
        len(info.class_names) or None,
    )
    fields = (info.label_field, *info.other_labels) if benchmark else ()
    return (
        ArrayScenes(photographs, fields)
        if isinstance(layout, ArrayScenes)
        else PickledScenes(photographs, fields)
    )
