"""Drives as the Dataset Governance Policy (DGP) of TRI writes them, DDAD for instance.

A scene file lists measurements with the pose of their sensor in the world; intrinsics, boxes (in the frame of
the LiDAR) and names of classes are in files beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.datasets.vehicle.drive import (
    Drive,
    DriveBox,
    Image,
    Scan,
    digest_of,
    file_of,
    name_of,
    pose_of,
    whole,
)
from ponderv2.errors import SceneError
from ponderv2.io.text import read_json

SPLITS = {"0": "train", "1": "val", "2": "test", "3": "train"}
"""DGP's numbers; 3 is a part of the training scenes that overlaps others."""
BOXES = "1"
"""DGP's number of annotations that are boxes in space."""
DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "fisheye")
"""Of a lens that is no pinhole, in a file of intrinsics."""
AGAIN = "extract the archive again"


def scene_files(listed: Path) -> list[tuple[str, Path]]:
    """Split and file of every scene of a list, or the scene itself as `train`. Raises SceneError."""
    if not listed.name.startswith("scene_dataset"):
        return [("train", listed)]
    try:
        splits = read_json(listed)["scene_splits"]
        return [
            (SPLITS.get(str(number), "train"), file_of(listed.parent, name, "a name of a scene"))
            for number, split in splits.items()
            for name in split["filenames"]
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SceneError(f"{listed} is no list of scenes of DGP ({error})", fix=AGAIN) from error


def read_scene(path: Path, split: str) -> Drive:
    """A scene file. Raises SceneError with what is wrong in it."""
    if not path.is_file():
        raise SceneError(f"no file {path}", fix=AGAIN)
    beside = [
        one for kind in ("calibration", "ontology") for one in sorted((path.parent / kind).glob("*.json"))
    ]
    return _read_scene(path, split, digest_of(path, *beside))


@functools.lru_cache(maxsize=16)
def _read_scene(path: Path, split: str, digest: str) -> Drive:
    values, ids = read_json(path), class_ids(path.parent)
    try:
        cameras = {
            key: _cameras(file_of(path.parent, f"calibration/{key}.json", "calibration_key"))
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
            sensor, when = (
                name_of(one["id"]["name"], "name of a sensor"),
                _seconds(str(one["id"]["timestamp"])),
            )
            ((kind, datum),) = one["datum"].items()
            where = (sensor, when, file_of(path.parent, datum["filename"], "filename"), _pose(datum["pose"]))
            if kind == "image":
                images.append(Image(*where, *calibration_of[str(one["key"])][sensor]))
            elif kind == "point_cloud":
                scans.append(_scan(where, datum, path.parent))
        return Drive(
            name=path.parent.name,
            split=split,
            scans=tuple(sorted(scans, key=lambda scan: scan.time)),
            images=tuple(images),
            box_classes=tuple(dict.fromkeys(ids.values())),
            classes=(),
            source=f"{values} {digest}",
            class_ids=ids,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise SceneError(f"{path} is no scene of DGP: {why[:200]}", fix=AGAIN) from error


def _scan(where: tuple[str, float, Path, ndarray], datum: dict[str, Any], folder: Path) -> Scan:
    columns = [str(one).lower() for one in datum["point_format"]]
    if columns[:3] != ["x", "y", "z"]:
        raise ValueError(f"points are {columns}, expected x, y, z first")
    file = datum.get("annotations", {}).get(BOXES)
    return Scan(
        *where,
        columns=tuple(columns[3:]),
        boxes_path=file_of(folder, file, "a name of boxes") if file else None,
    )


def read_boxes(scan: Scan, ids: Mapping[int, str]) -> tuple[DriveBox, ...]:
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
                    instance=whole(one["instance_id"]),
                    n_points=whole(one.get("num_points", -1)),
                )
            )
        return tuple(found)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SceneError(f"{scan.boxes_path} holds no boxes of DGP ({error})", fix=AGAIN) from error


def class_ids(folder: Path) -> dict[int, str]:
    """Names of things by their number in the files of boxes, from all lists of classes of a scene."""
    found: dict[int, str] = {}
    for path in sorted((folder / "ontology").glob("*.json")):
        try:
            found |= {
                int(one["id"]): str(one["name"])
                for one in read_json(path).get("items", ())
                if isinstance(one, dict) and one.get("isthing", True)
            }
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SceneError(f"{path} is no list of classes of DGP ({error!r})"[:300], fix=AGAIN) from error
    return dict(sorted(found.items()))


def _cameras(path: Path) -> dict[str, tuple[Float64[ndarray, "3 3"], bool]]:
    """Intrinsics by sensor, and whether its images are distorted."""
    values = read_json(path)
    found: dict[str, tuple[ndarray, bool]] = {}
    for name, one in zip(values["names"], values["intrinsics"], strict=True):
        rows = [[one["fx"], one.get("skew", 0.0), one["cx"]], [0.0, one["fy"], one["cy"]], [0.0, 0.0, 1.0]]
        distorted = any(float(one.get(key) or 0.0) for key in DISTORTION)
        found[str(name)] = np.array(rows, np.float64), distorted
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
