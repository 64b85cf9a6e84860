"""SUN RGB-D in its four layouts: points, cameras and boxes against its authors' formulas, and real images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch

from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.sunrgbd.classes import BOX_CLASSES, MEAN_SIZES
from ponderv2.datasets.sunrgbd.config import SunRgbdConfig, layout_of
from ponderv2.datasets.sunrgbd.image import read_millimetres
from ponderv2.datasets.sunrgbd.reader import source
from ponderv2.datasets.sunrgbd.votenet import read_box_rows, read_calibration, read_labels
from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import project
from ponderv2.geometry.transforms import transform_points
from ponderv2.scenes.scene import Scene
from ponderv2.workflows.config import PrepareConfig
from ponderv2.workflows.prepare import run
from tests.datasets.sunrgbd.files import (
    CLASSES,
    LAYOUTS,
    OBJECTS,
    Labelled,
    images,
    official,
    published_points,
    write,
)


def read(root: Path, name: str, split: str = "train", **settings: Any) -> Scene:
    return source(SunRgbdConfig(path=root, **settings)).drives.read(split, name, True).scene


def colors_of(scene: Scene) -> torch.Tensor:
    assert scene.cloud.color is not None
    return scene.cloud.color


def corners_of(item: Labelled) -> np.ndarray:
    """By the vectors of the labels: half length along the heading, half width across it."""
    along = np.array([*item.heading, 0.0]) / np.hypot(*item.heading)
    across = np.array([-along[1], along[0], 0.0])
    width, length, height = item.half
    signs = [(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]
    return np.array(
        [
            item.center + a * length * along + b * width * across + c * height * np.eye(3)[2]
            for a, b, c in signs
        ]
    )


def sorted_rows(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(np.round(rows, 4).T)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_scenes(tmp_path: Path, layout: str) -> None:
    found = images()
    root = write(tmp_path, LAYOUTS[layout](found))
    assert layout_of(root) == layout
    drives = source(SunRgbdConfig(path=root)).drives
    assert drives.names("train") == ("000001", "000003") and drives.names("val") == ("000002",)
    for number, one in enumerate(found, 1):
        scene = read(root, f"{number:06d}", one.split)
        expected = published_points(one)
        cloud = np.concatenate([scene.cloud.coord.numpy(), colors_of(scene).numpy() / 255.0], axis=1)
        np.testing.assert_allclose(sorted_rows(cloud), sorted_rows(expected), atol=2e-5)
        boxes = scene.boxes
        known = [item for item in one.objects if item.name in BOX_CLASSES]
        assert boxes is not None and [BOX_CLASSES[c] for c in boxes.category] == [i.name for i in known]
        for corners, item in zip(boxes.corners().numpy(), known, strict=True):
            np.testing.assert_allclose(sorted_rows(corners), sorted_rows(corners_of(item)), atol=1e-5)
        heading = torch.stack([boxes.yaw.cos(), boxes.yaw.sin()], dim=1).numpy()
        for row, item in zip(heading, known, strict=True):
            np.testing.assert_allclose(row, np.array(item.heading) / np.hypot(*item.heading), atol=1e-5)


@pytest.mark.parametrize("layout", ["official", "text", "infos"])
def test_points_project_to_the_pixels_that_measured_them(tmp_path: Path, layout: str) -> None:
    one = images()[0]
    scene = read(write(tmp_path, LAYOUTS[layout]([one])), "000001")
    camera = scene.frames[0].camera
    pixel, depth = project(transform_points(camera.world_to_camera, scene.cloud.coord), camera.intrinsics)
    at = pixel.round().long()
    torch.testing.assert_close(pixel, at.float(), atol=2e-3, rtol=0)
    image = scene.frames[0].read_color().float()
    torch.testing.assert_close(image[at[:, 1], at[:, 0]], colors_of(scene), atol=1e-3, rtol=0)
    measured = torch.from_numpy(np.minimum(one.depth / 1000.0, 8.0)).float()
    torch.testing.assert_close(depth, measured[at[:, 1], at[:, 0]], atol=1e-4, rtol=0)


def test_depth_images_have_their_bits_in_order_and_end_at_8_metres(tmp_path: Path) -> None:
    one = images()[0]
    scene = read(write(tmp_path, official([one])), "000001")
    expected = np.where(one.depth > 8000, 0, one.depth) / 1000.0
    np.testing.assert_allclose(scene.frames[0].read_depth().numpy(), expected, atol=1e-6)


def test_a_cloud_is_sampled_by_the_number_of_its_image(tmp_path: Path) -> None:
    root = write(tmp_path, official(images()))
    whole, few = read(root, "000001"), read(root, "000001", max_points=50)
    assert len(few.cloud) == 50 < len(whole.cloud)
    assert torch.equal(few.cloud.coord, read(root, "000001", max_points=50).cloud.coord)
    assert set(map(tuple, few.cloud.coord.tolist())) < set(map(tuple, whole.cloud.coord.tolist()))


def test_the_versions_of_the_labels_are_told_apart(tmp_path: Path) -> None:
    v1, v2 = images(), images()
    moved = replace(OBJECTS[0], center=(9.0, 3.0, 0.0))
    v2[0] = replace(v2[0], objects=(moved,))
    files = official(v1, ("v1",)) | {k: v for k, v in official(v2, ("v2",)).items() if "v2" in k}
    root = write(tmp_path / "both", files)
    first, second = read(root, "000001", labels="v1").boxes, read(root, "000001", labels="v2").boxes
    assert first is not None and len(first) == 2
    assert second is not None and second.center.tolist() == [[9.0, 3.0, 0.0]]
    for version in ("v1", "v2"):
        found = source(SunRgbdConfig(path=root, labels=version))
        assert f"labels {version}" in found.about[0] and "not comparable" in found.about[0]
    only = write(tmp_path / "only", official(images(), ("v2",)))
    with pytest.raises(SceneError, match="no labels v1") as refused:
        source(SunRgbdConfig(path=only))
    assert "not comparable" in (refused.value.fix or "")
    renamed = official(images(), ("v2",))
    renamed["SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat"] = renamed.pop("SUNRGBDMeta3DBB_v2.mat")
    problems = source(SunRgbdConfig(path=write(tmp_path / "renamed", renamed))).drives.problems()
    assert any("as labels v2 have" in one for one in problems)


def test_what_the_labels_skip_is_reported(tmp_path: Path) -> None:
    found = images()
    files = official(found)
    others = official([replace(found[0], objects=OBJECTS[:1]), *found[1:]])
    files["SUNRGBDMeta2DBB_v2.mat"] = others["SUNRGBDMeta2DBB_v2.mat"]
    lists = official([*found, found[1]])["SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"]
    files["SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"] = lists
    problems = source(SunRgbdConfig(path=write(tmp_path, files), labels="v2")).drives.problems()
    assert any("1 of 3 images have no boxes (000003)" in one for one in problems)
    assert any("1 of 4 images of the splits have no labels" in one for one in problems)
    assert any("1 images (000001) have other names" in one for one in problems)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"K": np.eye(2)}, "3 x 3 numbers"),
        ({"depthpath": "/home/../etc/SUNRGBD/../../x"}, "no path below"),
        ({"groundtruth3DBB": np.array([[(1,)]], dtype=[("basis", object)])}, "no field 'classname'"),
    ],
)
def test_records_that_cannot_be_used_are_left_out_and_named(tmp_path: Path, edit: dict, said: str) -> None:
    drives = source(SunRgbdConfig(path=write(tmp_path, official(images(), **edit)))).drives
    assert not drives.has("train", "000001") and drives.has("train", "000003")
    assert any("000001" in one and said in one for one in drives.problems())


def test_boxes_that_are_none_are_left_out_and_counted(tmp_path: Path) -> None:
    wrong = (
        replace(OBJECTS[0], center=(np.nan, 0.0, 0.0)),
        replace(OBJECTS[0], half=(0.0, 1.0, 1.0)),
        replace(OBJECTS[0], heading=(0.0, 0.0)),
        replace(OBJECTS[0], name="spaceship"),
        OBJECTS[1],
    )
    one = replace(images()[0], objects=wrong)
    for layout in ("official", "text"):
        drives = source(SunRgbdConfig(path=write(tmp_path / layout, LAYOUTS[layout]([one])))).drives
        found = drives.read("train", "000001", True)
        assert found.scene.boxes is not None and len(found.scene.boxes) == 1
        assert "1 of 5 objects are of other classes (spaceship)" in found.notes
        assert "3 of 4 boxes have no finite place, size or heading" in found.notes


def test_headings_beyond_the_circle_are_wrapped_and_unknown_classes_named(tmp_path: Path) -> None:
    rows = np.array([[0, 0, 0, 1, 1, 1, 7.0, 3], [0, 0, 0, 1, 1, 1, -9.0, 12], [0, 0, 0, 1, -1, 1, 0, 1]])
    np.save(tmp_path / "a.npy", rows)
    notes: list[str] = []
    boxes = read_box_rows(tmp_path / "a.npy").boxes(notes)
    assert len(boxes) == 1 and float(boxes.yaw[0]) == pytest.approx(2 * np.pi - 7.0, abs=1e-6)
    assert any("class 12" in one for one in notes) and any("1 of 2 boxes" in one for one in notes)


def test_infos_of_other_versions_and_what_pickles_run_are_refused(tmp_path: Path) -> None:
    import pickle

    old = pickle.dumps([{"point_cloud": {"lidar_idx": 1}, "annos": {"gt_num": 0}}])
    (tmp_path / "sunrgbd_infos_train.pkl").write_bytes(old)
    with pytest.raises(SceneError, match=r"0\.x"):
        source(SunRgbdConfig(path=tmp_path))
    (tmp_path / "sunrgbd_infos_train.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(SceneError, match="was not opened"):
        source(SunRgbdConfig(path=tmp_path))


@pytest.mark.parametrize(
    "path", ["SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat", "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"]
)
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "hdf", "missing"])
def test_damaged_tables_are_refused_by_name(tmp_path: Path, path: str, damage: str) -> None:
    files = official(images())
    changed = {
        "cut": files[path][: len(files[path]) // 2],
        "empty": b"",
        "text": b"hello " * 99,
        "hdf": b"\x89HDF\r\n\x1a\n" + bytes(900),
    }
    if damage == "missing":
        del files[path]
    else:
        files[path] = changed[damage]
    with pytest.raises(SceneError, match=Path(path).name):
        source(SunRgbdConfig(path=write(tmp_path, files)))


def test_a_missing_depth_image_is_one_message_of_its_scene(tmp_path: Path) -> None:
    files = official(images())
    del files["SUNRGBD/kv1/NYUdata/NYU0000/depth/NYU.png"]
    root = write(tmp_path / "raw", files)
    result = run(PrepareConfig(source=SunRgbdConfig(path=root), out=tmp_path / "out", workers=1))
    assert (result.n_prepared, result.n_failed) == (2, 1)
    (failed,) = [one for one in result.scenes if one.name == "000001"]
    assert "there is no depth image" in " ".join(failed.why)


@pytest.mark.parametrize("layout", ["official", "infos"])
def test_prepared_scenes_are_those_read_in_place(tmp_path: Path, layout: str) -> None:
    root = write(tmp_path / "raw", LAYOUTS[layout](images()))
    result = run(PrepareConfig(source=SunRgbdConfig(path=root), out=tmp_path / "out", workers=1))
    assert result.n_prepared == 3 and result.n_failed == 0
    here, there = open_folder(root), open_folder(tmp_path / "out")
    assert here.info.box_classes == there.info.box_classes == BOX_CLASSES
    for split in ("train", "val"):
        assert here.names(split) == there.names(split)
        for name in here.names(split):
            one, two = here.read(name, split), there.read(name, split)
            assert torch.equal(one.cloud.coord, two.cloud.coord)
            assert one.boxes is not None and two.boxes is not None
            assert torch.equal(one.boxes.yaw, two.boxes.yaw) and torch.equal(one.boxes.size, two.boxes.size)
            pair = (one.frames[0].camera, two.frames[0].camera)
            torch.testing.assert_close(pair[0].world_to_camera, pair[1].world_to_camera)
            if layout == "official":
                torch.testing.assert_close(one.frames[0].read_depth(), two.frames[0].read_depth())
    assert here.read("000001", "train", labels=False).boxes is None
    again = run(PrepareConfig(source=SunRgbdConfig(path=root), out=tmp_path / "out", workers=1))
    assert again.n_skipped == 3


def test_the_classes_and_sizes_are_those_of_the_benchmark() -> None:
    assert BOX_CLASSES == CLASSES and len(MEAN_SIZES) == 10
    assert all(min(one) > 0.3 and max(one) < 2.2 for one in MEAN_SIZES)


# Real images -------------------------------------------------------------------------------------------


def test_points_of_a_real_image_have_the_colours_of_their_pixels(sample_data: Path) -> None:
    """The published points and ours: same pixels, to the last bit of colour."""
    root = sample_data / "sunrgbd" / "sunrgbd_trainval"
    scene = read(root, "000001", labels="v2", max_points=None)
    assert len(scene.cloud) == 280961
    camera = scene.frames[0].camera
    pixel, _ = project(transform_points(camera.world_to_camera, scene.cloud.coord), camera.intrinsics)
    at = pixel.round().long()
    assert float((pixel - at).abs().max()) < 0.01
    shown = scene.frames[0].read_color()[at[:, 1], at[:, 0]].float()
    assert float((shown - colors_of(scene)).abs().max()) < 0.5


def test_boxes_of_a_real_image_hold_its_furniture(sample_data: Path) -> None:
    scene = read(sample_data / "sunrgbd" / "sunrgbd_trainval", "000001", labels="v2", max_points=None)
    boxes = scene.boxes
    assert boxes is not None
    assert [BOX_CLASSES[one] for one in boxes.category] == ["bed", "night_stand", "dresser"]
    count = boxes.contains(scene.cloud.coord).sum(dim=1).tolist()
    assert count[0] > 10_000 and min(count[1:]) > 300
    # With length and width exchanged, the bed is another one.
    exchanged = replace(boxes, size=boxes.size[:, [1, 0, 2]]).contains(scene.cloud.coord).sum(dim=1)
    assert int(exchanged[0]) < count[0]


def test_headings_of_real_arrays_are_those_that_hold_more_points(sample_data: Path) -> None:
    """With headings of the other sense fewer points lie in the boxes of chairs and table."""
    root = sample_data / "sunrgbd"
    assert layout_of(root) == "arrays"
    scene = read(root, "000001")
    boxes = scene.boxes
    assert boxes is not None and len(boxes) == 8 and len(scene.cloud) == 50_000
    right = boxes.contains(scene.cloud.coord).any(dim=0).sum()
    wrong = replace(boxes, yaw=-boxes.yaw).contains(scene.cloud.coord).any(dim=0).sum()
    assert int(right) > 1.02 * int(wrong)
    assert (boxes.contains(scene.cloud.coord).sum(dim=1) > 50).all()


def test_a_real_depth_image_is_in_metres(sample_data: Path) -> None:
    (path,) = (sample_data / "sunrgbd" / "SUNRGBD_raw").glob("*/depth/*.png")
    depth = read_millimetres(path)
    measured = depth[depth > 0] / 1000.0
    assert np.quantile(measured, 0.05) > 0.5 and np.quantile(measured, 0.95) < 8.0
    row = depth[depth.shape[0] // 2].astype(np.float64)
    steps = np.abs(np.diff(row[row > 0]))
    assert np.median(steps) < 30.0  # neighbours differ by millimetres: no bit is out of place


def test_real_texts_are_read_as_numbers(sample_data: Path) -> None:
    root = sample_data / "sunrgbd" / "sunrgbd_trainval"
    tilt, intrinsics = read_calibration(root / "calib" / "000001.txt")
    np.testing.assert_allclose(tilt @ tilt.T, np.eye(3), atol=1e-4)
    assert intrinsics[0, 2] == 365.0 and intrinsics[2].tolist() == [0.0, 0.0, 1.0]
    assert tilt[0, 2] == -0.20061
    labels = read_labels(root / "label" / "000001.txt")
    assert len(labels.names) == 6
    np.testing.assert_allclose(labels.size[0], (2 * 1.151035, 2 * 0.943792, 2 * 0.984807))
    assert "instance" in scipy.io.loadmat(root / "depth" / "000001.mat")
