"""Images of each processed layout: cameras, depths and classes equal to what was written."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ponderv2.checks.check import check_scene
from ponderv2.checks.config import CheckConfig
from ponderv2.data.config import LabelledDataConfig, PretrainDataConfig
from ponderv2.data.datasets import LabelledDataset
from ponderv2.data.pretrain_dataset import PretrainDataset
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.s3dis import classes as s3dis
from ponderv2.errors import SceneError
from ponderv2.scenes.prepared import SceneStream
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.scenes.scene import Frame
from ponderv2.store.store import SceneStore
from tests.datasets.processed import writers

SCENE = "scene0000_00"


def files(root: Path) -> dict[str, tuple[int, int]]:
    return {str(one): (one.stat().st_size, one.stat().st_mtime_ns) for one in root.rglob("*")}


def poses(frames: tuple[Frame, ...]) -> np.ndarray:
    return np.stack([np.linalg.inv(one.camera.world_to_camera.double().numpy()) for one in frames])


def test_a_scannet_export_is_read_by_frame_numbers(tmp_path: Path):
    writers.scannet_pth(tmp_path)
    frames = open_folder(tmp_path).read(SCENE).frames
    assert [one.id for one in frames] == ["0", "10", "20", "30"]
    for frame, wanted in zip(frames, writers.views(), strict=True):
        assert np.allclose(frame.camera.intrinsics.numpy(), wanted.intrinsics)
        assert np.allclose(poses((frame,))[0], wanted.camera_to_world, atol=1e-6)
        assert np.allclose(frame.read_depth().numpy(), wanted.depth * 0.001)
        assert np.array_equal(frame.read_semantic().numpy(), wanted.semantic)
        assert frame.read_color().shape == (*wanted.depth.shape, 3)
        assert np.abs(frame.read_color().numpy().astype(int) - wanted.color).mean() < 4


def test_two_files_of_one_frame_are_refused_and_zeros_before_a_number_mean_nothing(tmp_path: Path):
    writers.scannet_pth(tmp_path)
    folder = tmp_path / "rgbd" / SCENE
    for path in sorted((folder / "pose").iterdir()):
        path.rename(path.with_name(f"{int(path.stem):06d}.txt"))
    frames = open_folder(tmp_path).read(SCENE).frames
    assert np.allclose(poses(frames), np.stack([one.camera_to_world for one in writers.views()]), atol=1e-6)
    (folder / "depth/0010.png").write_bytes((folder / "depth/10.png").read_bytes())
    with pytest.raises(SceneError, match=r"0010\.png and 10\.png"):
        open_folder(tmp_path).read(SCENE)


def keeping_times(path: Path, change: Callable[[], object]) -> None:
    """Changes a file; its time and that of its folder stay."""
    before = [(one, one.stat()) for one in (path, path.parent)]
    change()
    for one, state in before:
        os.utime(one, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_what_is_corrected_in_place_is_read_anew_whatever_the_times_say(tmp_path: Path):
    writers.scannet_pth(tmp_path)
    store, folder = open_folder(tmp_path), tmp_path / "rgbd" / SCENE
    wanted = poses(store.read(SCENE).frames)
    wanted[1, 0, 3] += 0.125
    keeping_times(folder / "pose/10.txt", lambda: np.savetxt(folder / "pose/10.txt", wanted[1]))
    assert np.allclose(poses(store.read(SCENE).frames), wanted, atol=1e-6)
    lens = np.diag([60.0, 61.0, 1.0, 1.0])
    path = folder / "intrinsic/intrinsic_depth.txt"
    keeping_times(path, lambda: np.savetxt(path, lens))
    assert np.allclose(store.read(SCENE).frames[0].camera.intrinsics.numpy(), lens[:3, :3])
    skip, listed = tmp_path / "skip.lst", tmp_path / "train.json"
    skip.touch()
    for name in ("10", "20"):
        keeping_times(skip, lambda name=name: skip.write_text(f"{SCENE} {name}\n"))
        left = [one for one in ("0", "10", "20", "30") if one != name]
        assert [one.id for one in store.read(SCENE).frames] == left
    skip.unlink()
    listed.write_text("[]")
    for one in (20, 30):
        keeping_times(listed, lambda one=one: writers.frame_list(tmp_path, "train", SCENE, [one]))
        assert [frame.id for frame in store.read(SCENE).frames] == [str(one)]


@pytest.mark.parametrize("bare", [False, True])
def test_a_view_that_is_corrected_in_place_is_read_anew(tmp_path: Path, bare: bool):
    writers.s3dis_pth(tmp_path, ("Area_1",))
    store, path = open_folder(tmp_path), tmp_path / "Area_1/office_1_rgbd/aa1_0_1.pth"
    content = writers.view(writers.views()[1], 1 / 4000)

    def write() -> None:
        if bare:
            path.write_bytes(pickle.dumps(content, protocol=4))
        else:
            writers.save(path, content)

    write()
    wanted = poses(store.read("office_1").frames)
    content["extrinsic"] = content["extrinsic"].copy()
    content["extrinsic"][0, 3] += 0.125
    wanted[1, 0, 3] += 0.125
    keeping_times(path, write)
    assert np.allclose(poses(store.read("office_1").frames), wanted, atol=1e-6)
    content["rgb"] = 255 - content["rgb"]
    keeping_times(path, write)
    assert np.array_equal(store.read("office_1").frames[1].read_color().numpy(), content["rgb"])


def test_the_list_of_frames_to_skip_and_the_list_to_take_name_frames_not_places(tmp_path: Path):
    writers.scannet_pth(tmp_path)
    (tmp_path / "skip.lst").write_text(f"{SCENE} 10\nscene0999_00 0\n\n{SCENE} 2\n")
    store = open_folder(tmp_path)
    assert [one.id for one in store.read(SCENE).frames] == ["0", "20", "30"]
    assert any(
        "1 frames left out that skip.lst names" in note for note in store.record(SCENE, "train")["notes"]
    )
    writers.frame_list(tmp_path, "train", SCENE, [30, 10, 20, 999])
    assert [one.id for one in store.read(SCENE).frames] == ["30", "20"]
    assert any("999" in note for note in store.record(SCENE, "train")["notes"])


def test_the_published_choice_of_frames(tmp_path: Path):
    """From frame 40 to 60 before the end in steps of 10; of validation scenes each tenth to begin with."""
    for split, scene in (("train", "scene0000_00"), ("val", "scene0001_00")):
        one = writers.cloud()
        values = {"coord": one.coord, "color": one.color, "normal": one.normal}
        writers.save(tmp_path / split / f"{scene}.pth", values)
        writers.scannet_rgbd(tmp_path, scene, step=3, n_frames=1)
    folder = tmp_path / "rgbd"
    for scene, n_frames in (("scene0000_00", 130), ("scene0001_00", 1030)):
        for number in range(1, n_frames):
            for kind, ending in (("color", "jpg"), ("depth", "png"), ("pose", "txt")):
                (folder / scene / kind / f"{3 * number}.{ending}").hardlink_to(
                    folder / scene / kind / f"0.{ending}"
                )
    store = open_folder(tmp_path)
    assert len(store.read("scene0000_00", "train").frames) == 130
    chosen = store.read("scene0000_00", "train", frames="published").frames
    assert [int(one.id) // 3 for one in chosen] == [40, 50, 60]
    chosen = store.read("scene0001_00", "val", frames="published").frames
    assert [int(one.id) // 3 for one in chosen] == [400]
    data = PretrainDataset(store, "train", PretrainDataConfig(frames="published"))
    assert len(data.scene(0).frames) == 3


def test_frames_without_a_pose_are_left_out(tmp_path: Path):
    writers.scannet_pth(tmp_path)
    folder = tmp_path / "rgbd" / SCENE
    np.savetxt(folder / "pose" / "10.txt", np.full((4, 4), -np.inf))
    (folder / "pose" / "20.txt").unlink()
    (folder / "depth" / "30.png").unlink()
    store = open_folder(tmp_path)
    assert [one.id for one in store.read(SCENE).frames] == ["0"]
    notes = " ".join(store.record(SCENE, "train")["notes"])
    assert "2 frames left out whose pose is missing or not finite: 10" in notes and "depth alone: 30" in notes


@pytest.mark.parametrize("text", [f"{SCENE}\n", f"{SCENE} x\n"])
def test_a_damaged_skip_list_is_named(tmp_path: Path, text: str):
    writers.scannet_pth(tmp_path)
    (tmp_path / "skip.lst").write_text(text)
    with pytest.raises(SceneError, match=r"skip\.lst, line 1"):
        open_folder(tmp_path).read(SCENE)


@pytest.mark.parametrize("text", ["{", '[{"scene": "a"}]', "3", '[{"scene": "a", "frame": null}]'])
def test_a_damaged_list_of_frames_is_named(tmp_path: Path, text: str):
    writers.scannet_pth(tmp_path)
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(SceneError, match=r"train\.json"):
        open_folder(tmp_path).read(SCENE)


@pytest.mark.parametrize(
    ("write", "name", "unit"),
    [(writers.s3dis_pth, "office_1", 1 / 4000), (writers.structured3d_pth, "scene_00000/room_12", 0.001)],
)
def test_pickled_views_are_read_as_they_were_written(
    tmp_path: Path, write: Callable[[Path], None], name: str, unit: float
):
    write(tmp_path)
    frames = open_folder(tmp_path).read(name).frames
    mirror = writers.MIRROR if "room" in name else np.eye(4)
    for frame, wanted in zip(frames, writers.views(), strict=True):
        assert wanted.semantic is not None
        assert np.allclose(poses((frame,))[0], mirror @ wanted.camera_to_world, atol=1e-6)
        depth = wanted.depth * 0.001
        depth[:2, :5] = 0.0
        assert np.allclose(frame.read_depth().numpy(), depth, atol=unit)
        label = wanted.semantic.copy()
        label[1, :5] = -1
        assert np.array_equal(frame.read_semantic().numpy(), label) and (label == 0).any()
        assert np.array_equal(frame.read_color().numpy(), writers.seen(wanted))
    determinants = np.linalg.det(poses(frames)[:, :3, :3])
    assert np.allclose(determinants, -1 if "room" in name else 1, atol=1e-5)


def test_views_come_in_the_order_of_their_numbers(tmp_path: Path):
    writers.structured3d_pth(tmp_path)
    frames = open_folder(tmp_path).read("scene_00000/room_12").frames
    assert [one.id for one in frames] == ["frame_0", "frame_5", "frame_10", "frame_15"]


def test_poor_and_broken_views_are_left_out_and_nothing_is_renamed(tmp_path: Path):
    writers.s3dis_pth(tmp_path, ("Area_1",))
    folder = tmp_path / "Area_1" / "office_1_rgbd"
    content = writers.view(writers.views()[0], 1 / 4000)
    mask = np.zeros(content["depth"].shape, bool)
    mask[:6] = True  # of 24 rows: exactly a quarter
    writers.save(folder / "quarter.pth", content | {"depth_mask": mask})
    mask[5, 0] = False
    writers.save(folder / "poor.pth", content | {"depth_mask": mask})
    writers.save(folder / "unposed.pth", content | {"extrinsic": np.full((4, 4), np.nan)})
    writers.save(folder / "small.pth", content | {"rgb": content["rgb"][:-1]})
    (folder / "cut.pth").write_bytes((folder / "poor.pth").read_bytes()[:300])
    (folder / "aa9_0_0.pth.bad").write_bytes(b"of another program")
    before = files(tmp_path)
    store = open_folder(tmp_path)
    names = [one.id for one in store.read("office_1").frames]
    assert "quarter" in names and len(names) == 5
    notes = " ".join(store.record("office_1", "Area_1")["notes"])
    for part in ("25% of the image: poor", "not finite: unposed", "differ in size: small", "cut.pth"):
        assert part in notes
    assert files(tmp_path) == before


def test_rooms_without_views_are_not_pretrained_on(tmp_path: Path):
    writers.s3dis_pth(tmp_path, ("Area_1",))
    store = open_folder(tmp_path)
    assert store.names("Area_1") == ("hallway_1", "office_1")
    assert PretrainDataset(store, "Area_1", PretrainDataConfig()).names == ("office_1",)
    assert LabelledDataset(store, "Area_1", LabelledDataConfig()).names == ("hallway_1", "office_1")


def test_the_check_finds_views_and_points_in_one_frame(tmp_path: Path):
    writers.s3dis_pth(tmp_path, ("Area_1",))
    result = check_scene(open_folder(tmp_path).read("office_1"), CheckConfig(n_pixels=300))
    assert result.median_error is not None and result.median_error < 0.01


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if is_dataclass(first):
        return all(same(getattr(first, one.name), getattr(second, one.name)) for one in fields(first))
    return first == second


def prepared_twin(root: Path) -> SceneStore:
    """Our own folder of the room that `s3dis_pth` writes."""
    info = DatasetInfo("S3DIS", s3dis.CLASS_NAMES, s3dis.COLORS, splits=("Area_1",))
    store = SceneStore.create(root, info)
    frames = []
    for index, frame in enumerate(writers.views()):
        content = writers.view(frame, 1 / 4000)
        depth = np.where(content["depth_mask"] & (content["depth"] < 65535), content["depth"], 0)
        stored = replace(
            frame,
            id=f"aa{index}_0_{index}",
            depth=depth.astype(np.uint16),
            depth_scale=1 / 4000,
            semantic=content["semantic_map"],
        )
        frames.append(stored)
    store.write("Area_1", "office_1", SceneStream.of(writers.cloud(), frames))
    return store


def test_training_batches_equal_those_of_a_prepared_folder(tmp_path: Path):
    writers.s3dis_pth(tmp_path / "pth", ("Area_1",))
    one = writers.cloud()
    values = {
        "coord": one.coord.astype(np.float64),
        "color": one.color.astype(np.float64),
        "normal": one.normal,
    }
    values |= {"semantic_gt": one.labels["segment"][:, None], "instance_gt": one.labels["instance"][:, None]}
    writers.save(tmp_path / "pth" / "Area_1" / "office_1.pth", values)
    (tmp_path / "pth" / "Area_1" / "hallway_1.pth").unlink()
    stores = [open_folder(tmp_path / "pth"), prepared_twin(tmp_path / "ours")]
    pretraining = PretrainDataConfig.model_validate(
        {"voxel": {"size": 0.1}, "views": {"n_views": 3, "n_pixels": 40}}
    )
    for with_labels in (False, True):
        pair = [PretrainDataset(store, "Area_1", pretraining, 3, with_labels) for store in stores]
        for draw in range(3):
            first, second = (data.sample(0, draw) for data in pair)
            assert first.pixels is not None and same(first, second)
    segmentation = LabelledDataConfig.model_validate({"voxel": {"size": 0.1}})
    first, second = (LabelledDataset(store, "Area_1", segmentation, 3).sample(0, 1) for store in stores)
    assert same(first, second) and int(first.segment.max()) == 2
