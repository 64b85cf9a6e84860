"""Readers of KITTI and SemanticKITTI against real scans and against sequences with known motion."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.kinds import reader_of
from ponderv2.datasets.kitti.labels import (
    BOX_CLASSES,
    TYPES,
    read_boxes,
    result_lines,
    with_image_boxes,
)
from ponderv2.datasets.kitti_calibration import read_calibration
from ponderv2.datasets.semantickitti.classes import CLASS_NAMES
from ponderv2.datasets.semantickitti.config import SemanticKittiConfig
from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.cameras import project
from ponderv2.geometry.detections import Detections
from ponderv2.geometry.transforms import transform_points
from ponderv2.scenes.scene import Scene
from ponderv2.store.store import SceneStore
from ponderv2.workflows.config import PrepareConfig
from ponderv2.workflows.prepare import check, run


@pytest.fixture
def kitti(sample_data: Path, tmp_path: Path) -> Path:
    """A copy of the real frames that a test may damage."""
    root = tmp_path / "kitti"
    for path in sorted((sample_data / "kitti").rglob("*")):
        if path.is_file():
            target = root / path.relative_to(sample_data / "kitti")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return root


def read_kitti(root: Path, name: str) -> Scene:
    return open_folder(root).read(name, "train")


@pytest.mark.parametrize(("name", "n_boxes"), [("000000", 1), ("000002", 2)])
def test_boxes_of_kitti_fill_the_rectangles_that_are_annotated_in_the_image(
    sample_data: Path, name: str, n_boxes: int
) -> None:
    scene = read_kitti(sample_data / "kitti", name)
    assert scene.boxes is not None and len(scene.boxes) == n_boxes
    camera = scene.frames[0].camera
    corners = transform_points(camera.world_to_camera.double(), scene.boxes.corners().double())
    pixel, _ = project(corners.reshape(-1, 3), camera.intrinsics.double())
    pixel = pixel.reshape(-1, 8, 2).clamp(min=torch.zeros(2), max=torch.tensor([camera.width, camera.height]))
    low, high = pixel.amin(dim=1), pixel.amax(dim=1)
    lines = (sample_data / "kitti/training/label_2" / f"{name}.txt").read_text().splitlines()
    for index, line in enumerate(one for one in lines if not one.startswith("DontCare")):
        left, top, right, bottom = map(float, line.split()[4:8])
        both = [min(right, float(high[index, 0])) - max(left, float(low[index, 0]))]
        both += [min(bottom, float(high[index, 1])) - max(top, float(low[index, 1]))]
        area = float((high[index] - low[index]).prod())
        union = (right - left) * (bottom - top) + area - both[0] * both[1]
        assert both[0] * both[1] / union > 0.85
    inside = scene.boxes.contains(scene.cloud.coord).sum(dim=1)
    assert (inside > 20).all()
    assert float(scene.cloud.fields["intensity"].max()) <= 1.0


def test_boxes_of_kitti_carry_what_their_difficulty_depends_on(sample_data: Path) -> None:
    boxes = read_kitti(sample_data / "kitti", "000002").boxes
    lines = (sample_data / "kitti/training/label_2/000002.txt").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("DontCare")]
    assert boxes is not None
    assert [TYPES[i] for i in boxes.fields["source_category"].tolist()] == [row[0] for row in rows]
    assert boxes.fields["truncated"].tolist() == pytest.approx([float(row[1]) for row in rows])
    assert boxes.fields["occluded"].tolist() == [int(row[2]) for row in rows]
    sides = [[float(word) for word in row[4:8]] for row in rows]
    assert torch.allclose(boxes.fields["image_box"], torch.tensor(sides))


@pytest.mark.parametrize("name", ["000000", "000002"])
def test_lines_of_results_are_the_lines_of_the_labels(sample_data: Path, name: str) -> None:
    scene = read_kitti(sample_data / "kitti", name)
    assert scene.boxes is not None
    calibration = read_calibration(sample_data / f"kitti/training/calib/{name}.txt")
    of_classes = scene.boxes.take(scene.boxes.category >= 0)
    score = torch.linspace(0.25, 0.75, len(of_classes))
    lines = result_lines(Detections(of_classes, score), scene.frames[0].camera, calibration)
    labels = (sample_data / f"kitti/training/label_2/{name}.txt").read_text().splitlines()
    expected = [line.split() for line in labels if line.split()[0] in BOX_CLASSES]
    assert len(lines) == len(expected) > 0
    for line, row, one in zip(lines, expected, score.tolist(), strict=True):
        words = line.split()
        assert words[:3] == [row[0], "-1", "-1"]
        # The angle as seen from the camera was annotated for itself.
        assert abs(math.remainder(float(words[3]) - float(row[3]), 2 * math.pi)) < 0.05
        assert [float(w) for w in words[8:15]] == pytest.approx([float(w) for w in row[8:15]], abs=2e-3)
        assert float(words[15]) == pytest.approx(one, abs=1e-4)


def test_boxes_of_any_heading_come_back_from_result_files(sample_data: Path, tmp_path: Path) -> None:
    scene = read_kitti(sample_data / "kitti", "000000")
    calibration = read_calibration(sample_data / "kitti/training/calib/000000.txt")
    n = 24
    boxes = Boxes(
        center=torch.tensor([[12.0, 1.0, -0.8]]).repeat(n, 1) + torch.arange(n)[:, None] / 10.0,
        size=torch.tensor([[3.9, 1.6, 1.5]]).repeat(n, 1),
        yaw=torch.linspace(-math.pi, math.pi, n + 1)[:-1] + 0.01,
        velocity=torch.full((n, 3), torch.nan),
        category=torch.arange(n) % 3,
        instance=torch.full((n,), -1),
    )
    lines = result_lines(Detections(boxes, torch.rand(n)), scene.frames[0].camera, calibration)
    path = tmp_path / "000000.txt"
    path.write_text("\n".join(lines) + "\n")
    again = read_boxes(path, calibration, [])
    assert torch.equal(again.category, boxes.category)
    assert torch.allclose(again.center, boxes.center, atol=2e-4)
    assert torch.allclose(again.size, boxes.size, atol=2e-4)
    turned = torch.remainder(again.yaw - boxes.yaw + 1.0, 2 * math.pi) - 1.0
    assert float(turned.abs().max()) < 2e-4
    behind = replace(boxes, center=boxes.center * torch.tensor([-1.0, 1.0, 1.0]))
    assert result_lines(Detections(behind, torch.rand(n)), scene.frames[0].camera, calibration) == []


def test_image_boxes_of_annotated_boxes_are_near_the_annotated_ones(sample_data: Path) -> None:
    for name in ("000000", "000002"):
        scene = read_kitti(sample_data / "kitti", name)
        assert scene.boxes is not None
        found = with_image_boxes(scene.boxes, scene.frames[0].camera).fields["image_box"]
        away = (found - scene.boxes.fields["image_box"]).abs()
        assert float(away.max()) < 15.0 and float(away.median()) < 5.0


def test_the_lidar_of_kitti_is_seen_in_front_of_the_camera_only(sample_data: Path) -> None:
    scene = read_kitti(sample_data / "kitti", "000000")
    camera = scene.frames[0].camera
    assert (camera.width, camera.height) == tuple(reversed(scene.frames[0].read_color().shape[:2]))
    raw = (
        np.fromfile(sample_data / "kitti/training/velodyne/000000.bin", "<f4")
        .reshape(-1, 4)[:, :3]
        .astype(float)
    )
    rows = {
        line.split(":")[0]: np.array(line.split(":")[1].split(), float)
        for line in (sample_data / "kitti/training/calib/000000.txt").read_text().splitlines()
        if ":" in line
    }
    rectified = rows["R0_rect"].reshape(3, 3) @ (
        rows["Tr_velo_to_cam"].reshape(3, 4) @ np.column_stack([raw, np.ones(len(raw))]).T
    )
    expected = rows["P2"].reshape(3, 4) @ np.vstack([rectified, np.ones(len(raw))])
    ours = transform_points(camera.world_to_camera.double(), scene.cloud.coord.double())
    pixel, depth = project(ours, camera.intrinsics.double())
    front = expected[2] > 1.0
    assert np.abs(depth.numpy() - expected[2]).max() < 1e-3
    assert np.abs(pixel.numpy().T - expected[:2] / expected[2])[:, front].max() < 0.05


def test_kitti_is_divided_by_its_lists(kitti: Path, tmp_path: Path) -> None:
    (kitti / "ImageSets").mkdir()
    (kitti / "ImageSets/train.txt").write_text("000002\n")
    (kitti / "ImageSets/val.txt").write_text("000000\n")
    folder = open_folder(kitti)
    assert folder.info.splits == ("train", "val") and folder.names("val") == ("000000",)
    from ponderv2.datasets.kitti.config import KittiConfig

    result = run(PrepareConfig(source=KittiConfig(path=kitti), out=tmp_path / "out", workers=1))
    assert result.n_prepared == 2
    stored = SceneStore.open(tmp_path / "out").read("000002", "train")
    there = folder.read("000002", "train")
    assert stored.boxes is not None and there.boxes is not None
    assert torch.equal(stored.boxes.center, there.boxes.center)
    assert stored.boxes.fields["occluded"].tolist() == there.boxes.fields["occluded"].tolist()


def test_a_check_of_drives_where_they_are_says_where_and_one_of_nothing_what_is_missing(
    kitti: Path, tmp_path: Path
) -> None:
    from ponderv2.datasets.kitti.config import KittiConfig

    result = check(PrepareConfig(source=KittiConfig(path=kitti), out=tmp_path / "out", workers=1))
    assert result.scenes_in == str(kitti) and len(result.scenes) == 2
    nothing = PrepareConfig(source=KittiConfig(path=tmp_path / "none"), out=tmp_path / "other")
    with pytest.raises(SceneError, match=r"neither a folder .*none nor prepared scenes"):
        check(nothing)


def test_marks_line_ends_and_endings_of_other_programs_are_read(kitti: Path) -> None:
    expected = read_kitti(kitti, "000000")
    color = expected.frames[0].read_color()
    for path in (kitti / "training/calib/000000.txt", kitti / "training/label_2/000000.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    image = kitti / "training/image_2/000000.png"
    image.rename(image.with_suffix(".PNG"))
    found = read_kitti(kitti, "000000")
    assert found.boxes is not None and expected.boxes is not None
    assert torch.equal(found.boxes.center, expected.boxes.center)
    assert torch.equal(found.frames[0].camera.intrinsics, expected.frames[0].camera.intrinsics)
    assert torch.equal(found.frames[0].read_color(), color)


def test_files_of_kitti_may_end_in_large_letters(kitti: Path, sample_data: Path) -> None:
    _in_large_letters(kitti / "training")
    small, large = read_kitti(sample_data / "kitti", "000000"), read_kitti(kitti, "000000")
    assert torch.equal(large.cloud.coord, small.cloud.coord) and len(large.frames) == len(small.frames) == 1
    assert small.boxes is not None and large.boxes is not None
    assert torch.equal(large.boxes.center, small.boxes.center)


def test_files_of_semantickitti_may_end_in_large_letters(sample_data: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_data / "semantickitti", tmp_path / "large")
    for path in sorted((tmp_path / "large").rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for kind in ("velodyne", "labels"):
        for folder in (tmp_path / "large").rglob(kind):
            _in_large_letters(folder)
    small, large = open_folder(sample_data / "semantickitti"), open_folder(tmp_path / "large")
    (split,) = small.info.splits
    assert large.names(split) == small.names(split) != ()
    name = small.names(split)[0]
    found, expected = large.read(name, split).cloud, small.read(name, split).cloud
    assert torch.equal(found.coord, expected.coord)
    assert torch.equal(found.labels["segment"], expected.labels["segment"])
    reader = reader_of(SemanticKittiConfig(path=tmp_path / "large"))
    assert reader.warnings == reader_of(SemanticKittiConfig(path=sample_data / "semantickitti")).warnings


def test_a_line_of_labels_that_is_too_short_is_named(kitti: Path) -> None:
    path = kitti / "training/label_2/000002.txt"
    lines = path.read_text().splitlines()
    number = next(place for place, one in enumerate(lines) if not one.startswith("DontCare"))
    lines[number] = lines[number].rpartition(" ")[0]
    path.write_text("\n".join(lines))
    with pytest.raises(SceneError, match=rf"000002.txt are damaged .line {number + 1} has 13 numbers"):
        read_kitti(kitti, "000002")


def _in_large_letters(folder: Path) -> None:
    """000000.bin becomes 000000.BIN."""
    for path in sorted(folder.rglob("*.*")):
        path.rename(path.with_suffix(path.suffix.upper()))


def test_scans_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    from ponderv2.datasets.lidar_files import scan_names

    for name in ("10", "9", "000011", "x"):
        (tmp_path / f"{name}.bin").write_bytes(b"")
    assert scan_names(tmp_path) == ["9", "10", "000011"]


def test_names_in_a_list_that_have_no_scan_are_reported(kitti: Path) -> None:
    from ponderv2.datasets.kitti.config import KittiConfig

    (kitti / "ImageSets").mkdir()
    (kitti / "ImageSets/train.txt").write_text("000002\n000777\n")
    warnings = reader_of(KittiConfig(path=kitti)).warnings
    assert warnings == ("1 of 2 frames of ImageSets/train.txt have no scan (000777)",)


def test_damaged_files_of_kitti_are_named(kitti: Path) -> None:
    calib, label = kitti / "training/calib/000000.txt", kitti / "training/label_2/000000.txt"
    good = calib.read_text()
    calib.write_text(good.replace("Tr_velo_to_cam", "Tr_other"))
    with pytest.raises(SceneError, match=r"000000.txt lacks P0..P3 or Tr"):
        read_kitti(kitti, "000000")
    calib.write_text(good.replace("7.070493000000e+02", "3.5e+02").replace("6.040814000000e+02", "3.0e+02"))
    assert not read_kitti(kitti, "000000").frames
    assert any("another image size" in one for one in open_folder(kitti).warnings("train"))
    calib.write_text(good)
    label.write_text("Car 0 0 0 1 2 3 4\n")
    with pytest.raises(SceneError, match=r"labels .* are damaged"):
        read_kitti(kitti, "000000")
    label.write_text("Car 0.00 0 0 1 2 3 4 1.5 1.6 nan 1 2 10 0.1\n")
    boxes = read_kitti(kitti, "000000").boxes
    assert boxes is not None and len(boxes) == 0


def test_classes_and_instances_of_the_real_scan(sample_data: Path) -> None:
    folder = open_folder(sample_data / "semantickitti")
    assert folder.names("train") == ("00/000000",)
    cloud = folder.read("00/000000", "train").cloud
    stored = np.fromfile(sample_data / "semantickitti/sequences/00/labels/000000.label", "<u4")
    assert len(cloud) == len(stored) == 123_389
    kind = stored & 0xFFFF
    segment = cloud.labels["segment"].numpy()
    for name, numbers in {"car": (10, 252), "road": (40, 60), "pole": (80,), "vegetation": (70,)}.items():
        assert (segment == CLASS_NAMES.index(name)).sum() == np.isin(kind, numbers).sum()
    assert (segment == -1).sum() == np.isin(kind, (0, 1, 52, 99)).sum()
    instance = cloud.labels["instance"].numpy()
    assert len(np.unique(instance[instance >= 0])) == 14


def write_sequence(root: Path, n_scans: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A sequence past fixed points of the world; those points, and the poses of the LiDAR."""
    folder = root / "sequences/08"
    for kind in ("velodyne", "labels"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    world = rng.uniform(-20, 20, (50, 3))
    to_camera = np.eye(4)
    to_camera[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    to_camera[:3, 3] = (0.0, -0.08, -0.27)
    poses, lines = [], []
    for number in range(n_scans):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("z", 0.1 * number).as_matrix()
        pose[:3, 3] = (1.2 * number, 0.3 * number, 0.0)
        poses.append(pose)
        camera = to_camera @ pose @ np.linalg.inv(to_camera)
        lines.append(" ".join(f"{value:.9e}" for value in camera[:3].ravel()))
        local = (world - pose[:3, 3]) @ pose[:3, :3]
        rows = np.column_stack([local, np.full(50, 0.5)]).astype("<f4")
        rows.tofile(folder / "velodyne" / f"{number:06d}.bin")
        np.full(50, (7 << 16) + 10, "<u4").tofile(folder / "labels" / f"{number:06d}.label")
    (folder / "poses.txt").write_text("\n".join(lines) + "\n")
    (folder / "times.txt").write_text("".join(f"{0.1 * number:.6e}\n" for number in range(n_scans)))
    projection = "700 0 600 0 0 700 180 0 0 0 1 0"
    tr = " ".join(f"{value:.9e}" for value in to_camera[:3].ravel())
    (folder / "calib.txt").write_text(f"P0: {projection}\nP2: {projection}\nTr: {tr}\n")
    return world, np.array(poses)


def test_earlier_scans_measure_the_same_points_after_the_motion_of_the_vehicle(tmp_path: Path) -> None:
    world, poses = write_sequence(tmp_path)
    reader = reader_of(SemanticKittiConfig(path=tmp_path, sweeps=4))
    assert [one.name for one in reader.scenes] == [f"08/{i:06d}" for i in range(5)]
    scene = reader.read("08/000004", "val")
    expected = (world - poses[4, :3, 3]) @ poses[4, :3, :3]
    assert [round(10 * (sweep.time or 0.0)) for sweep in scene.sweeps] == [0, -1, -2, -3]
    for sweep in scene.sweeps:
        assert np.abs(sweep.read_in_world().coord.numpy() - expected).max() < 1e-4


def test_without_poses_a_scene_is_one_scan(tmp_path: Path) -> None:
    write_sequence(tmp_path)
    (tmp_path / "sequences/08/poses.txt").unlink()
    result = run(
        PrepareConfig(source=SemanticKittiConfig(path=tmp_path, sweeps=3), out=tmp_path / "out", workers=1)
    )
    assert result.n_prepared == 5 and all("poses.txt" in " ".join(one.notes) for one in result.scenes)


def test_damaged_files_of_a_sequence_are_named(tmp_path: Path) -> None:
    write_sequence(tmp_path)
    folder = tmp_path / "sequences/08"
    (folder / "labels/000001.label").unlink()
    (folder / "labels/000002.label").write_bytes(b"123")
    (folder / "velodyne/000003.bin").write_bytes(b"12345")
    reader = reader_of(SemanticKittiConfig(path=tmp_path))
    assert any("1 of 5 scans of sequence 08 have no labels" in one for one in reader.warnings)
    assert "segment" not in reader.read("08/000001", "val").cloud.labels
    with pytest.raises(SceneError, match=r"holds 0\.75 labels, its scan has 50 points"):
        reader.read("08/000002", "val")
    with pytest.raises(SceneError, match="5 bytes are no number of points of 16 bytes"):
        reader.read("08/000003", "val")
    shutil.rmtree(tmp_path / "sequences")
    with pytest.raises(SceneError, match="no sequences of SemanticKITTI"):
        reader_of(SemanticKittiConfig(path=tmp_path))
