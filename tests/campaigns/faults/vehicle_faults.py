"""Tiny drives of own vehicles and of DGP, and what is broken in them."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

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

NAN = float("nan")


@cache
def vehicle() -> Files:
    from tests.datasets.drives.test_vehicle import write_drive

    def labelled(values: dict[str, Any]) -> None:
        values["measurements"][0]["labels"] = "labels.npy"
        values["classes"] = ["road", "car"]

    with tempfile.TemporaryDirectory() as folder:
        write_drive(Path(folder, "one"), labelled)
        np.save(Path(folder, "one/labels.npy"), np.arange(40) % 2)
        return files_below(Path(folder))


def of_vehicle(files: Files) -> Iterator[Fault]:
    """drive.json and its files."""
    path = "one/drive.json"
    for name in ("drive.json", "0.bin", "1.npy", "2.npz", "labels.npy"):
        yield from file_faults(files, name, f"one/{name}", name, "no drives")
    yield from file_faults(files, "front.png", "one/front.png", "front", silent=("one byte less",))
    yield from scan_faults(files, "one/0.bin", 4)
    for at, silent in {
        ("sensors",): (), ("measurements",): (), ("boxes",): ("missing",), ("box_classes",): ("missing",),
        ("sensors", "top"): (), ("sensors", "top", "kind"): (), ("sensors", "top", "sensor_to_vehicle"): (),
        ("sensors", "top", "intensity_scale"): ("missing", "beyond 64 bits"),
        ("sensors", "front", "intrinsics"): (),
        ("measurements", 0, "sensor"): (), ("measurements", 0, "time"): (), ("measurements", 0, "file"): (),
        ("measurements", 0, "vehicle_to_world"): (), ("measurements", 3, "vehicle_to_world"): (),
        ("measurements", 3, "time"): (), ("boxes", 0, "time"): (), ("boxes", 0, "center"): (),
        ("boxes", 0, "size"): (), ("boxes", 0, "yaw"): ("negative", "beyond 64 bits"),
        ("boxes", 0, "category"): (),
        ("boxes", 0, "velocity"): ("missing",), ("measurements", 0, "labels"): ("missing", "null"),
        ("classes",): ("missing", "words"),
    }.items():  # fmt: skip
        yield from value_faults(
            files, path, at, silent, ("drive.json", "front", "boxes", "labels", "top", "pose", "classes")
        )
    for name, wrong in {
        "nan": np.full((4, 4), NAN).tolist(), "zeros": np.zeros((4, 4)).tolist(),
        "far": (np.eye(4) * 1e300).tolist(), "transposed": [*np.eye(4).tolist()[:3], [1.0, 2.0, 3.0, 1.0]],
    }.items():  # fmt: skip
        for index in (0, 3):
            edit = lambda v, i=index, w=wrong: v["measurements"][i].update(vehicle_to_world=w)  # noqa: E731
            yield json_fault(f"pose {index} of {name}", path, edit, "pose", "front", "drive.json")
    yield json_fault("times out of order", path, lambda v: v["measurements"].reverse(), silent=True)
    yield json_fault("two scans of one time", path, lambda v: v["measurements"][1].update(time=0.0), "time")
    yield json_fault(
        "file outside of the folder", path, lambda v: v["measurements"][0].update(file="../../x.bin"), "x.bin"
    )
    yield json_fault(
        "file with backslashes", path, lambda v: v["measurements"][0].update(file="a\\0.bin"), "0.bin"
    )
    yield json_fault(
        "sensor that is not there", path, lambda v: v["measurements"][0].update(sensor="roof"), "roof"
    )
    yield json_fault("class that is not listed", path, lambda v: v["boxes"][0].update(category="ufo"), "ufo")
    yield json_fault("box of no scan", path, lambda v: v["boxes"][0].update(time=9.0), "boxes")
    yield json_fault("box at nan", path, lambda v: v["boxes"][0].update(center=[NAN, 0, 0]), "boxes")
    yield json_fault("box of no size", path, lambda v: v["boxes"][0].update(size=[0, 0, 0]), "boxes")
    yield json_fault(
        "intrinsics of half the size",
        path,
        lambda v: v["sensors"]["front"].update(intrinsics=[[20, 0, 15], [0, 20, 11], [0, 0, 1]]),
        "front",
    )
    yield json_fault(
        "columns of another file",
        path,
        lambda v: v["sensors"]["top"].update(columns=["a", "b"]),
        "labels.npy",
    )
    yield json_fault(
        "camera without hits",
        path,
        lambda v: v["sensors"]["front"].update(
            sensor_to_vehicle=[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 500], [0, 0, 0, 1]]
        ),
        "front",
    )
    yield data_fault("labels of another length", "one/labels.npy", _npy(np.zeros(7, np.int64)), "labels.npy")
    yield data_fault("labels beyond the classes", "one/labels.npy", _npy(np.full(40, 77)), "labels.npy", "77")
    yield data_fault("labels with fractions", "one/labels.npy", _npy(np.full(40, 0.5)), "labels.npy")
    yield data_fault("image of another size", "one/front.png", image((30, 90)), "front")


def _npy(values: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.save(target, values)
    return target.getvalue()


SCENE = "scene_01/scene_a.json"


def _pose(turn: tuple[float, ...], place: tuple[float, ...]) -> dict[str, Any]:
    return {
        "rotation": dict(zip(("qw", "qx", "qy", "qz"), turn, strict=True)),
        "translation": dict(zip("xyz", place, strict=True)),
    }


def dgp() -> Files:
    rng = np.random.default_rng(0)
    upright, camera = (1.0, 0.0, 0.0, 0.0), (0.5, -0.5, 0.5, -0.5)
    data: list[dict[str, Any]] = []
    found: Files = {}
    for number in range(2):
        when = f"2020-05-15T00:38:{58 + number}.200000Z"
        files = {"1": f"bounding_box_3d/LIDAR/{number}.json"}
        cloud = {
            "annotations": files, "filename": f"point_cloud/LIDAR/{number}.npz",
            "point_format": ["X", "Y", "Z", "INTENSITY"], "pose": _pose(upright, (5.0 + number, 3.0, 1.8)),
        }  # fmt: skip
        shot = {
            "annotations": {}, "filename": f"rgb/CAM/{number}.jpg", "width": 64, "height": 36,
            "pose": _pose(camera, (6.0 + number, 3.0, 1.5)),
        }  # fmt: skip
        for name, kind, one in (("LIDAR", "point_cloud", cloud), ("CAM", "image", shot)):
            known = {"name": name, "timestamp": when, "index": str(number), "log": ""}
            data.append({"id": known, "key": f"{name}{number}", "datum": {kind: one}})
        rows = np.column_stack([rng.uniform(-15, 15, (60, 3)) * (1, 1, 0.1), np.full(60, 0.5)])
        target = io.BytesIO()
        np.savez(target, data=rows)
        found[f"scene_01/{cloud['filename']}"] = target.getvalue()
        found[f"scene_01/{shot['filename']}"] = image()
        box = {"length": 4.5, "width": 1.9, "height": 1.6, "pose": _pose(upright, (6.0, 1.0, 0.0))}
        boxes = {"annotations": [{"box": box, "class_id": 3, "instance_id": 7, "num_points": 4}]}
        found[f"scene_01/{files['1']}"] = json.dumps(boxes).encode()
    samples = [{"calibration_key": "c", "datum_keys": [f"LIDAR{i}", f"CAM{i}"]} for i in range(2)]
    found[SCENE] = json.dumps({"data": data, "samples": samples, "name": "a"}).encode()
    intrinsics = [
        dict.fromkeys(("fx", "fy", "cx", "cy"), 0.0),
        {"fx": 50.0, "fy": 50.0, "cx": 31.5, "cy": 17.5},
    ]
    calibration = {"names": ["LIDAR", "CAM"], "intrinsics": intrinsics, "extrinsics": []}
    found["scene_01/calibration/c.json"] = json.dumps(calibration).encode()
    items = {"items": [{"id": 3, "name": "Car", "isthing": True}]}
    found["scene_01/ontology/o.json"] = json.dumps(items).encode()
    listed = {"scene_splits": {"0": {"filenames": [SCENE]}}}
    found["scene_dataset_v1.0.json"] = json.dumps(listed).encode()
    return found


def of_dgp(files: Files) -> Iterator[Fault]:
    """Scene files of DGP."""
    for part, path, words, silent in (
        ("list", "scene_dataset_v1.0.json", ("scene_dataset_v1.0.json", "no drives"), ()),
        ("scene", SCENE, (), ()),
        ("scan", "scene_01/point_cloud/LIDAR/1.npz", (), ()),
        ("image", "scene_01/rgb/CAM/1.jpg", ("CAM",), ()),
        ("calibration", "scene_01/calibration/c.json", (), ()),
        ("classes", "scene_01/ontology/o.json", ("o.json", "class"), ()),
        ("boxes", "scene_01/bounding_box_3d/LIDAR/1.json", (), ()),
    ):
        yield from file_faults(files, part, path, *words, silent=silent)
    words = ("calibration/", "scene_a.json", "CAM", "LIDAR", "pose", "1.npz", "time")
    for at, silent in {
        ("data",): (), ("samples",): (), ("samples", 0, "calibration_key"): (),
        ("samples", 0, "datum_keys"): (),
        ("data", 0, "id", "name"): (), ("data", 0, "id", "timestamp"): (), ("data", 0, "datum"): (),
        ("data", 0, "datum", "point_cloud", "pose"): (), ("data", 0, "datum", "point_cloud", "filename"): (),
        ("data", 0, "datum", "point_cloud", "point_format"): (),
        ("data", 0, "datum", "point_cloud", "pose", "rotation", "qw"): ("negative", "beyond 64 bits"),
        ("data", 0, "datum", "point_cloud", "pose", "translation", "x"): (),
        ("data", 1, "key"): (), ("data", 1, "datum", "image", "pose", "rotation", "qw"): ("negative",),
    }.items():  # fmt: skip
        yield from value_faults(files, SCENE, at, silent, words)
    for at in ("names", "intrinsics"):
        yield from value_faults(
            files, "scene_01/calibration/c.json", (at,), (), ("c.json", "CAM", "scene_a.json")
        )
    box = "scene_01/bounding_box_3d/LIDAR/1.json"
    for at in (
        ("annotations",),
        ("annotations", 0, "box"),
        ("annotations", 0, "box", "length"),
        ("annotations", 0, "class_id"),
        ("annotations", 0, "box", "pose"),
    ):
        yield from value_faults(files, box, at, (), ("1.json", "boxes", "class"))
    yield data_fault("image of another size", "scene_01/rgb/CAM/1.jpg", image((30, 90)), "CAM")
    yield data_fault(
        "list of a scene that is not there",
        "scene_dataset_v1.0.json",
        json.dumps({"scene_splits": {"0": {"filenames": ["b/scene_b.json"]}}}).encode(),
        "scene_b.json",
    )
    yield data_fault(
        "list without scenes",
        "scene_dataset_v1.0.json",
        b'{"scene_splits": {}}',
        "scene_dataset_v1.0.json",
        "no drives",
    )
