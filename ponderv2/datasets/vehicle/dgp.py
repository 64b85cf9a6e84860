"""Drives as the Dataset Governance Policy (DGP) of TRI writes them, DDAD for instance.

A scene file lists measurements with the pose of their sensor in the world; intrinsics, boxes (in the frame of
the LiDAR) and names of classes are in files beside it.
"""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.datasets.vehicle.drive import Drive, DriveBox, Image, Scan, pose_of
from ponderv2.errors import SceneError
from ponderv2.io.files import digest_of_file
from ponderv2.io.text import read_json

SPLITS = {"0": "train", "1": "val", "2": "test", "3": "train"}
"""DGP's numbers; 3 is a part of the training scenes that overlaps others."""
BOXES = "1"
"""DGP's number of annotations that are boxes in space."""
AGAIN = "extract the archive again"


def scene_files(listed: Path) -> list[tuple[str, Path]]:
    """Split and file of every scene of a list, or the scene itself as `train`. Raises SceneError."""
    if not listed.name.startswith("scene_dataset"):
        return [("train", listed)]
    try:
        splits = read_json(listed)["scene_splits"]
        return [
            (SPLITS.get(str(number), "train"), listed.parent / str(name))
            for number, split in splits.items()
            for name in split["filenames"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise SceneError(f"{listed} is no list of scenes of DGP ({error})", fix=AGAIN) from error


def read_scene(path: Path, split: str) -> Drive:
    """A scene file. Raises SceneError with what is wrong in it."""
    if not path.is_file():
        raise SceneError(f"no file {path}", fix=AGAIN)
    return _read_scene(path, split, digest_of_file(path))


@functools.lru_cache(maxsize=16)
def _read_scene(path: Path, split: str, digest: str) -> Drive:
    values = read_json(path)
    try:
        cameras = {
            key: _cameras(path.parent / "calibration" / f"{key}.json")
            for key in {str(sample["calibration_key"]) for sample in values["samples"]}
        }
        calibration_of = {
            str(key): cameras[str(sample["calibration_key"])]
            for sample in values["samples"]
            for key in sample["datum_keys"]
        }
        scans: list[Scan] = []
        images: list[Image] = []
        for one in values["data"]:
            sensor, when = str(one["id"]["name"]), _seconds(str(one["id"]["timestamp"]))
            ((kind, datum),) = one["datum"].items()
            where = (sensor, when, path.parent / str(datum["filename"]), _pose(datum["pose"]))
            if kind == "image":
                images.append(Image(*where, calibration_of[str(one["key"])][sensor]))
            elif kind == "point_cloud":
                scans.append(_scan(where, datum, path.parent))
        return Drive(
            name=path.parent.name,
            split=split,
            scans=tuple(sorted(scans, key=lambda scan: scan.time)),
            images=tuple(images),
            box_classes=tuple(dict.fromkeys(class_ids(path.parent).values())),
            classes=(),
            source=str(values),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise SceneError(f"{path} is no scene of DGP: {why[:200]}", fix=AGAIN) from error


def _scan(where: tuple[str, float, Path, ndarray], datum: dict[str, Any], folder: Path) -> Scan:
    columns = [str(one).lower() for one in datum["point_format"]]
    if columns[:3] != ["x", "y", "z"]:
        raise ValueError(f"points are {columns}, expected x, y, z first")
    file = datum.get("annotations", {}).get(BOXES)
    return Scan(*where, columns=tuple(columns[3:]), boxes_path=folder / str(file) if file else None)


def read_boxes(scan: Scan, ids: dict[int, str]) -> tuple[DriveBox, ...]:
    """The boxes of a scan. Raises SceneError."""
    assert scan.boxes_path is not None
    values = read_json(scan.boxes_path)
    try:
        found = []
        for one in values["annotations"]:
            box = one["box"]
            found.append(
                DriveBox(
                    pose=scan.sensor_to_world @ _pose(box["pose"]),
                    size=(float(box["length"]), float(box["width"]), float(box["height"])),
                    category=ids.get(int(one["class_id"]), ""),
                    instance=int(one["instance_id"]),
                    n_points=int(one.get("num_points", -1)),
                )
            )
        return tuple(found)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SceneError(f"{scan.boxes_path} holds no boxes of DGP ({error})", fix=AGAIN) from error


def class_ids(folder: Path) -> dict[int, str]:
    """Names of things by their number in the files of boxes, from all lists of classes of a scene."""
    found: dict[int, str] = {}
    for path in sorted((folder / "ontology").glob("*.json")):
        items = read_json(path).get("items", ())
        found |= {
            int(one["id"]): str(one["name"])
            for one in items
            if isinstance(one, dict) and one.get("isthing", True)
        }
    return dict(sorted(found.items()))


def _cameras(path: Path) -> dict[str, Float64[ndarray, "3 3"]]:
    """Intrinsics by sensor."""
    values = read_json(path)
    found: dict[str, ndarray] = {}
    for name, one in zip(values["names"], values["intrinsics"], strict=True):
        rows = [[one["fx"], one.get("skew", 0.0), one["cx"]], [0.0, one["fy"], one["cy"]], [0.0, 0.0, 1.0]]
        found[str(name)] = np.array(rows, np.float64)
    return found


def _pose(value: dict[str, Any]) -> Float64[ndarray, "4 4"]:
    turn, place = value["rotation"], value["translation"]
    return pose_of(
        {
            "rotation": [turn["qw"], turn["qx"], turn["qy"], turn["qz"]],
            "translation": [place["x"], place["y"], place["z"]],
        }
    )


def _seconds(text: str) -> float:
    """Of a time such as 2018-05-15T00:38:58.203752Z, since 1970."""
    return (datetime.fromisoformat(text) - datetime.fromisoformat("1970-01-01T00:00:00Z")).total_seconds()
