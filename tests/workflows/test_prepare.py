"""`prepare` from start to end on an analytic room in every layout: truth, damage, resuming, dying workers."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ponderv2.checks.check import CheckResult
from ponderv2.checks.config import CheckConfig
from ponderv2.data.scene_folder import open_folder
from ponderv2.datasets.rgbd.config import FusionConfig, RgbdConfig
from ponderv2.errors import SceneError
from ponderv2.scenes.prepared import PreparedCloud, SceneStream
from ponderv2.workflows import prepare
from ponderv2.workflows.config import PrepareConfig
from tests.scenes import box_room

COARSE = FusionConfig(voxel_size=0.06, truncation=0.24)


def settings(path: Path, out: Path, workers: int = 1, **source) -> PrepareConfig:
    rgbd = RgbdConfig(path=path, fusion=COARSE, **source)
    return PrepareConfig(source=rgbd, out=out, workers=workers, check=CheckConfig(n_pixels=400))


def only_check(result: prepare.PrepareResult) -> CheckResult:
    found = result.scenes[0].check
    assert found is not None
    return found


def all_bytes(root: Path) -> dict[str, bytes]:
    return {str(one.relative_to(root)): one.read_bytes() for one in sorted(root.rglob("*")) if one.is_file()}


@pytest.mark.parametrize("layout", sorted(box_room.WRITERS))
def test_every_layout_gives_the_room_that_was_recorded(tmp_path: Path, layout: str):
    taken = box_room.shots()
    box_room.WRITERS[layout](tmp_path / "room", taken)
    np.savetxt(tmp_path / "camera.txt", box_room.K)
    given = {"intrinsics": tmp_path / "camera.txt"} if layout == "tum" else {}
    result = prepare.run(settings(tmp_path / "room", tmp_path / "out", up_axis="z", **given))
    assert result.n_prepared == 1 and result.scenes[0].status == "done"
    assert f"layout {layout}" in result.scenes[0].notes
    scene = open_folder(tmp_path / "out").read("room")
    assert len(scene.frames) == len(taken)
    for frame, shot in zip(scene.frames, taken, strict=True):
        assert np.allclose(np.linalg.inv(frame.camera.world_to_camera.numpy()), shot.pose, atol=1e-4)
        assert np.allclose(frame.camera.intrinsics.numpy(), box_room.K, atol=1e-3)
        assert np.abs(frame.read_depth().numpy() - shot.depth).max() < 0.002
        assert np.abs(frame.read_color().numpy().astype(int) - shot.color).mean() < 6
    points, normals = scene.cloud.coord.numpy().astype(float), scene.cloud.normal.numpy()
    assert np.median(box_room.distance_to_room(points)) < 0.01
    inside = points + 0.1 * normals
    toward_room = ((inside > box_room.LOWER) & (inside < box_room.UPPER)).all(axis=1)
    assert toward_room.mean() > 0.98
    found = only_check(result)
    assert not found.suspect and found.inlier_share is not None and found.inlier_share > 0.9


def test_up_is_found_from_the_floor(tmp_path: Path):
    tilt = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    taken = box_room.shots()
    turned = [box_room.Shot(tilt @ one.pose, one.color, one.depth) for one in taken]
    box_room.write_7scenes(tmp_path / "room", turned)
    box_room.write_7scenes(tmp_path / "upright" / "room", taken)
    prepare.run(settings(tmp_path / "room", tmp_path / "out"))
    prepare.run(settings(tmp_path / "upright" / "room", tmp_path / "truth", up_axis="z"))
    found, truth = (_share_of_level_normals(tmp_path / store) for store in ("out", "truth"))
    assert truth > 0.7 and abs(found - truth) < 0.05


def _share_of_level_normals(store: Path) -> float:
    level = np.abs(open_folder(store).read("room").cloud.normal.numpy()[:, 2])
    return float(((level > 0.99) | (level < 0.1)).mean())


def test_unregistered_colour_is_warped_into_the_depth_camera(tmp_path: Path):
    shift = np.eye(4)
    shift[:3, 3] = -0.03, 0.01, 0.0
    color_camera = np.array([[60.0, 0, 39.5], [0, 60.0, 29.5], [0, 0, 1]])
    taken = box_room.shots()
    seen = [box_room.shoot(one.pose @ np.linalg.inv(shift), color_camera) for one in taken]
    mixed = [box_room.Shot(d.pose, c.color, d.depth) for d, c in zip(taken, seen, strict=True)]
    box_room.write_7scenes(tmp_path / "room", mixed)
    np.savetxt(tmp_path / "color.txt", color_camera)
    np.savetxt(tmp_path / "shift.txt", shift)
    files = {"color_intrinsics": tmp_path / "color.txt", "depth_to_color": tmp_path / "shift.txt"}
    prepare.run(settings(tmp_path / "room", tmp_path / "out", **files))
    frames = open_folder(tmp_path / "out").read("room").frames
    wrong = np.mean([np.abs(s.color.astype(int) - t.color).mean() for s, t in zip(seen, taken, strict=True)])
    right = np.mean(
        [
            np.abs(f.read_color().numpy().astype(int) - t.color).mean()
            for f, t in zip(frames, taken, strict=True)
        ]
    )
    assert right < 0.15 * wrong


def test_held_out_frames_are_marked_and_not_fused(tmp_path: Path):
    box_room.write_7scenes(tmp_path / "room", box_room.shots())
    result = prepare.run(settings(tmp_path / "room", tmp_path / "out", holdout=4))
    frames = open_folder(tmp_path / "out").read("room").frames
    assert [frame.held_out for frame in frames] == [False, False, False, True] * 2
    assert any("fused from 6 frames" in note for note in result.scenes[0].notes)


def test_stride_size_and_depth_limits(tmp_path: Path):
    box_room.write_7scenes(tmp_path / "room", box_room.shots())
    limits = {"stride": 2, "max_image_size": 40, "depth_max": 2.0}
    prepare.run(settings(tmp_path / "room", tmp_path / "out", **limits))
    frames = open_folder(tmp_path / "out").read("room").frames
    assert len(frames) == 4
    exact = box_room.shoot(
        box_room.poses()[0], frames[0].camera.intrinsics.numpy().astype(float), (40, 30)
    ).depth
    depth = frames[0].read_depth().numpy()
    assert depth.shape == (30, 40) and depth.max() <= 2.0
    near = (depth > 0) & (exact < 1.9)
    assert np.median(np.abs(depth - exact)[near]) < 0.02


def test_invalid_frames_are_dropped_and_reported(tmp_path: Path):
    root = tmp_path / "room"
    box_room.write_7scenes(root, box_room.shots())
    np.savetxt(root / "frame-000001.pose.txt", np.full((4, 4), -np.inf))
    np.savetxt(root / "frame-000002.pose.txt", np.zeros((4, 4)))
    (root / "frame-000003.color.png").unlink()
    cut = root / "frame-000004.depth.png"
    cut.write_bytes(cut.read_bytes()[:200])
    result = prepare.run(settings(root, tmp_path / "out"))
    assert result.scenes[0].status == "repaired" and result.scenes[0].n_frames == 4
    why = " | ".join(result.scenes[0].why)
    assert (
        "not finite" in why and "zero" in why and "without colour" in why and "frame-000004.depth.png" in why
    )
    written = json.loads((tmp_path / "out" / "prepare_report.json").read_text())
    assert written["scenes"]["train/room"]["status"] == "repaired"


def test_rounded_rotations_are_made_orthonormal(tmp_path: Path):
    taken = box_room.shots()
    box_room.write_7scenes(tmp_path / "room", taken)
    for index, shot in enumerate(taken):
        np.savetxt(tmp_path / f"room/frame-{index:06d}.pose.txt", shot.pose, fmt="%.3f")
    prepare.run(settings(tmp_path / "room", tmp_path / "out"))
    with np.load(tmp_path / "out/train/room/frames/cameras.npz") as cameras:
        rotation = cameras["camera_to_world"][:, :3, :3]
    assert np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max() < 1e-9


@pytest.mark.parametrize("fault", ["missing", "empty", "no depth", "all poses invalid"])
def test_an_unusable_recording_is_one_clear_message(tmp_path: Path, fault: str):
    root = tmp_path / "room"
    if fault == "empty":
        root.mkdir()
    elif fault != "missing":
        box_room.write_7scenes(root, box_room.shots(3))
    if fault == "all poses invalid":
        for path in root.glob("*.pose.txt"):
            path.write_text("nan " * 16)
    limits = {"depth_min": 9.0} if fault == "no depth" else {}
    with pytest.raises(SceneError, match="room"):
        prepare.run(settings(root, tmp_path / "out", **limits))


def test_one_bad_recording_does_not_stop_the_others(tmp_path: Path):
    box_room.write_7scenes(tmp_path / "all/good", box_room.shots(4))
    box_room.write_7scenes(tmp_path / "all/bad", box_room.shots(2))
    for path in (tmp_path / "all/bad").glob("*.pose.txt"):
        path.write_text("nan " * 16)
    result = prepare.run(settings(tmp_path / "all", tmp_path / "out"))
    assert {one.name: one.status for one in result.scenes} == {"good": "done", "bad": "failed"}
    with pytest.raises(SceneError, match="bad"):
        prepare.run(settings(tmp_path / "all", tmp_path / "out"), strict=True)


def test_a_wrong_depth_scale_is_flagged(tmp_path: Path):
    box_room.write_7scenes(tmp_path / "room", box_room.shots())
    result = prepare.run(settings(tmp_path / "room", tmp_path / "out", depth_scale=0.0005))
    found = only_check(result)
    assert found.suspect and "depth scale" in found.likely_cause and "about 2" in found.likely_cause
    assert result.n_suspect == 1


def test_a_second_run_skips_and_changed_settings_run_again(tmp_path: Path):
    box_room.write_7scenes(tmp_path / "room", box_room.shots(4))
    first = prepare.run(settings(tmp_path / "room", tmp_path / "out"))
    again = prepare.run(settings(tmp_path / "room", tmp_path / "out"))
    assert (first.n_prepared, again.n_prepared, again.n_skipped) == (1, 0, 1)
    assert again.scenes[0].check == first.scenes[0].check
    changed = prepare.run(settings(tmp_path / "room", tmp_path / "out", stride=2))
    assert changed.n_prepared == 1 and changed.scenes[0].n_frames == 2


@pytest.mark.parametrize("stop_after", [1, 3])
def test_an_interrupted_run_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
):
    for name in ("a", "b"):
        box_room.write_7scenes(tmp_path / "all" / name, box_room.shots(4))
    prepare.run(settings(tmp_path / "all", tmp_path / "straight"))
    real, calls = prepare.prepare_one, []

    def stops(job, **options):
        calls.append(job.name)
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        return real(job, **options)

    from ponderv2.store import writer as storage_writer

    write_new = storage_writer._write_new

    def dies(path, data):
        if stop_after == 3 and len(list((tmp_path / "broken").rglob("*.png"))) == 6:
            raise KeyboardInterrupt
        write_new(path, data)

    monkeypatch.setattr(prepare, "prepare_one", stops)
    monkeypatch.setattr(storage_writer, "_write_new", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare.run(settings(tmp_path / "all", tmp_path / "broken"))
    monkeypatch.undo()
    prepare.run(settings(tmp_path / "all", tmp_path / "broken"))
    assert all_bytes(tmp_path / "straight/train") == all_bytes(tmp_path / "broken/train")


@dataclass(frozen=True)
class DeadlyScene:
    """A scene whose worker is killed, always or the first time."""

    name: str
    flag: Path | None = None
    deadly: bool = True
    split: str = "train"

    def fingerprint(self) -> str:
        return self.name

    def read(self) -> SceneStream:
        if self.deadly and not (self.flag and self.flag.exists()):
            if self.flag:
                self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        points = np.zeros((4, 3), np.float32)
        return SceneStream.of(PreparedCloud(points, points.astype(np.uint8), points + 1))


def test_a_scene_whose_worker_dies_is_tried_again_then_reported(tmp_path: Path):
    jobs = [DeadlyScene("fine", deadly=False), DeadlyScene("once", tmp_path / "flag"), DeadlyScene("always")]
    (tmp_path / "out").mkdir()
    outcomes = {one.name: one for one in prepare._prepare_all(jobs, tmp_path / "out", CheckConfig(), 2)}
    assert {name: one.status for name, one in outcomes.items()} == {
        "fine": "done",
        "once": "done",
        "always": "failed",
    }
    assert "died twice" in outcomes["always"].why[0]


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("rgbd_7scenes_redkitchen", {"stride": 15, "calibrated": True}),
        ("rgbd_redwood_open3d_5frames", {}),
        ("sens", {"stride": 2}),
    ],
)
def test_real_recordings_pass_the_check(sample_data: Path, tmp_path: Path, folder: str, source: dict):
    path = sample_data / folder
    if source.pop("calibrated", False):
        source["color_intrinsics"] = path / "color-intrinsics-estimated.txt"
        source["depth_to_color"] = path / "depth-to-color-estimated.txt"
    result = prepare.run(settings(path, tmp_path / "out", max_image_size=320, **source))
    found = only_check(result)
    assert not found.suspect
    assert found.median_error is not None and found.median_error < 0.03
    assert found.inlier_share is not None and found.inlier_share > 0.8
    assert found.color_correlation is not None and found.color_correlation > 0.7
