"""Recordings: which layout is recognised, cameras, poses, damaged lists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ponderv2.datasets.rgbd.calibration import find_calibration
from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.datasets.rgbd.layouts import LAYOUTS, detect_layout
from ponderv2.datasets.rgbd.reader import find
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics, distort, pinhole, same_camera
from ponderv2.geometry.poses import clean_poses
from ponderv2.io.depth_images import read_depth
from tests.scenes import box_room


@pytest.mark.parametrize("layout", sorted(box_room.WRITERS))
def test_each_layout_is_recognised(tmp_path: Path, layout: str):
    box_room.WRITERS[layout](tmp_path / "room", box_room.shots(2))
    assert detect_layout(tmp_path / "room") == layout


def test_a_folder_of_recordings_gives_one_job_each(tmp_path: Path):
    for name in ("chess/seq-01", "chess/seq-02", "office/seq-01"):
        box_room.write_7scenes(tmp_path / "all" / name, box_room.shots(2))
    plan = find(RgbdConfig(path=tmp_path / "all", val_scenes=("office*",)))
    found = {job.name: job.split for job in plan.scenes}
    assert found == {"chess_seq-01": "train", "chess_seq-02": "train", "office_seq-01": "val"}
    assert plan.info.splits == ("train", "val") and "7scenes" in plan.notes[0]


def test_a_misspelt_folder_suggests_the_near_one(tmp_path: Path):
    (tmp_path / "kitchen").mkdir()
    with pytest.raises(SceneError) as caught:
        find(RgbdConfig(path=tmp_path / "kitchne"))
    assert "kitchen" in str(caught.value.fix)


def test_an_empty_folder_lists_the_layouts(tmp_path: Path):
    with pytest.raises(SceneError, match="no RGB-D recording") as caught:
        find(RgbdConfig(path=tmp_path))
    assert all(name in str(caught.value.fix) for name in LAYOUTS)


def test_a_forced_layout_that_does_not_fit_says_what_it_expects(tmp_path: Path):
    box_room.write_7scenes(tmp_path, box_room.shots(2))
    with pytest.raises(SceneError, match="layout 'tum'") as caught:
        find(RgbdConfig(path=tmp_path, layout="tum"))
    assert "groundtruth.txt" in str(caught.value.fix)


def test_colour_and_depth_counts_that_differ_are_reported(tmp_path: Path):
    box_room.write_redwood(tmp_path, box_room.shots(4))
    (tmp_path / "color/00001.jpg").unlink()
    recording = LAYOUTS["redwood"].read(tmp_path)
    assert [frame.id for frame in recording.frames] == ["00000", "00002", "00003"]
    assert np.allclose(recording.frames[1].camera_to_world, box_room.poses(4)[2])
    assert any("without colour" in repair for repair in recording.repairs)


@pytest.mark.parametrize(
    ("layout", "file", "text"),
    [
        ("tum", "rgb.txt", "this is no list"),
        ("redwood", "trajectory.log", "0 0 1\n1 0 0 0\n"),
        ("redwood", "intrinsic.json", '{"width": 1'),
        ("nerfstudio", "transforms.json", '{"frames": []}'),
        ("nerfstudio", "transforms.json", "[" * 100000),
        ("scannet", "intrinsic/intrinsic_depth.txt", "1 2 3"),
        ("7scenes", "camera-intrinsics.txt", "0 0 0 0 0 0 0 0 1"),
        ("bundlefusion", "info.txt", "nothing"),
    ],
)
def test_a_damaged_file_of_a_recording_is_named(tmp_path: Path, layout: str, file: str, text: str):
    box_room.WRITERS[layout](tmp_path, box_room.shots(2))
    (tmp_path / file).write_text(text)
    with pytest.raises(SceneError, match=Path(file).name):
        LAYOUTS[layout].read(tmp_path)


@pytest.mark.parametrize(("size", "focal"), [((0, 480), 525.0), ((640, 480), float("nan"))])
def test_a_camera_that_cannot_be_is_a_mistake_in_the_files(size: tuple[int, int], focal: float):
    with pytest.raises(SceneError, match="camera"):
        Intrinsics(pinhole(focal, focal, 320.0, 240.0), size)


def test_a_colour_image_that_a_list_names_and_that_is_not_there_leaves_one_frame_out(tmp_path: Path):
    box_room.write_tum(tmp_path, box_room.shots(4))
    lost = sorted((tmp_path / "rgb").iterdir())[1]
    names = (tmp_path / "rgb.txt").read_text()
    (tmp_path / "rgb.txt").write_text(names.replace(f"rgb/{lost.name}", "rgb/lost.jpg"))
    scene = find(RgbdConfig(path=tmp_path, up_axis="z")).scenes[0].read()
    poses = [frame.camera_to_world for frame in scene.frames]
    assert np.allclose(poses, np.stack(box_room.poses(4))[[0, 2, 3]], atol=1e-4)
    (repair,) = [one for one in scene.finish().repairs if "unreadable" in one]
    assert repair.startswith("1 unreadable") and "lost.jpg" in repair


def test_poses_of_no_frame_that_is_whole_are_a_mistake_in_the_files(tmp_path: Path):
    box_room.write_redwood(tmp_path, box_room.shots(4))
    for number in (2, 3):
        (tmp_path / f"depth/{number:05d}.png").unlink()
    lines = (tmp_path / "trajectory.log").read_text().splitlines()
    (tmp_path / "trajectory.log").write_text("\n".join(lines[10:]) + "\n")  # of the images 2 and 3
    (job,) = find(RgbdConfig(path=tmp_path, up_axis="z")).scenes
    with pytest.raises(SceneError, match=r"no frame in .* has all its images and a pose"):
        job.read()


def test_depth_of_16_bits_that_a_writer_called_signed_has_its_large_numbers(tmp_path: Path):
    depth = np.arange(20000, 68000, 600).reshape(8, 10) % 65535
    for kind in ("<i2", ">i2"):
        np.save(tmp_path / "depth.npy", depth.astype(np.uint16).view(np.int16).astype(kind))
        assert np.array_equal(read_depth(tmp_path / "depth.npy"), depth)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "private"))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SceneError, match=r"private: Permission denied"):
        find(RgbdConfig(path=tmp_path))


@pytest.mark.parametrize("number", ["nan", "0"])
def test_a_depth_to_colour_matrix_that_is_none_is_named(tmp_path: Path, number: str):
    box_room.WRITERS["7scenes"](tmp_path / "room", box_room.shots(1))
    (tmp_path / "matrix.txt").write_text(" ".join([number] * 16))
    (job,) = find(RgbdConfig(path=tmp_path / "room", depth_to_color=tmp_path / "matrix.txt")).scenes
    with pytest.raises(SceneError, match=r"matrix\.txt"):
        job.read()


def test_poses_are_sorted_into_valid_rounded_and_wrong():
    exact = box_room.poses(1)[0]
    rounded, sheared, mirrored = exact.round(3), exact.copy(), exact @ np.diag([-1.0, 1, 1, 1])
    sheared[:3, 0] *= 1.5
    clean = clean_poses(np.stack([exact, rounded, sheared, mirrored, exact * np.nan, np.zeros((4, 4))]))
    assert clean.valid.tolist() == [True, True, False, True, False, False]
    assert clean.n_rounded == 1
    assert np.allclose(clean.camera_to_world[1], exact, atol=2e-3)
    assert np.linalg.det(clean.camera_to_world[3, :3, :3]) == pytest.approx(-1.0)


def test_cameras_under_names_in_one_file_keep_distortion_and_size(tmp_path: Path):
    color = {"FX": 525, "fy": 524, "ppx": 319.5, "ppy": 239.5, "k1": 0.1, "p2": -0.01, "w": 640, "h": 480}
    depth = {"K": [[570, 0, 320], [0, 571, 240], [0, 0, 1]], "width": 640, "height": 480}
    (tmp_path / "calibration.json").write_text(json.dumps({"color": color, "depth": depth}))
    found = find_calibration(tmp_path)
    assert found.color is not None and found.depth is not None
    assert np.array_equal(found.color.matrix, pinhole(525.0, 524.0, 319.5, 239.5))
    assert found.color.distortion == (0.1, 0.0, 0.0, -0.01, 0.0) and found.color.size == (640, 480)
    assert np.array_equal(found.depth.matrix, pinhole(570.0, 571.0, 320.0, 240.0))
    assert found.depth.size == (640, 480) and not any(found.depth.distortion)


def test_distortion_is_that_of_a_worked_example():
    moved = distort(np.array([[0.5, -0.2]]), (0.1, 0.01, 0.001, 0.002, 0.0005))
    r2 = 0.29
    radial = 1 + 0.1 * r2 + 0.01 * r2**2 + 0.0005 * r2**3
    x = 0.5 * radial + 2 * 0.001 * 0.5 * -0.2 + 0.002 * (r2 + 2 * 0.25)
    y = -0.2 * radial + 0.001 * (r2 + 2 * 0.04) + 2 * 0.002 * 0.5 * -0.2
    assert np.allclose(moved, [[x, y]])


def test_scannet_cameras_count_as_one_and_those_of_7scenes_do_not():
    color = Intrinsics(np.array([[1170.19, 0, 647.75], [0, 1170.19, 483.75], [0, 0, 1]]))
    depth = Intrinsics(np.array([[577.87, 0, 319.5], [0, 577.87, 239.5], [0, 0, 1]]))
    assert same_camera(color, (1296, 968), depth, (640, 480))
    other = Intrinsics(np.array([[525.0, 0, 320], [0, 525.0, 240], [0, 0, 1]]))
    assert not same_camera(other, (640, 480), depth, (640, 480))


def test_frames_have_the_times_of_their_depth_images_where_these_are_times(tmp_path: Path):
    taken = box_room.shots(3)
    box_room.write_tum(tmp_path / "tum", taken)
    (tmp_path / "room.sens").write_bytes(box_room.sens_bytes(taken))
    box_room.write_redwood(tmp_path / "redwood", taken)
    start = 1305031102.0 + 0.004
    timed = [frame.time for frame in LAYOUTS["tum"].read(tmp_path / "tum").frames]
    assert np.allclose(timed, start + np.arange(3) / 30, rtol=0, atol=1e-6)
    assert [frame.time for frame in LAYOUTS["sens"].read(tmp_path / "room.sens").frames] == [0.0, 1e-6, 2e-6]
    assert {frame.time for frame in LAYOUTS["redwood"].read(tmp_path / "redwood").frames} == {None}
    stream = find(RgbdConfig(path=tmp_path / "tum", up_axis="z")).scenes[0].read()
    assert [frame.time for frame in stream.frames] == timed
