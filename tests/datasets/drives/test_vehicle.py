"""Own vehicles: drive.json against known motion, the DGP form against annotations of its cameras."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.kinds import reader_of
from ponderv2.datasets.vehicle.config import VehicleConfig
from ponderv2.datasets.vehicle.drive import SAME_TIME, DriveBox, TimedBoxes
from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import project
from ponderv2.geometry.transforms import transform_points
from ponderv2.scenes.scene import Scene
from ponderv2.store.store import SceneStore
from ponderv2.workflows.config import PrepareConfig
from ponderv2.workflows.prepare import run

INTRINSICS = [[40.0, 0.0, 31.5], [0.0, 40.0, 23.5], [0.0, 0.0, 1.0]]


def vehicle_pose(time: float) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("z", 0.5 + time).as_matrix()
    pose[:3, 3] = (50.0 + 10.0 * time, -20.0, 0.3)
    return pose


def write_drive(folder: Path, change: Callable[[dict[str, Any]], Any] | None = None) -> np.ndarray:
    """A drive.json with three scans of fixed points and an image; those points of the world."""
    folder.mkdir(parents=True)
    mount = np.eye(4)
    mount[:3, 3] = (0.0, 0.0, 1.8)
    camera = np.eye(4)
    camera[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    rng = np.random.default_rng(1)
    world = np.array([50.0, -20.0, 1.0]) + rng.uniform(-15, 15, (40, 3)) * (1, 1, 0.1)
    measurements: list[dict[str, Any]] = []
    for number, time in enumerate((0.0, 0.1, 0.2)):
        place = vehicle_pose(time) @ mount
        rows = np.column_stack([(world - place[:3, 3]) @ place[:3, :3], np.full(40, 128.0)])
        ending = ("bin", "npy", "npz")[number]
        file = folder / f"{number}.{ending}"
        if ending == "bin":
            rows.astype("<f4").tofile(file)
        elif ending == "npy":
            np.save(file, rows)
        else:
            np.savez(file, data=rows)
        x, y, z, w = Rotation.from_matrix(vehicle_pose(time)[:3, :3]).as_quat()
        pose = {"translation": vehicle_pose(time)[:3, 3].tolist(), "rotation": [w, x, y, z]}
        measurements.append({"sensor": "top", "time": time, "file": file.name, "vehicle_to_world": pose})
    Image.new("RGB", (64, 48), (10, 20, 30)).save(folder / "front.png")
    late = vehicle_pose(0.17).tolist()
    measurements.append({"sensor": "front", "time": 0.17, "file": "front.png", "vehicle_to_world": late})
    values = {
        "sensors": {
            "top": {"kind": "lidar", "sensor_to_vehicle": mount.tolist(), "intensity_scale": 1 / 256},
            "front": {"kind": "camera", "sensor_to_vehicle": camera.tolist(), "intrinsics": INTRINSICS},
        },
        "measurements": measurements,
        "boxes": [
            {
                "time": 0.2, "center": [55.0, -18.0, 1.0], "size": [4.0, 2.0, 1.5], "yaw": 1.0,
                "category": "car", "velocity": [1.0, 0.0, 0.0],
            }
        ],
        "box_classes": ["truck", "car"],
    }  # fmt: skip
    if change is not None:
        change(values)
    (folder / "drive.json").write_text(json.dumps(values))
    return world


def read(root: Path, name: str) -> Scene:
    return open_folder(root).read(name, "train")


def test_scans_and_images_are_where_the_vehicle_was_at_their_time(tmp_path: Path) -> None:
    world = write_drive(tmp_path / "one")
    folder = open_folder(tmp_path)
    assert folder.names("train") == ("one/000000", "one/000001", "one/000002")
    scene = read(tmp_path, "one/000002")
    mount = np.eye(4)
    mount[2, 3] = 1.8
    to_lidar = np.linalg.inv(vehicle_pose(0.2) @ mount)
    expected = world @ to_lidar[:3, :3].T + to_lidar[:3, 3]
    assert [round(sweep.time or 0.0, 6) for sweep in scene.sweeps] == [0.0, -0.1, -0.2]
    for sweep in scene.sweeps:
        assert np.abs(sweep.read_in_world().coord.numpy() - expected).max() < 1e-4
    assert float(scene.cloud.fields["intensity"][0]) == 0.5
    (frame,) = scene.frames
    assert frame.time == pytest.approx(-0.03)
    in_vehicle = (world - vehicle_pose(0.17)[:3, 3]) @ vehicle_pose(0.17)[:3, :3]
    depth = in_vehicle[:, 0]
    pixel = np.stack([31.5 - 40 * in_vehicle[:, 1] / depth, 23.5 - 40 * in_vehicle[:, 2] / depth], axis=1)
    ours, our_depth = project(
        transform_points(frame.camera.world_to_camera.double(), scene.cloud.coord.double()),
        frame.camera.intrinsics.double(),
    )
    assert np.abs(our_depth.numpy() - depth).max() < 1e-4
    assert np.abs(ours.numpy() - pixel)[depth > 2].max() < 0.01
    assert scene.boxes is not None and scene.boxes.category.tolist() == [1]
    assert float(scene.boxes.yaw[0]) == pytest.approx(1.0 - 0.7, abs=1e-5)
    turned = to_lidar[:3, :3] @ (1.0, 0.0, 0.0)
    assert np.abs(scene.boxes.velocity[0].numpy() - turned).max() < 1e-5
    first = read(tmp_path, "one/000000").boxes
    assert first is not None and len(first) == 0


def test_drives_are_divided_by_their_folders_and_prepared(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_drive(tmp_path / "raw" / split / "one")
    source = VehicleConfig(path=tmp_path / "raw", sweeps=2)
    result = run(PrepareConfig(source=source, out=tmp_path / "out", workers=1))
    assert result.n_prepared == 6
    store = SceneStore.open(tmp_path / "out")
    assert store.names("val") == ("one/000000", "one/000001", "one/000002")
    stored, there = store.read("one/000002", "val"), open_folder(tmp_path / "raw").read("one/000002", "val")
    assert torch.equal(stored.cloud.coord, there.cloud.coord) and len(stored.sweeps) == 2
    assert torch.equal(stored.sweeps[1].read().coord, there.sweeps[1].read().coord)


def test_boxes_of_dgp_are_where_its_cameras_annotate_them(sample_data: Path) -> None:
    root = sample_data / "dgp"
    folder = open_folder(root)
    names = folder.names("train")
    assert len(names) == 3 and "Car" in folder.info.box_classes
    away = []
    for name, scene in ((name, folder.read(name, "train")) for name in names):
        assert len(scene.frames) == 3 and scene.boxes is not None
        inside = scene.boxes.contains(scene.cloud.coord).sum(dim=1).double()
        stored = scene.boxes.fields["n_lidar"].double()
        assert float(torch.corrcoef(torch.stack([inside, stored]))[0, 1]) > 0.99, name
        place = {int(one): index for index, one in enumerate(scene.boxes.instance)}
        for frame in scene.frames:
            stem = frame.color_path.stem if frame.color_path is not None else ""
            file = root / "scene_01/bounding_box_3d" / frame.sensor / f"{stem}.json"
            for one in json.loads(file.read_text())["annotations"]:
                if int(one["instance_id"]) in place:
                    there = one["box"]["pose"]["translation"]
                    center = scene.boxes.center[place[int(one["instance_id"])]].double()
                    ours = transform_points(frame.camera.world_to_camera.double(), center[None])[0].numpy()
                    away.append(np.linalg.norm(ours - (there["x"], there["y"], there["z"])))
    # Most of what is annotated stands still; the vehicle moves by metres between scan and image.
    assert len(away) > 50 and np.median(away) < 0.2


@pytest.mark.parametrize("start", [0.0, 1.6e9, 1.6e15])
def test_boxes_are_those_that_a_comparison_with_every_scan_finds(start: float) -> None:
    """Times on a grid of a quarter of the tolerance, so that many lie on its border."""
    rng = np.random.default_rng(3)
    for n_boxes in (0, 1, 300):
        times = start + SAME_TIME / 4 * rng.integers(0, 200, n_boxes)
        times[n_boxes // 2 : n_boxes // 2 + 1] = np.inf
        timed = [(float(one), _numbered(number)) for number, one in enumerate(times)]
        scans = [*(start + SAME_TIME / 4 * rng.integers(0, 200, 12)).tolist(), np.inf, np.nan]
        found = TimedBoxes.of(timed)
        for scan in scans:
            slow = tuple(box for time, box in timed if abs(time - scan) < SAME_TIME)
            assert [one.instance for one in found.at(scan)] == [one.instance for one in slow]
        lost = [time for time, _ in timed if not any(abs(time - one) < SAME_TIME for one in scans)]
        assert found.elsewhen(scans) == lost


def _numbered(number: int) -> DriveBox:
    return DriveBox(np.eye(4), (1.0, 1.0, 1.0), "car", number)


def test_a_camera_that_no_drive_has_is_refused(tmp_path: Path) -> None:
    write_drive(tmp_path / "one")
    assert reader_of(VehicleConfig(path=tmp_path, cameras=("front",))).scenes
    with pytest.raises(SceneError, match="'rear'") as caught:
        reader_of(VehicleConfig(path=tmp_path, cameras=("front", "rear")))
    assert caught.value.fix == "there: front"


def test_names_of_files_may_be_in_large_letters(tmp_path: Path) -> None:
    def renamed(values: dict[str, Any]) -> None:
        for one in values["measurements"]:
            path = tmp_path / "large" / one["file"]
            path.rename(path.with_name(path.name.upper()))
            one["file"] = path.name.upper()

    write_drive(tmp_path / "small")
    write_drive(tmp_path / "large", renamed)
    for number in range(3):
        small, large = (read(tmp_path, f"{name}/{number:06d}") for name in ("small", "large"))
        assert torch.equal(large.cloud.coord, small.cloud.coord) and len(large.frames) == len(small.frames)


def test_names_of_files_with_backslashes_are_folders(tmp_path: Path) -> None:
    write_drive(tmp_path / "one", lambda one: one["measurements"][0].update(file="scans\\0.bin"))
    (tmp_path / "one/scans").mkdir()
    (tmp_path / "one/0.bin").rename(tmp_path / "one/scans/0.bin")
    assert len(read(tmp_path, "one/000000").cloud) == 40


def test_a_lidar_that_no_drive_has_is_refused(tmp_path: Path) -> None:
    write_drive(tmp_path / "one")
    with pytest.raises(SceneError, match="'roof'") as caught:
        reader_of(VehicleConfig(path=tmp_path, lidar="roof"))
    assert caught.value.fix == "there: top"


def test_cameras_whose_images_are_distorted_are_left_out(tmp_path: Path) -> None:
    write_drive(tmp_path / "one", lambda one: one["sensors"]["front"].update(distortion=[0.1, 0.0]))
    folder = open_folder(tmp_path)
    assert not folder.read("one/000002", "train").frames
    assert any("undistort" in one for one in folder.warnings("train"))


def test_another_calibration_of_dgp_prepares_its_scenes_again(sample_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "dgp"
    shutil.copytree(sample_data / "dgp", root)
    before = [one.fingerprint() for one in reader_of(VehicleConfig(path=root)).scenes]
    path = next((root / "scene_01/calibration").iterdir())
    values = json.loads(path.read_text())
    values["intrinsics"][1]["fx"] += 50.0
    values["intrinsics"][2]["k1"] = -0.3
    path.write_text(json.dumps(values))
    reader = reader_of(VehicleConfig(path=root))
    assert not set(before) & {one.fingerprint() for one in reader.scenes}
    cameras = {frame.sensor for frame in open_folder(root).read(reader.scenes[1].name, "train").frames}
    assert {values["names"][1]} <= cameras and values["names"][2] not in cameras


def test_a_damaged_drive_is_named(tmp_path: Path) -> None:
    cases: tuple[tuple[Callable[[dict[str, Any]], Any], str], ...] = (
        (lambda one: one.pop("sensors"), "it lacks 'sensors'"),
        (lambda one: one["measurements"][0].pop("time"), "it lacks 'time'"),
        (lambda one: one["measurements"][0].update(sensor="other"), "it lacks 'other'"),
        (lambda one: one["sensors"]["top"].update(kind="sonar"), "a lidar or a camera"),
        (lambda one: one["sensors"]["top"].update(sensor_to_vehicle=[[1, 2]]), "4 x 4 numbers"),
    )
    for number, (change, words) in enumerate(cases):
        write_drive(tmp_path / str(number) / "one", change)
        with pytest.raises(SceneError, match=words):
            open_folder(tmp_path / str(number))


def test_missing_and_unfit_files_are_left_out_or_named(tmp_path: Path) -> None:
    write_drive(tmp_path / "one")
    (tmp_path / "one/1.npy").unlink()
    (tmp_path / "one/front.png").unlink()
    scene = read(tmp_path, "one/000002")
    assert len(scene.sweeps) == 2 and not scene.frames
    with pytest.raises(SceneError, match="cannot be read"):
        read(tmp_path, "one/000001")
    np.save(tmp_path / "one/1.npy", np.zeros((4, 7)))
    with pytest.raises(SceneError, match="expected x, y, z and intensity"):
        read(tmp_path, "one/000001")
    write_drive(
        tmp_path / "two", lambda one: one["sensors"]["front"].update(intrinsics=(np.eye(3) * 5).tolist())
    )
    assert not read(tmp_path, "two/000002").frames
    with pytest.raises(SceneError, match="no drives"):
        reader_of(VehicleConfig(path=tmp_path / "three"))


@pytest.mark.parametrize(
    ("pose", "words"),
    [
        (np.diag([1.0, 1.0, 0.0, 1.0]).tolist(), "cannot be inverted"),
        (np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [5, 2, 0, 1]]).tolist(), "is it transposed"),
        ({"translation": [10**400, 0, 0], "rotation": [1, 0, 0, 0]}, "is no drive"),
    ],
)
def test_poses_that_are_none_are_refused(tmp_path: Path, pose: Any, words: str) -> None:
    def change(drive: dict[str, Any]) -> None:
        drive["measurements"][0]["vehicle_to_world"] = pose

    write_drive(tmp_path / "drive", change)
    with pytest.raises(SceneError, match=words):
        open_folder(tmp_path)
