"""Pickles of other programs give the scenes that the tables give, in each flavour."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.nuscenes.infos import MMDET_NAMES
from ponderv2.errors import SceneError
from ponderv2.scenes.scene import Scene
from tests.datasets.drives.nuscenes_drives import (
    CAMERAS,
    INTRINSICS,
    SAMPLE,
    START,
    SWEEP,
    Drives,
    ego_pose,
    sensor_pose,
    write_drives,
)

NAMES = {"vehicle.car": "car", "vehicle.bus.rigid": "bus", "human.pedestrian.adult": "pedestrian"}
FLAVOURS = ("ponderv2", "pointcept", "mmdet_0_old", "mmdet_0_new", "mmdet_1")


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Drives:
    return write_drives(tmp_path_factory.mktemp("nuscenes"), ("scene-0061",), n_samples=4)


def quaternion(pose: np.ndarray) -> list[float]:
    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
    return [w, x, y, z]


def parts(name: str, pose: np.ndarray, matrix: bool = False) -> dict[str, Any]:
    turn = pose[:3, :3] if matrix else quaternion(pose)
    return {f"{name}_translation": pose[:3, 3], f"{name}_rotation": turn}


def file_of(channel: str, when: int) -> str:
    folder = "samples" if (when - START) % SAMPLE < SWEEP / 2 or channel != "LIDAR_TOP" else "sweeps"
    return f"{folder}/{channel}/n000__{channel}__{when}.{'pcd.bin' if channel == 'LIDAR_TOP' else 'jpg'}"


def boxes_at(drives: Drives, number: int, when: int) -> tuple[np.ndarray, list[str], np.ndarray, list[int]]:
    to_lidar = np.linalg.inv(ego_pose(when) @ sensor_pose("LIDAR_TOP"))
    rows, names, speed = [], [], []
    for track in drives.tracks:
        if number in track.samples:
            center = to_lidar[:3, :3] @ track.at(when) + to_lidar[:3, 3]
            ahead = to_lidar[:3, :3] @ (np.cos(track.yaw), np.sin(track.yaw), 0.0)
            rows.append([*center, 4.5, 1.9, 1.6, np.arctan2(ahead[1], ahead[0])])
            names.append(NAMES.get(track.category, "ignore"))
            speed.append((to_lidar[:3, :3] @ track.velocity)[:2])
    return np.array(rows), names, np.array(speed), [number + 3] * len(rows)


def info(drives: Drives, number: int, flavour: str) -> dict[str, Any]:
    when = START + SAMPLE * number
    to_ego, to_global = sensor_pose("LIDAR_TOP"), ego_pose(when)
    lidar = to_global @ to_ego
    prefix = "./data/nuscenes/"
    made: dict[str, Any] = {"token": f"{number:032x}", "lidar_path": prefix + file_of("LIDAR_TOP", when)}
    earlier = [when - SWEEP * i for i in range(1, 10) if when - SWEEP * i >= START]
    cameras = {name: when + round(1e6 * lag) for name, lag in CAMERAS.items()}
    boxes, names, speed, counts = boxes_at(drives, number, when)
    if flavour == "mmdet_1":
        objects = [
            {
                "bbox_3d": row.tolist(), "bbox_label_3d": MMDET_NAMES.index(name) if name != "ignore" else -1,
                "bbox_label": -1, "velocity": one.tolist(), "num_lidar_pts": count, "num_radar_pts": 0,
            }
            for row, name, one, count in zip(boxes, names, speed, counts, strict=True)
        ]  # fmt: skip
        return {
            "token": made["token"],
            "timestamp": 1e-6 * when,
            "ego2global": to_global.tolist(),
            "lidar_points": {"lidar_path": Path(made["lidar_path"]).name, "lidar2ego": to_ego.tolist()},
            "images": {
                name: {
                    "img_path": Path(file_of(name, at)).name,
                    "cam2img": INTRINSICS,
                    "lidar2cam": (np.linalg.inv(ego_pose(at) @ sensor_pose(name)) @ lidar).tolist(),
                    "timestamp": 1e-6 * at,
                }
                for name, at in cameras.items()
            },
            "lidar_sweeps": [
                {
                    "timestamp": 1e-6 * at,
                    "ego2global": ego_pose(at).tolist(),
                    "lidar_points": {
                        "lidar_path": prefix + file_of("LIDAR_TOP", at),
                        "lidar2ego": to_ego.tolist(),
                    },
                }
                for at in earlier
            ],
            "instances": objects,
        }

    def beside(channel: str, at: int) -> dict[str, Any]:
        pose, ego = sensor_pose(channel), ego_pose(at)
        moved = np.linalg.inv(lidar) @ ego @ pose
        one = {
            "data_path": prefix + file_of(channel, at),
            "timestamp": at,
            "sample_data_token": f"{channel}{at}",
        }
        if flavour == "ponderv2":
            return {**one, "sensor2ego": pose, "ego2global": ego, "sensor2lidar": moved}
        if flavour == "pointcept" and channel == "LIDAR_TOP":
            chain = {"global_from_car": ego, "car_from_current": pose, "transform_matrix": moved}
            return {"lidar_path": one["data_path"], "time_lag": 1e-6 * (when - at), **chain}
        if flavour == "pointcept":
            return {**one, **parts("sensor2lidar", moved, matrix=True), "camera_intrinsics": INTRINSICS}
        return {
            **one,
            **parts("sensor2ego", pose),
            **parts("ego2global", ego),
            **parts("sensor2lidar", moved, True),
        }

    made |= {
        "timestamp": when,
        "sweeps": [beside("LIDAR_TOP", at) for at in earlier],
        "cams": {
            name: {**beside(name, at), "cam_intrinsic": np.array(INTRINSICS)} for name, at in cameras.items()
        },
        "gt_names": np.array(names),
        "num_lidar_pts": np.array(counts),
        "num_radar_pts": np.zeros(len(counts), int),
    }
    if flavour == "ponderv2":
        made |= {"ego2lidar": np.linalg.inv(to_ego), "global2ego": np.linalg.inv(to_global)}
        made["gt_boxes"] = np.concatenate([boxes, speed], axis=1)
    elif flavour == "pointcept":
        made |= {"ref_from_car": np.linalg.inv(to_ego), "car_from_global": np.linalg.inv(to_global)}
        made["gt_boxes"] = np.concatenate([boxes, speed], axis=1)
    else:
        made |= {**parts("lidar2ego", to_ego), **parts("ego2global", to_global), "gt_velocity": speed}
        if flavour == "mmdet_0_old":
            boxes = boxes[:, [0, 1, 2, 4, 3, 5, 6]]
            boxes[:, 6] = -boxes[:, 6] - np.pi / 2
        made["gt_boxes"] = boxes
    return made


def write_infos(drives: Drives, folder: Path, flavour: str) -> Path:
    """A folder of the data with a pickle and without tables."""
    for name in ("samples", "sweeps"):
        (folder / name).symlink_to(drives.root / name)
    infos = [info(drives, number, flavour) for number in range(drives.n_samples)]
    whole: Any = infos
    if flavour.startswith("mmdet_0"):
        whole = {"infos": infos, "metadata": {"version": "v1.0-mini"}}
    elif flavour == "mmdet_1":
        categories = {name: number for number, name in enumerate(MMDET_NAMES)}
        whole = {"metainfo": {"categories": categories, "version": "v1.0-mini"}, "data_list": infos}
    path = folder / "nuscenes_infos_10sweeps_train.pkl"
    path.write_bytes(pickle.dumps(whole))
    return path


def same_pose(first: torch.Tensor, second: torch.Tensor) -> bool:
    return bool((first - second).abs().max() < 1e-3)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_scenes_of_infos_are_those_of_the_tables(drives: Drives, tmp_path: Path, flavour: str) -> None:
    write_infos(drives, tmp_path, flavour)
    tables, infos = open_folder(drives.root), open_folder(tmp_path)
    names = infos.names("train")
    assert len(names) == drives.n_samples and not infos.names("val")
    for ours, name in zip(tables.names("train")[1:3], names[1:3], strict=True):
        expected, found = tables.read(ours, "train"), infos.read(name, "train")
        assert torch.equal(found.cloud.coord, expected.cloud.coord)
        assert [one.time for one in found.sweeps] == [
            one.time for one in expected.sweeps[: len(found.sweeps)]
        ]
        assert len(found.sweeps) == len(expected.sweeps) == 10
        for one, other in zip(found.sweeps, expected.sweeps, strict=False):
            assert one.path.resolve() == other.path.resolve()
            assert same_pose(one.world_to_sensor, other.world_to_sensor)
        for one, other in zip(found.frames, expected.frames, strict=True):
            assert (one.sensor, one.time) == (other.sensor, other.time)
            assert same_pose(one.camera.world_to_camera, other.camera.world_to_camera)
            assert (one.camera.width, one.camera.height) == (other.camera.width, other.camera.height)
        _same_boxes(found, expected)


def _same_boxes(found: Scene, expected: Scene) -> None:
    assert found.boxes is not None and expected.boxes is not None
    assert same_pose(found.boxes.center, expected.boxes.center)
    assert same_pose(found.boxes.size, expected.boxes.size)
    assert np.abs(np.angle(np.exp(1j * (found.boxes.yaw - expected.boxes.yaw).numpy()))).max() < 1e-4
    assert torch.equal(found.boxes.category, expected.boxes.category)
    assert torch.equal(found.boxes.fields["n_lidar"], expected.boxes.fields["n_lidar"])
    known = torch.isfinite(expected.boxes.velocity).all(dim=1)
    assert (found.boxes.velocity - expected.boxes.velocity)[known][:, :2].abs().max() < 0.05


def test_tables_are_preferred_to_infos(drives: Drives, tmp_path: Path) -> None:
    write_infos(drives, tmp_path, "ponderv2")
    (tmp_path / drives.version).symlink_to(drives.root / drives.version)
    assert open_folder(tmp_path).names("train")[0].startswith("scene-0061/000_")


class _Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        import os

        return os.system, ("echo no > evil",)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda infos: [{**infos[0], "cams": _Evil()}], "asks for"),
        (lambda infos: [{key: one for key, one in infos[0].items() if key != "token"}], "lacks 'token'"),
        (lambda infos: [{**infos[0], "ego2lidar": np.zeros((4, 4))}], "info 0 of"),
        (lambda infos: [{**infos[0], "lidar_path": "../../elsewhere.bin"}], "neither in samples"),
        (lambda infos: [{"name": "of another program"}], "none of the known flavours"),
        (lambda infos: {"infos": []}, "no list of records"),
        (lambda infos: "words", "no list of records"),
    ],
)
def test_damaged_infos_are_refused_with_a_reason(
    drives: Drives, tmp_path: Path, damage: Callable[[list[Any]], Any], words: str
) -> None:
    path = write_infos(drives, tmp_path, "ponderv2")
    path.write_bytes(pickle.dumps(damage([info(drives, 0, "ponderv2")])))
    with pytest.raises(SceneError, match=words):
        open_folder(tmp_path)
    assert not Path("evil").exists()


def test_infos_that_are_cut_off_are_refused(drives: Drives, tmp_path: Path) -> None:
    path = write_infos(drives, tmp_path, "mmdet_0_new")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SceneError, match=r"train\.pkl"):
        open_folder(tmp_path)
