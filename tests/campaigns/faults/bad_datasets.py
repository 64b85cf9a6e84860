"""Scenes of published datasets broken file by file: cut, empty, words, random bytes, missing, a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ponderv2.checks.config import CheckConfig
from ponderv2.datasets.s3dis.config import S3disConfig
from ponderv2.datasets.scannet.config import ScannetConfig
from ponderv2.datasets.scannetpp.config import ScannetppConfig
from ponderv2.datasets.structured3d.config import Structured3dConfig
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig
from tests.datasets import scannet_files, stanford_room, structured3d_room
from tests.datasets.test_scannetpp import GROUPS, MAP
from tests.scenes import box_room
from tests.workflows.heard import Heard

Files = dict[str, bytes]
FOLDER = b"a folder in place of the file"

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "words": lambda data: b"<html>404: no such thing</html>\n",
    "random": lambda data: np.random.default_rng(0).bytes(900),
    "missing": lambda data: None,
    "folder": lambda data: FOLDER,
}


@dataclass(frozen=True)
class Dataset:
    """How a dataset looks on disk."""

    name: Callable[[int], str]
    """Of a scene, as it is reported."""
    scene: Callable[[int], Files]
    """Its files, by their path."""
    others: Callable[[int], Files]
    """Files that belong to no scene, for N scenes."""
    parts: dict[str, str]
    """Patterns of the files that are damaged together."""
    source: Callable[[Path], Any]
    zipped: bool = False
    """Files are members of archives, where no folder can be."""
    noted: dict[str, str] = field(default_factory=dict)
    """Damages that may be meant, such as a scene without images, and the notes about them."""
    invisible: tuple[str, ...] = ()
    """Damages that leave a sound scene of another kind; not made."""


def _scannet(index: int) -> Files:
    name = f"scene{index:04d}_00"
    folder = f"scans/{name}"
    segments = {"params": {"kThresh": "0.0001"}, "sceneId": name, "segIndices": scannet_files.SEGMENTS}
    groups = {"sceneId": f"scannet.{name}", "segGroups": scannet_files.GROUPS}
    alignment = " ".join(f"{one:f}" for one in scannet_files.ALIGNMENT.ravel())
    return {
        f"{folder}/{name}_vh_clean_2.ply": scannet_files.ply_bytes(),
        f"{folder}/{name}.txt": f"axisAlignment = {alignment} \nsceneType = Office\n".encode(),
        f"{folder}/{name}_vh_clean_2.0.010000.segs.json": json.dumps(segments).encode(),
        f"{folder}/{name}.aggregation.json": json.dumps(groups).encode(),
        f"{folder}/{name}.sens": scannet_files.sens_bytes(box_room.shots(2)),
    }


def _scannetpp(index: int) -> Files:
    folder = f"data/aa{index:02d}/scans"
    return {
        f"{folder}/mesh_aligned_0.05.ply": scannet_files.ply_bytes(),
        f"{folder}/segments.json": json.dumps({"segIndices": scannet_files.SEGMENTS}).encode(),
        f"{folder}/segments_anno.json": json.dumps({"segGroups": GROUPS}).encode(),
    }


def _s3dis(index: int) -> Files:
    room = f"Area_1/office_{index}"
    things = stanford_room.room_things(0.3)
    files = {f"{room}/Annotations/{one.file}": stanford_room.text_of(one.rows) for one in things}
    return files | {f"{room}/office_{index}.txt": b"".join(stanford_room.text_of(t.rows) for t in things)}


def _structured3d(index: int) -> Files:
    return structured3d_room.room_files(f"scene_{index:05d}")


def _table() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.tsv"
        scannet_files.write_table(path)
        return path.read_bytes()


def _angles(count: int) -> Files:
    lines = "".join(f"office_{index} 0\n" for index in range(count))
    head = "## Global alignment angle per disjoint space\n## (the angle)\n## Disjoint Space Name  Angle\n"
    return {"Area_1/Area_1_alignmentAngle.txt": (head + lines).encode()}


def _lists(count: int) -> Files:
    names = "".join(f"aa{index:02d}\n" for index in range(count)).encode()
    return {
        "splits/nvs_sem_train.txt": names,
        "splits/nvs_sem_val.txt": b"",
        "splits/sem_test.txt": b"",
        "metadata/semantic_benchmark/top100.txt": b"wall\nfloor\ntable\nbook\n",
        "metadata/semantic_benchmark/map_benchmark.csv": MAP.encode(),
    }


DATASETS = {
    "scannet": Dataset(
        name=lambda index: f"scene{index:04d}_00",
        scene=_scannet,
        others=lambda count: {"scannetv2-labels.combined.tsv": _table()},
        parts={
            "mesh": "*_vh_clean_2.ply",
            "facts": "*_00.txt",
            "segments": "*.segs.json",
            "objects": "*.aggregation.json",
            "recording": "*.sens",
        },
        source=lambda root: ScannetConfig(path=root, stride=1, axis_align=True),
        noted=dict.fromkeys(("recording: missing", "recording: folder"), "no .sens file"),
    ),
    "scannetpp": Dataset(
        name=lambda index: f"aa{index:02d}",
        scene=_scannetpp,
        others=_lists,
        parts={"mesh": "*.ply", "segments": "segments.json", "objects": "segments_anno.json"},
        source=lambda root: ScannetppConfig(path=root),
    ),
    "s3dis": Dataset(
        name=lambda index: f"office_{index}",
        scene=_s3dis,
        others=_angles,
        parts={"one thing": "wall_1.txt", "all things": "Annotations/*.txt"},
        source=lambda root: S3disConfig(path=root),
        noted={"all things: missing": "1 rooms have no Annotations"},
        invisible=("one thing: missing",),  # a room without a wall
    ),
    "structured3d": Dataset(
        name=lambda index: f"scene_{index:05d}/room_123",
        scene=_structured3d,
        others=lambda count: {},
        parts={
            "colour of views": "perspective/full/*/rgb_rawlight.png",
            "depth of views": "perspective/full/*/depth.png",
            "classes of views": "perspective/full/*/semantic.png",
            "poses of views": "perspective/full/*/camera_pose.txt",
            "colour of the panorama": "panorama/full/rgb_rawlight.png",
            "depth of the panorama": "panorama/full/depth.png",
            "classes of the panorama": "panorama/full/semantic.png",
            "place of the panorama": "panorama/camera_xyz.txt",
        },
        source=lambda root: Structured3dConfig(path=root, voxel=0.1),
        zipped=True,
    ),
}


def write_all(root: Path, dataset: Dataset) -> dict[str, str]:
    """A sound scene and one for every damage of every part. Returns what was done to the scenes by name."""
    done: dict[str, str] = {}
    files: Files = dict(dataset.scene(0))
    for part, pattern in dataset.parts.items():
        for kind, damage in DAMAGES.items():
            if (kind == "folder" and dataset.zipped) or f"{part}: {kind}" in dataset.invisible:
                continue
            index = len(done) + 1
            scene = dataset.scene(index)
            hit = [path for path in scene if PurePosixPath(path).match(pattern)]
            assert hit, f"{pattern} is no file of {sorted(scene)}"
            for path in hit:
                changed = damage(scene.pop(path))
                if changed is not None:
                    scene[path] = changed
            files |= scene
            done[dataset.name(index)] = f"{part}: {kind}"
    files |= dataset.others(len(done) + 1)
    if dataset.zipped:
        structured3d_room.write_zips(root, files)
        return done
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if data == FOLDER:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)
    return done


def prepared(root: Path, out: Path, dataset: Dataset, heard: Heard) -> prepare.PrepareResult:
    """All scenes of a folder."""
    check = CheckConfig(n_pixels=50)
    settings = PrepareConfig(source=dataset.source(root), out=out, workers=1, check=check)
    return prepare.run(settings, report=heard)


def unnamed(result: prepare.PrepareResult, done: dict[str, str], dataset: Dataset, heard: Heard) -> list[str]:
    """Damages without a message, and the sound scene where it is not prepared."""
    said = {one.name: one for one in result.scenes}
    general = (*heard.noted, *heard.warned)
    silent = [] if said[dataset.name(0)].status == "done" else ["the sound scene"]
    for name, damage in done.items():
        one = said[name]
        if damage in dataset.noted:
            named = dataset.noted[damage] in " ".join((*general, *one.notes))
        else:
            named = one.status in ("failed", "repaired") and any(one.why)
        silent += [] if named else [damage]
    return silent
