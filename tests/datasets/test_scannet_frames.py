"""Frames of ScanNet's scenes from .sens files and exported folders, with labels out of their zip."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.reader import SizedScene
from ponderv2.datasets.scannet import scannet20, scannet200
from ponderv2.datasets.scannet.config import ScannetConfig
from ponderv2.datasets.scannet.reader import find
from ponderv2.errors import SceneError
from ponderv2.scenes.prepared import DecodedFrame, PreparedScene
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig
from tests.datasets import scannet_files as raw
from tests.scenes import box_room

TAKEN = box_room.shots(6)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene without recording, near a label table."""
    raw.write_table(tmp_path / "scannetv2-labels.combined.tsv")
    return raw.write_scene(tmp_path / "scans" / raw.NAME)


def write_sens(scene: Path, **settings) -> Path:
    path = scene / f"{raw.NAME}.sens"
    path.write_bytes(raw.sens_bytes(TAKEN, **settings))
    return path


def prepared(scene: Path, **settings) -> tuple[list[DecodedFrame], PreparedScene]:
    values = {"path": scene, "stride": 1, **settings}
    (job,) = find(ScannetConfig.model_validate(values)).scenes
    done = job.read()
    return list(done.frames), done.finish()


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("kinds", [(0, 0), (1, 1), (2, 1)])
def test_frames_are_what_the_depth_camera_saw(scene: Path, version: int, kinds: tuple[int, int]):
    write_sens(scene, version=version, kinds=kinds)
    frames, _ = prepared(scene)
    assert [frame.id for frame in frames] == [f"{index:06d}" for index in range(6)]
    for frame, exact in zip(frames, TAKEN, strict=True):
        assert np.array_equal(frame.depth, np.rint(exact.depth * 1000))
        assert np.allclose(frame.intrinsics, box_room.K, atol=1e-4)
        assert np.allclose(frame.camera_to_world, exact.pose, atol=1e-6)
        difference = np.abs(frame.color.astype(int) - exact.color)
        assert np.median(difference) < 4 and frame.color_file is None


def test_a_colour_image_of_the_size_of_depth_is_stored_unchanged(scene: Path):
    write_sens(scene, large=False)
    frames, _ = prepared(scene)
    expected = raw.color_bytes(box_room.shoot(TAKEN[2].pose).color, 2)
    assert frames[2].color_file == expected


def test_lost_frames_are_dropped_and_counted(scene: Path):
    write_sens(scene, lost={1, 4})
    frames, surface = prepared(scene)
    assert [int(frame.id) for frame in frames] == [0, 2, 3, 5]
    assert "2 frames without tracking were dropped, the first is 000001" in surface.repairs
    write_sens(scene, lost=range(6))
    frames, surface = prepared(scene)
    assert not frames and len(surface.cloud.coord) == 17
    assert any(one.startswith("6 frames without tracking") for one in surface.repairs)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"stride": 2}, [0, 2, 4]),
        ({"stride": 20}, [0]),
        ({"max_frames": 3}, [0, 2, 5]),
        ({"frames": False}, []),
    ],
)
def test_stride_and_number_of_frames(scene: Path, settings: dict, expected: list[int]):
    write_sens(scene)
    frames, _ = prepared(scene, **settings)
    assert [int(frame.id) for frame in frames] == expected


def test_an_export_that_skipped_frames_is_not_thinned_again(scene: Path):
    box_room.write_scannet(scene / "frames", TAKEN)
    for index in reversed(range(6)):
        for kind, ending in (("color", "jpg"), ("depth", "png"), ("pose", "txt")):
            path = scene / "frames" / kind / f"{index}.{ending}"
            path.rename(path.with_name(f"{20 * index}.{ending}"))
    frames, _ = prepared(scene, stride=20)
    assert [int(frame.id) for frame in frames] == [0, 20, 40, 60, 80, 100]
    assert [int(frame.id) for frame in prepared(scene, stride=40)[0]] == [0, 40, 80]
    assert np.allclose(frames[5].camera_to_world, TAKEN[5].pose, atol=1e-5)
    assert np.array_equal(frames[5].depth, np.rint(TAKEN[5].depth * 1000))


def test_aligned_axes_turn_cameras_with_the_points(scene: Path):
    write_sens(scene)
    plain, turned = prepared(scene)[0], prepared(scene, axis_align=True)[0]
    for before, after in zip(plain, turned, strict=True):
        assert np.allclose(after.camera_to_world, raw.ALIGNMENT @ before.camera_to_world)


@pytest.mark.parametrize("kind", ["2d-label-filt", "2d-label"])
@pytest.mark.parametrize("prefix", ["label-filt/", ""])
def test_labels_are_the_nearest_ids_as_classes(scene: Path, kind: str, prefix: str):
    write_sens(scene)
    members = {f"{prefix}{index}.png": raw.png_bytes(raw.label_ids()) for index in (0, 2)}
    raw.write_labels(scene, {"label-filt/": b"", **members, "__MACOSX/._3.png": b"junk"}, kind)
    frames, surface = prepared(scene)
    assert [frame.semantic is not None for frame in frames] == [True, False, True, False, False, False]
    expected = np.full((box_room.HEIGHT, box_room.WIDTH), 1)
    expected[:, box_room.WIDTH // 2 :] = scannet20.CLASS_NAMES.index("table")
    expected[:5] = -1
    found = frames[2].semantic
    assert found is not None and np.array_equal(found, expected)
    assert "6 frames, 2 of them with 2D labels" in surface.notes


def test_labels_of_200_classes_and_cleaned_ones_first(scene: Path):
    write_sens(scene)
    raw.write_labels(scene, {"label/0.png": raw.png_bytes(np.full_like(raw.label_ids(), 1))}, "2d-label")
    raw.write_labels(scene, {"label-filt/0.png": raw.png_bytes(raw.label_ids())})
    frames, _ = prepared(scene, label_field="segment200")
    assert frames[0].semantic is not None
    assert frames[0].semantic[30, 60] == scannet200.CLASS_NAMES.index("coffee table")
    assert prepared(scene, semantics=False)[0][0].semantic is None


def test_a_damaged_zip_leaves_frames_without_labels(scene: Path):
    write_sens(scene)
    path = raw.write_labels(scene, {"label-filt/0.png": raw.png_bytes(raw.label_ids())})
    path.write_bytes(path.read_bytes()[:-40])
    frames, surface = prepared(scene)
    assert len(frames) == 6 and all(frame.semantic is None for frame in frames)
    assert any("frames have no labels" in one and path.name in one for one in surface.repairs)
    raw.write_labels(scene, {"readme.txt": b"nothing"})
    assert any("holds no images label-filt/0.png" in one for one in prepared(scene)[1].repairs)


@pytest.mark.parametrize("what", ["rubbish", "bomb", "claim", "escape", "colours"])
def test_damaged_label_images_are_left_out_and_named(scene: Path, what: str):
    write_sens(scene)
    good = raw.png_bytes(raw.label_ids())
    bad = {
        "rubbish": b"no image",
        "bomb": bytes(17 * 2**20),
        "claim": raw.png_bytes(raw.label_ids(), (30000, 30000)),
        "escape": b"no image",
        "colours": raw.color_bytes(TAKEN[0].color, 1),
    }[what]
    name = "../../label-filt/1.png" if what == "escape" else "label-filt/1.png"
    raw.write_labels(scene, {"label-filt/0.png": good, name: bad})
    frames, surface = prepared(scene)
    assert frames[0].semantic is not None and frames[1].semantic is None
    named = [one for one in surface.repairs if "2D labels could not be read" in one and "1.png" in one]
    assert len(named) == (what != "escape")


def test_a_recording_that_is_cut_off_is_named(scene: Path):
    path = write_sens(scene, version=3)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SceneError, match=r"scene0001_00\.sens is cut off at frame 5"):
        prepared(scene)


def test_a_damaged_image_is_dropped_and_counted(scene: Path):
    path = write_sens(scene, kinds=(2, 0), lost={0})
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\xd8\xff", data.index(b"\xff\xd8\xff") + 3)
    data[start : start + 200] = bytes(200)
    path.write_bytes(bytes(data))
    frames, surface = prepared(scene)
    assert [int(frame.id) for frame in frames] == [2, 3, 4, 5]
    assert any("1 unreadable frames" in one and "frame 1" in one for one in surface.repairs)


def test_prepared_scenes_are_stored_checked_and_skipped_the_second_time(scene: Path, tmp_path: Path):
    write_sens(scene, lost={3})
    raw.write_labels(scene, {f"label-filt/{i}.png": raw.png_bytes(raw.label_ids()) for i in range(6)})
    config = PrepareConfig.model_validate(
        {"source": {"kind": "scannet", "path": tmp_path, "stride": 1}, "out": tmp_path / "out", "workers": 1}
    )
    result = prepare.run(config)
    (outcome,) = result.scenes
    assert (outcome.status, outcome.n_frames, outcome.n_points) == ("repaired", 5, 17)
    assert outcome.check is not None and (outcome.check.inlier_share or 0.0) > 0.9
    stored = open_folder(tmp_path / "out").read(raw.NAME)
    assert stored.cloud.labels["segment200"].tolist() == raw.SEGMENT200
    assert stored.frames[0].read_semantic()[30, 60] == scannet20.CLASS_NAMES.index("table")
    assert (tmp_path / "out/train" / raw.NAME / "mesh.ply").is_file()
    assert prepare.run(config).n_skipped == 1
    report = json.loads((tmp_path / "out/prepare_report.json").read_text())
    assert any("without tracking" in one for one in report["scenes"][f"train/{raw.NAME}"]["why"])


def test_the_estimate_counts_the_frames_that_are_taken(scene: Path):
    def estimate(**settings) -> int:
        (job,) = find(ScannetConfig.model_validate({"path": scene, "stride": 1, **settings})).scenes
        assert isinstance(job, SizedScene)
        return job.estimated_bytes()

    points = 2 * (scene / f"{raw.NAME}_vh_clean_2.ply").stat().st_size
    assert estimate() == estimate(frames=False) == points
    folder = scene / "frames" / "depth"
    folder.mkdir(parents=True)
    for number in range(0, 100, 2):
        (folder / f"{number}.png").touch()
    assert estimate(frames=False) == points
    one = estimate(max_frames=1) - points
    assert one > 0 and estimate() == points + 50 * one
    assert estimate(stride=20) == points + 5 * one and estimate(stride=20, max_frames=3) == points + 3 * one
    path = write_sens(scene)
    assert estimate() == points + path.stat().st_size and estimate(frames=False) == points
