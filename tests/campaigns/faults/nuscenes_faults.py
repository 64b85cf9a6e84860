"""Tiny drives of nuScenes, raw and prepared, and what is broken in them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ponderv2.datasets.nuscenes.config import NuscenesConfig
from tests.campaigns.faults.bad_datasets import Files
from tests.campaigns.faults.fault_kinds import (
    Fault,
    data_fault,
    file_faults,
    files_below,
    image,
    json_fault,
    scan_faults,
    value_faults,
)

TOKEN = "f" * 32
"""Leads nowhere."""
NAN = float("nan")


TABLES = {
    "scene": {"token": (), "name": ()},
    "sample": {"token": (), "timestamp": ("negative",), "next": (), "scene_token": ()},
    "sample_data": {
        "token": (), "sample_token": (), "ego_pose_token": (), "calibrated_sensor_token": (),
        "timestamp": ("negative",),
        "is_key_frame": (), "filename": (),
    },
    "sensor": {"token": (), "channel": (), "modality": ()},
    "calibrated_sensor": {"token": (), "sensor_token": (), "translation": (), "rotation": ()},
    "ego_pose": {"token": (), "translation": (), "rotation": ()},
    "sample_annotation": {
        "token": (), "sample_token": (), "instance_token": (), "attribute_tokens": (), "size": (),
        "prev": (), "next": (), "num_lidar_pts": ("missing", "negative"), "translation": (), "rotation": (),
    },
    "instance": {"token": (), "category_token": ()},
    "category": {"token": (), "name": ()},
    "attribute": {"token": (), "name": ()},
    "lidarseg": {"sample_data_token": (), "filename": ()},
    "log": {},
}  # fmt: skip
"""Values of the first record that are read, by table."""


@cache
def nuscenes() -> Files:
    from tests.datasets.drives.nuscenes_drives import write_drives

    with tempfile.TemporaryDirectory() as folder:
        write_drives(Path(folder), ("scene-0061",), n_samples=3)
        return files_below(Path(folder))


def of_nuscenes(files: Files) -> Iterator[Fault]:
    """Tables, scans, images and labels."""
    for name, keys in TABLES.items():
        path = f"v1.0-mini/{name}.json"
        optional = ("missing", "folder") if name in ("log", "lidarseg") else ()
        yield from file_faults(files, f"table {name}", path, silent=optional)
        for key, silent in keys.items():
            yield from value_faults(
                files, path, (0, key), silent, (f"{name}.json", "is not below", "is not in")
            )
    yield from _values_of_nuscenes()
    key = {one["filename"].split("/")[1]: one["filename"] for one in _rows(files, "sample_data")[::-1]}
    sweeps = [one["filename"] for one in _rows(files, "sample_data") if "sweeps/LIDAR_TOP" in one["filename"]]
    yield from file_faults(files, "scan", key["LIDAR_TOP"])
    yield from file_faults(files, "sweep", sweeps[-1])
    yield from file_faults(files, "image", key["CAM_FRONT"])
    yield from file_faults(files, "labels", _rows(files, "lidarseg")[0]["filename"])
    yield from scan_faults(files, key["LIDAR_TOP"], 5)
    yield data_fault("image of another size", key["CAM_FRONT"], image((32, 18)))
    yield data_fault("grey image", key["CAM_FRONT"], image(mode="L"), silent=True)


def _rows(files: Files, table: str) -> list[dict[str, Any]]:
    return json.loads(files[f"v1.0-mini/{table}.json"])


def _set(index: int | None = 0, **values: Any) -> Callable[[Any], None]:
    """Changes one record, or all."""

    def edit(rows: list[dict[str, Any]]) -> None:
        for row in rows if index is None else [rows[index]]:
            row.update(values)

    return edit


def _exchanged(rows: list[dict[str, Any]]) -> None:
    rows[0]["timestamp"], rows[1]["timestamp"] = rows[1]["timestamp"], rows[0]["timestamp"]


def _renamed(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["token"] = row["token"][::-1]


def _intrinsics(edit: Callable[[list[list[float]]], Any]) -> Callable[[Any], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["camera_intrinsic"]:
                row["camera_intrinsic"] = edit(row["camera_intrinsic"])

    return change


def _half(rows: list[list[float]]) -> list[list[float]]:
    return [[one / 2 for one in rows[0]], [one / 2 for one in rows[1]], rows[2]]


def _values_of_nuscenes() -> Iterator[Fault]:
    at = "v1.0-mini/{}.json".format
    for table, keys in TABLES.items():
        for key in (one for one in keys if one.endswith("token") and one != "token"):
            yield json_fault(
                f"{table}: {key} leads nowhere", at(table), _set(**{key: TOKEN}), TOKEN, "versions"
            )
    for table in ("scene", "sample", "calibrated_sensor", "ego_pose", "instance", "category"):
        yield json_fault(f"{table} of another version", at(table), _renamed, "different versions")
    yield json_fault("all tokens of a kind lead nowhere", at("lidarseg"), _set(None, sample_data_token=TOKEN))
    yield json_fault("prev leads nowhere", at("sample_annotation"), _set(prev=TOKEN), TOKEN)
    yield json_fault(
        "attribute leads nowhere", at("sample_annotation"), _set(attribute_tokens=[TOKEN]), TOKEN
    )
    yield json_fault(
        "two scenes of one name",
        at("scene"),
        lambda rows: rows.append({**rows[0], "token": TOKEN}),
        silent=True,
    )
    for table in ("sample", "sample_data", "calibrated_sensor", "ego_pose", "sample_annotation", "instance"):
        yield json_fault(f"{table}: a record twice", at(table), lambda rows: rows.append(rows[0]))
    yield json_fault("times out of order", at("sample"), _exchanged, "out of order")
    yield json_fault("one time for all", at("sample"), _set(None, timestamp=5), "timestamp")
    yield json_fault("sweeps of one time", at("sample_data"), _set(None, timestamp=5))
    yield json_fault("negative time", at("sample"), _set(timestamp=-5), "out of order", silent=True)
    yield json_fault("box at nan", at("sample_annotation"), _set(translation=[NAN, 0, 0]), "boxes")
    yield json_fault("box without a size", at("sample_annotation"), _set(size=[0, 0, 0]), "boxes")
    yield json_fault("box of negative size", at("sample_annotation"), _set(size=[-1, 2, 1]), "boxes")
    yield json_fault("box turned by nan", at("sample_annotation"), _set(rotation=[NAN, 0, 0, 1]), "boxes")
    yield json_fault("box turned by nothing", at("sample_annotation"), _set(rotation=[0, 0, 0, 0]), "boxes")
    yield json_fault("box at 1e300", at("sample_annotation"), _set(translation=[1e300, 0, 0]), "boxes")
    yield json_fault("pose of nan", at("ego_pose"), _set(translation=[NAN, 0, 0]), "pose")
    yield json_fault("pose turned by nothing", at("ego_pose"), _set(rotation=[0, 0, 0, 0]), "pose")
    yield json_fault("pose beyond the world", at("ego_pose"), _set(translation=[1e300, 0, 0]), "pose")
    yield json_fault("all poses nan", at("ego_pose"), _set(None, rotation=[NAN] * 4), "pose")
    calibration = at("calibrated_sensor")
    yield json_fault("calibration of nan", calibration, _set(translation=[NAN, 0, 0]), "pose", "LIDAR_TOP")
    yield json_fault("intrinsics of nan", calibration, _intrinsics(lambda k: [[NAN] * 3] * 3), "CAM_FRONT")
    yield json_fault("intrinsics of 2 x 2", calibration, _intrinsics(lambda k: [[5, 5], [5, 5]]), "CAM_FRONT")
    yield json_fault(
        "intrinsics that are ragged", calibration, _intrinsics(lambda k: [[5], [5, 5]]), "CAM_FRONT"
    )
    yield json_fault("intrinsics of words", calibration, _intrinsics(lambda k: "abc"), "CAM_FRONT")
    yield json_fault("intrinsics of zero", calibration, _intrinsics(lambda k: [[0] * 3] * 3), "CAM_FRONT")
    yield json_fault(
        "intrinsics of 1e300",
        calibration,
        _intrinsics(lambda k: [[1e300, 0, 32], [0, 1e300, 18], [0, 0, 1]]),
        "CAM_FRONT",
    )
    yield json_fault(
        "intrinsics whose last row is wrong",
        calibration,
        _intrinsics(lambda k: [*k[:2], [0, 0, 5]]),
        "CAM_FRONT",
    )
    yield json_fault("intrinsics of half the size", calibration, _intrinsics(_half), "another image size")
    yield json_fault("no intrinsics", calibration, _intrinsics(lambda k: []), "CAM_FRONT")
    yield json_fault(
        "camera without hits",
        calibration,
        lambda rows: rows[1].update(rotation=[1, 0, 0, 0]),
        "CAM_FRONT",
    )
    yield json_fault("camera of a LiDAR", at("sensor"), _set(modality="camera"), silent=True)
    yield json_fault(
        "image of no size",
        at("sample_data"),
        lambda rows: [one.update(width=0, height=0) for one in rows],
        silent=True,
    )
    yield json_fault(
        "image of a wrong size",
        at("sample_data"),
        lambda rows: [one.update(width=128, height=72) for one in rows if one["width"]],
        "128 x 72",
        "another image size",
    )
    yield json_fault("file outside of the folder", at("sample_data"), _set(filename="../x.bin"), "../x.bin")
    yield json_fault(
        "name of a file with backslashes",
        at("sample_data"),
        _set(filename="samples\\LIDAR_TOP\\x"),
        "samples\\LIDAR_TOP",
    )
    yield json_fault("table is an object", at("sample"), lambda rows: None, silent=True)
    for table in TABLES:
        yield data_fault(f"{table}: an object in place of the list", at(table), b'{"a": 1}')
        yield data_fault(f"{table}: numbers in place of records", at(table), b"[1, 2, 3]")
        yield data_fault(
            f"{table}: an empty list",
            at(table),
            b"[]",
            "versions",
            "no ",
            table,
            silent=table in ("log", "lidarseg", "sample_annotation"),
        )


@cache
def prepared() -> Files:
    from ponderv2.workflows import prepare
    from ponderv2.workflows.config import PrepareConfig

    with tempfile.TemporaryDirectory() as folder:
        for path, data in nuscenes().items():
            Path(folder, "raw", path).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, "raw", path).write_bytes(data)
        source = NuscenesConfig(path=Path(folder, "raw"), sweeps=3)
        prepare.run(PrepareConfig(source=source, out=Path(folder, "out"), workers=1))
        made = files_below(Path(folder, "out"))
    return {
        path: data for path, data in made.items() if not path.startswith(("check_pictures", "prepare_report"))
    }


def of_prepared(files: Files) -> Iterator[Fault]:
    """Arrays and images of one prepared scene."""
    scene = sorted({path.rpartition("/")[0] for path in files if path.endswith("coord.npy")})[1]
    optional = (
        "boxes.npz",
        "normal.npy",
        "segment.npy",
        "prepared.json",
        "cameras.npz",
        "sweeps.npz",
    )
    for path in sorted(one for one in files if one.startswith(scene)):
        words = (Path(path).name, Path(path).stem, scene.rpartition("/")[2])
        silent = ("missing",) if Path(path).name in optional else ()  # the scene may be another one
        yield from file_faults(files, path.removeprefix(f"{scene}/"), path, *words, silent=silent)
    words = ("dataset.yaml", "read in place")
    yield from file_faults(files, "dataset.yaml", "dataset.yaml", *words, silent=("one byte less",))
