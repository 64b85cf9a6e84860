"""Scenes of LiDAR drives and image folders: sweeps, boxes, further fields, frames that lack an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.scenes.prepared import DecodedFrame, PreparedScene, SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.scenes.scene import PointCloud, Sweep
from ponderv2.store.store import SceneStore
from tests.store.test_store import cloud, frame

UTM = np.array([412_345.0, 5_318_000.0, 250.0])


@dataclass(frozen=True)
class MeasuredPoints:
    """Sweeps that are nowhere on disk yet; the one called `breaks` cannot be read."""

    def points(self, path: Path) -> PointCloud:
        """The points of one sweep."""
        if path.name == "breaks":
            raise SceneError("the driver of the sensor lost a packet")
        generator = torch.Generator().manual_seed(len(path.name))
        coord = torch.rand(40, 3, generator=generator) * 20
        return PointCloud(coord, fields={"intensity": coord[:, 0] / 20, "ring": torch.arange(40) % 8})


def pose(shift: tuple[float, float, float] | np.ndarray = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Sensor-to-world: half a turn about z, then a shift."""
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0])
    matrix[:3, 3] = shift
    return matrix


def sweep(name: str, shift: tuple[float, float, float] | np.ndarray, time: float | None) -> Sweep:
    to_sensor = torch.from_numpy(np.linalg.inv(pose(shift)))
    return Sweep(name, "lidar_top", to_sensor, Path(name), time, files=MeasuredPoints())


def boxes() -> Boxes:
    return Boxes(
        center=torch.tensor([[1.0, 2.0, 0.5], [4.0, 1.0, 1.0]]),
        size=torch.tensor([[4.0, 1.8, 1.5], [0.6, 0.7, 1.7]]),
        yaw=torch.tensor([0.3, -2.0]),
        velocity=torch.tensor([[5.0, 0.0, 0.0], [torch.nan, torch.nan, torch.nan]]),
        category=torch.tensor([0, 1]),
        instance=torch.tensor([7, -1]),
    )


def drive() -> PreparedScene:
    """Points with intensity and time, two sweeps, two boxes."""
    points = cloud()
    further = {
        "intensity": np.linspace(0, 1, len(points.coord), dtype=np.float32),
        "time": np.arange(len(points.coord)) * 0.05,
    }
    sweeps = (sweep("a", (1.0, 0.0, 0.0), 0.1), sweep("b", (2.0, 0.0, 0.0), None))
    return PreparedScene(replace(points, fields=further), sweeps=sweeps, boxes=boxes())


def frames() -> list[DecodedFrame]:
    """An image without depth, depth without an image, and both, of two cameras at known times."""
    both = replace(frame("both"), time=12.5, sensor="front")
    return [
        replace(frame("image"), depth=None, semantic=None, time=12.25, sensor="rear"),
        replace(frame("depth"), color=None, semantic=None),
        both,
    ]


@pytest.fixture
def store(tmp_path: Path) -> SceneStore:
    return SceneStore.create(tmp_path / "drives", DatasetInfo("toy", box_classes=("car", "pedestrian")))


def test_a_drive_comes_back_as_it_was_written(store: SceneStore):
    store.write("train", "drive", SceneStream(frames(), drive))
    opened = SceneStore.open(store.root)
    assert opened.info.box_classes == ("car", "pedestrian")
    scene, written = opened.read("drive"), drive()
    assert set(scene.cloud.fields) == {"intensity", "time"}
    for name, values in written.cloud.fields.items():
        assert np.array_equal(scene.cloud.fields[name].numpy(), values)
        assert scene.cloud.fields[name].numpy().dtype == values.dtype
    assert scene.boxes is not None
    for name in ("center", "size", "yaw", "velocity", "category", "instance"):
        found, expected = getattr(scene.boxes, name), getattr(boxes(), name)
        assert torch.equal(torch.nan_to_num(found), torch.nan_to_num(expected))
        assert found.dtype == expected.dtype
    assert torch.isnan(scene.boxes.velocity[1]).all()
    for read, given in zip(scene.sweeps, written.sweeps, strict=True):
        assert (read.id, read.sensor, read.time, read.held_out) == (given.id, "lidar_top", given.time, False)
        assert torch.allclose(read.world_to_sensor, given.world_to_sensor.float())
        found, expected = read.read(), given.read()
        assert torch.equal(found.coord, expected.coord)
        assert torch.equal(found.fields["intensity"], expected.fields["intensity"])
        assert torch.equal(found.fields["ring"], expected.fields["ring"])
        x, y, z = expected.coord.T
        in_world = torch.stack([float(given.id == "b") + 1 - x, -y, z], dim=1)
        assert torch.allclose(read.read_in_world().coord, in_world, atol=1e-5)


def test_frames_may_lack_an_image_and_have_times_and_sensors(store: SceneStore):
    store.write("train", "drive", SceneStream(frames(), drive))
    image, depth, both = store.read("drive").frames
    assert image.has_color and not image.has_depth and image.read_color().shape == (24, 32, 3)
    assert depth.has_depth and not depth.has_color
    assert both.has_color and both.has_depth
    with pytest.raises(SceneError, match="no depth image"):
        image.read_depth()
    assert [one.time for one in (image, depth, both)] == [12.25, None, 12.5]
    assert [one.sensor for one in (image, depth, both)] == ["rear", "", "front"]


def test_a_frame_without_any_image_is_refused(store: SceneStore):
    empty = replace(frame("nothing"), color=None, depth=None, semantic=None)
    with pytest.raises(SceneError, match="nothing has no image"):
        store.write("train", "drive", SceneStream([empty], drive))


def test_images_alone_and_sweeps_alone_make_a_scene(store: SceneStore):
    store.write("train", "images", SceneStream(frames()[:1], lambda: PreparedScene(cloud(0))))
    store.write("train", "sweeps", SceneStream((), lambda: replace(drive(), cloud=cloud(0), boxes=None)))
    assert len(store.read("images").cloud) == 0 and len(store.read("images").frames) == 1
    assert len(store.read("sweeps").sweeps) == 2 and store.read("sweeps").boxes is None
    with pytest.raises(SceneError, match="no points"):
        store.write("train", "depth", SceneStream(frames()[1:], lambda: PreparedScene(cloud(0))))


@pytest.mark.parametrize("n_points", [50, 0])
def test_one_origin_is_subtracted_from_everything(store: SceneStore, n_points: int):
    def far() -> PreparedScene:
        made, there = drive(), torch.from_numpy(UTM)
        points = cloud(n_points)
        sweeps = tuple(sweep(one.id, UTM, one.time) for one in made.sweeps)
        around = replace(boxes(), center=boxes().center.double() + there)
        return replace(made, cloud=replace(points, coord=points.coord + UTM), sweeps=sweeps, boxes=around)

    store.write("train", "far", SceneStream((), far))
    scene = store.read("far")
    origin = torch.tensor(scene.cloud.origin, dtype=torch.float64)
    assert scene.boxes is not None and (torch.from_numpy(UTM) - origin).abs().max() < 5
    assert torch.allclose(scene.boxes.center + origin, boxes().center.double() + torch.from_numpy(UTM))
    centre = torch.linalg.inv(scene.sweeps[0].world_to_sensor.double())[:3, 3]
    assert torch.allclose(centre + origin, torch.from_numpy(UTM), atol=1e-4)


def test_a_sweep_that_cannot_be_read_leaves_the_old_scene(store: SceneStore):
    store.write("train", "drive", SceneStream(frames(), drive))
    half = (*drive().sweeps, sweep("breaks", (0.0, 0.0, 0.0), None))
    with pytest.raises(SceneError, match="lost a packet"):
        store.write("train", "drive", SceneStream((), lambda: replace(drive(), sweeps=half)))
    assert [one.id for one in store.read("drive").sweeps] == ["a", "b"]
    assert len(store.read("drive").frames) == 3
    assert not list(store.folder("drive").parent.glob(".*"))


@pytest.mark.parametrize("path", ["boxes.npz", "sweeps/sweeps.npz", "sweeps/a.npz", "intensity.npy"])
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_damaged_files_of_sensors_are_named(store: SceneStore, path: str, damage: str):
    store.write("train", "drive", SceneStream((), drive))
    file = store.folder("drive") / path
    data = file.read_bytes()
    if damage == "other":
        write = np.savez if path.endswith("npz") else np.save
        write(file, np.zeros((3, 2), np.complex128))
    else:
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    with pytest.raises(SceneError, match=file.name):
        for one in store.read("drive").sweeps:
            one.read()


def test_without_labels_no_boxes_are_opened(store: SceneStore):
    store.write("train", "drive", SceneStream((), drive))
    (store.folder("drive") / "boxes.npz").write_bytes(b"not opened")
    assert store.read("drive", labels=False).boxes is None


@pytest.mark.parametrize("name", ["coord", "segment_of_mine", "a/b"])
def test_fields_cannot_take_the_names_of_other_files(store: SceneStore, name: str):
    points = replace(cloud(), fields={name: np.zeros(50, np.float32)})
    with pytest.raises(SceneError, match="is not a name"):
        store.write("train", "drive", SceneStream((), lambda: PreparedScene(points)))


def test_the_frames_are_not_held_in_memory(store: SceneStore):
    taken: list[str] = []

    def stream() -> Iterator[DecodedFrame]:
        for one in frames():
            taken.append(one.id)
            written = len(list(store.root.rglob("*.png"))) + len(list(store.root.rglob("*.jpg")))
            assert written >= len(taken) - 1
            yield one

    store.write("train", "drive", SceneStream(stream(), drive))
    assert len(taken) == 3
