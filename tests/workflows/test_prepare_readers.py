"""Readers of raw data sets behind the one contract, and scenes that are no RGB-D room, through `prepare`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.generated.config import SyntheticConfig
from ponderv2.datasets.kinds import reader_of
from ponderv2.datasets.reader import DatasetReader
from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.cameras import Camera
from ponderv2.scenes.prepared import DecodedFrame
from ponderv2.scenes.reader import DatasetInfo, Reader
from ponderv2.scenes.scene import Frame, PointCloud, Scene, Sweep
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig
from tests.datasets.processed import writers

ROOM = SyntheticConfig(rooms=1, val_rooms=0, frames=3, width=48, height=36, room_size=(3.0, 3.5))


@dataclass(frozen=True)
class Drive:
    """A LiDAR with boxes and a camera without depth, at a place of which two files are known."""

    folder: Path
    name: str = "drive"
    split: str = "train"

    def fingerprint(self) -> str:
        return self.name

    def read(self) -> Scene:
        points = np.load(self.folder / "points.npy")
        pose = torch.eye(4)
        pose[:3, 3] = torch.tensor([0.0, 0.0, -1.8])
        np.savez(self.folder / "sweep.npz", coord=points + pose[:3, 3].numpy(), ring=np.arange(len(points)))
        camera = Camera(torch.tensor([[20.0, 0, 9.5], [0, 20.0, 7.5], [0, 0, 1]]), pose, 20, 16)
        boxes = replace(Boxes.empty(), **self.boxes())
        cloud = PointCloud(torch.from_numpy(points), fields={"intensity": torch.rand(len(points))})
        return Scene(
            self.name,
            cloud,
            (Frame("front-0", camera, color_path=self.folder / "front.png", time=0.5, sensor="front"),),
            (Sweep("top-0", "top", pose, self.folder / "sweep.npz", time=0.5),),
            boxes,
        )

    @staticmethod
    def boxes() -> dict[str, torch.Tensor]:
        one = {"center": [[2.0, 0, 0]], "size": [[4.0, 2, 1.5]], "yaw": [0.3], "velocity": [[1.0, 0, 0]]}
        numbers = {"category": torch.tensor([1]), "instance": torch.tensor([7])}
        return {name: torch.tensor(values) for name, values in one.items()} | numbers


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    rng = np.random.default_rng(0)
    folder = tmp_path / "raw"
    folder.mkdir()
    np.save(folder / "points.npy", rng.normal(0.0, 5.0, (500, 3)).astype(np.float32))
    Image.fromarray(rng.integers(0, 255, (16, 20, 3), np.uint8)).save(folder / "front.png")
    return Drive(folder)


def offered(monkeypatch: pytest.MonkeyPatch, scene: Any, info: DatasetInfo) -> None:
    monkeypatch.setattr("ponderv2.workflows.prepare.reader_of", lambda *_: DatasetReader(info, (scene,)))


def test_sweeps_boxes_fields_and_images_go_through_prepare(drive: Drive, tmp_path: Path, monkeypatch):
    offered(monkeypatch, drive, DatasetInfo("drives", splits=("train",), box_classes=("car", "truck")))
    result = prepare.run(PrepareConfig(source=ROOM, out=tmp_path / "out", workers=1))
    assert [(one.status, one.n_frames, one.n_points) for one in result.scenes] == [("done", 1, 500)]
    store = open_folder(tmp_path / "out")
    assert store.info.box_classes == ("car", "truck")
    scene, given = store.read("drive", "train"), drive.read()
    assert np.allclose(scene.cloud.coord, given.cloud.coord)
    assert set(scene.cloud.fields) == {"intensity"}
    (frame,), (sweep,) = scene.frames, scene.sweeps
    assert (frame.time, frame.sensor, frame.has_depth) == (0.5, "front", False)
    assert torch.allclose(frame.camera.world_to_camera, given.frames[0].camera.world_to_camera, atol=1e-6)
    assert (sweep.id, sweep.sensor, sweep.time) == ("top-0", "top", 0.5)
    assert torch.allclose(sweep.read_in_world().coord, given.cloud.coord, atol=1e-5)
    assert torch.equal(sweep.read().fields["ring"], torch.arange(500))
    assert scene.boxes is not None
    for name, values in Drive.boxes().items():
        assert torch.equal(getattr(scene.boxes, name), values)
    assert prepare.run(PrepareConfig(source=ROOM, out=tmp_path / "out", workers=1)).n_skipped == 1


def test_depth_frames_of_a_scene_without_points_are_fused(tmp_path: Path, monkeypatch):
    pytest.importorskip("open3d")
    found = reader_of(ROOM).read("room0000")
    bare = replace(found, cloud=PointCloud.empty())

    @dataclass(frozen=True)
    class Bare:
        name: str = "bare"
        split: str = "train"

        def fingerprint(self) -> str:
            return ""

        def read(self) -> Scene:
            return bare

    offered(monkeypatch, Bare(), DatasetInfo("bare", splits=("train",)))
    result = prepare.run(PrepareConfig(source=ROOM, out=tmp_path, workers=1))
    assert any("points fused from 3 frames" in note for note in result.scenes[0].notes)
    fused = open_folder(tmp_path).read("bare").cloud
    distance = torch.cdist(fused.coord, found.cloud.coord).amin(dim=1)
    assert len(fused) > 500 and float(distance.quantile(0.9)) < 0.1


def test_raw_processed_and_prepared_readers_implement_one_protocol(tmp_path: Path):
    writers.scannet_pth(tmp_path / "processed")
    prepare.run(PrepareConfig(source=ROOM, out=tmp_path / "out", workers=1))
    for reader in (reader_of(ROOM), open_folder(tmp_path / "processed"), open_folder(tmp_path / "out")):
        assert isinstance(reader, Reader)
        split = next(one for one in reader.info.splits if reader.names(one))
        scene = reader.read(reader.names(split)[0], split)
        assert isinstance(scene, Scene) and len(scene.cloud) and set(scene.cloud.labels)
        assert set(scene.cloud.labels) & set(reader.label_sets)
        bare = reader.read(scene.name, split, labels=False, frames="none")
        assert not bare.cloud.labels and len(bare.cloud) == len(scene.cloud)


def test_a_raw_scene_is_that_which_is_prepared(tmp_path: Path):
    raw = reader_of(ROOM).read("room0000")
    prepare.run(PrepareConfig(source=ROOM, out=tmp_path, workers=1))
    stored = open_folder(tmp_path).read("room0000")
    assert torch.equal(raw.cloud.coord, stored.cloud.coord)
    assert torch.equal(raw.cloud.labels["segment"], stored.cloud.labels["segment"].long())
    for one, other in zip(raw.frames, stored.frames, strict=True):
        assert torch.allclose(one.camera.world_to_camera, other.camera.world_to_camera, atol=1e-6)
        assert torch.equal(one.read_depth(), other.read_depth())
        assert torch.equal(one.read_semantic(), other.read_semantic())
        again = DecodedFrame.of(other)
        assert again.depth is not None and torch.equal(
            torch.from_numpy(again.depth.astype(np.float32)) * again.depth_scale, other.read_depth()
        )
        assert again.color_file == other.color_path.read_bytes()  # type: ignore[union-attr]
    with pytest.raises(SceneError, match="no scene 'nowhere'"):
        reader_of(ROOM).read("nowhere")
