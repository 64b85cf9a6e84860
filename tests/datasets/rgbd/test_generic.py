"""Folders of images and a list of poses, written in many forms: poses, depth and cameras against the room."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from ponderv2.datasets.recordings import Recording
from ponderv2.datasets.rgbd.config import GenericConfig, RgbdConfig
from ponderv2.datasets.rgbd.layouts import LAYOUTS, detect_layout
from ponderv2.datasets.rgbd.pose_conventions import FILE_FROM_OPENCV
from ponderv2.datasets.rgbd.reader import find
from ponderv2.errors import SceneError
from ponderv2.workflows.prepare_surface import with_surface
from tests.scenes import box_room

SHOTS = box_room.shots(8)
POSES = np.stack([one.pose for one in SHOTS])


@dataclass(frozen=True)
class Form:
    """How a recording is written."""

    rows: str = "t q"
    """Of a line: t q, t q w first, q t, 3x4, 4x4, 4x4 over lines, a file each."""
    keys: str = ""
    """Before them: nothing, index, time, name."""
    direction: str = "camera_to_world"
    axes: str = "opencv"
    unit: float = 1.0
    """Metres per unit of the translations."""
    depth_unit: float = 0.001
    color: str | None = "rgb/{:04d}.png"
    depth: str = "depth/{:04d}.png"
    poses: str = "poses.txt"
    header: str = ""
    intrinsics: str | None = "70 62 38.5 30.5\n"


def write(root: Path, form: Form) -> Path:
    """The recording; images are called by their number, by time where the poses have times."""
    (root / form.poses).parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, shot in enumerate(SHOTS):
        key = {
            "": "",
            "index": f"{index} ",
            "time": f"{1305031102 + index / 30:.4f} ",
            "name": f"{index:04d}.png ",
        }
        depth = root / form.depth.format(index)
        depth.parent.mkdir(parents=True, exist_ok=True)
        if depth.suffix == ".npy":
            np.save(depth, (shot.depth / form.depth_unit).astype(np.float32))
        else:
            Image.fromarray(np.rint(shot.depth / form.depth_unit).astype(np.uint16)).save(depth)
        if form.color is not None:
            color = root / form.color.format(index)
            color.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shot.color).save(color)
        row = row_of(shot.pose, form)
        rows.append(key[form.keys] + row)
        if form.rows == "a file each":
            path = root / form.poses / f"{index:04d}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(row)
    if form.rows != "a file each":
        (root / form.poses).write_text(form.header + "\n".join(rows) + "\n")
    if form.intrinsics is not None:
        (root / "intrinsics.txt").write_text(form.intrinsics)
    return root


def row_of(pose: np.ndarray, form: Form) -> str:
    """A pose as the file has it."""
    matrix = pose @ np.linalg.inv(FILE_FROM_OPENCV[form.axes])
    matrix = np.linalg.inv(matrix) if form.direction == "world_to_camera" else matrix
    matrix[:3, 3] /= form.unit
    quaternion = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    t = matrix[:3, 3]
    if form.rows in ("4x4 over lines", "a file each"):
        return "\n".join(" ".join(f"{x:.9f}" for x in row) for row in matrix)
    values = {
        "t q": [*t, *quaternion],
        "t q w first": [*t, *np.roll(quaternion, 1)],
        "q t": [*quaternion, *t],
        "3x4": matrix[:3].ravel(),
        "R then t": [*matrix[:3, :3].ravel(), *t],
        "4x4": matrix.ravel(),
    }
    return " ".join(f"{x:.9f}" for x in values[form.rows])


def read(root: Path, **settings) -> Recording:
    (job,) = find(RgbdConfig.model_validate({"path": root, "layout": "generic", **settings})).scenes
    return LAYOUTS["generic"].read(job.path, job.config)


def assert_is_the_room(recording: Recording, error: float = 2e-8, colored: bool = True) -> None:
    assert len(recording.frames) == len(SHOTS)
    for frame, shot in zip(recording.frames, SHOTS, strict=True):
        assert np.abs(frame.camera_to_world - shot.pose).max() < error
        metres = frame.depth.depth().astype(np.float64) * recording.depth_scale
        assert np.abs(metres - shot.depth).max() < 0.6 * max(recording.depth_scale, 1e-6) + 1e-6
        assert np.allclose(frame.depth_intrinsics.at_size(box_room.WIDTH, box_room.HEIGHT), box_room.K)
        assert (frame.color is not None) == colored
        if frame.color is not None:
            assert np.array_equal(frame.color.color().rgb, shot.color)


FORMS = {
    "TUM": Form("t q", "index"),
    "quaternion, w first": Form("t q w first", "time"),
    "quaternion before place": Form("q t"),
    "names and 3x4": Form("3x4", "name"),
    "R then t": Form("R then t"),
    "world-to-camera": Form("4x4", direction="world_to_camera"),
    "OpenGL": Form("3x4", axes="opengl"),
    "OpenGL, world-to-camera, w first": Form("t q w first", direction="world_to_camera", axes="opengl"),
    "robot": Form("t q", axes="ros"),
    "millimetres": Form("4x4 over lines", unit=0.001),
    "1/5000 m": Form("4x4", depth_unit=1 / 5000),
    "a file each": Form("a file each", poses="pose"),
    "floats in metres": Form("t q", depth="depth/{:04d}.npy", depth_unit=1.0),
    "floats in millimetres": Form("t q", depth="depth/{:04d}.npy", depth_unit=1e-3),
    "other names": Form(
        "t q", color="Images/img_{}.png", depth="depth_maps/d{}.png", poses="gt/trajectory.csv"
    ),
    "one folder": Form("4x4", color="{:03d}_color.png", depth="{:03d}_depth.png"),
    "named columns": Form("t q w first", "index", header="# frame tx ty tz qw qx qy qz\n"),
    "comma": Form("3x4", header="\ufeff# by my own tool\r\n"),
}


UNIT_IS_OPEN = ("TUM", "1/5000 m", "floats in metres", "floats in millimetres", "millimetres")


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_decided_by_the_depth_images(tmp_path: Path, name: str):
    form = FORMS[name]
    known = {} if name in UNIT_IS_OPEN else {"depth_scale": form.depth_unit}
    recording = read(write(tmp_path, form), **known)
    assert_is_the_room(recording)
    said = next(note for note in recording.notes if "read as" in note)
    assert FORMS[name].direction.replace("_", "-") in said and "% of the depths agree" in said


@pytest.mark.parametrize("name", ["TUM", "world-to-camera", "a file each"])
def test_a_recording_without_colour_is_read_with_depth_alone(tmp_path: Path, name: str):
    recording = read(write(tmp_path, replace(FORMS[name], color=None)), depth_scale=0.001)
    assert_is_the_room(recording, colored=False)
    assert "depth alone" in recording.notes[0]


def test_what_is_given_is_not_questioned(tmp_path: Path):
    root = write(
        tmp_path, Form("t q w first", direction="world_to_camera", axes="opengl", depth_unit=1 / 4000)
    )
    told = {"quaternion": "wxyz", "direction": "world_to_camera", "axes": "opengl"}
    recording = read(root, generic=told, depth_scale=1 / 4000)
    assert_is_the_room(recording)
    assert any("as given" in note for note in recording.notes)
    wrong = read(root, generic={**told, "axes": "opencv"}, depth_scale=1 / 4000)
    assert np.abs(wrong.frames[0].camera_to_world - POSES[0]).max() > 0.1


def test_a_prepared_recording_is_the_room(tmp_path: Path):
    write(tmp_path / "a", FORMS["OpenGL, world-to-camera, w first"])
    config = {"path": tmp_path / "a", "layout": "generic", "up_axis": "z", "depth_scale": 0.001}
    (job,) = find(RgbdConfig.model_validate({**config, "fusion": {"voxel_size": 0.05}})).scenes
    scene = with_surface(job.read())
    frames = list(scene.frames)
    assert np.abs(np.stack([one.camera_to_world for one in frames]) - POSES).max() < 1e-7
    assert np.allclose(frames[0].intrinsics, box_room.K)
    assert np.median(box_room.distance_to_room(scene.finish().cloud.coord)) < 0.03


def without(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).unlink()
    return root


def test_a_camera_that_stands_still_is_asked_for(tmp_path: Path):
    root = write(tmp_path, Form("t q"))
    row = (root / "poses.txt").read_text().split("\n")[0]
    (root / "poses.txt").write_text(f"{row}\n" * 8)
    for index in range(1, 8):
        (root / f"depth/{index:04d}.png").write_bytes((root / "depth/0000.png").read_bytes())
    with pytest.raises(SceneError, match="cannot decide") as caught:
        read(root)
    for option in (
        "--quaternion",
        "--direction camera_to_world or world_to_camera",
        "--axes",
        "--depth-scale",
    ):
        assert option in str(caught.value.fix)


def test_a_turning_camera_leaves_the_unit_open_and_only_that(tmp_path: Path):
    """Turning on the spot tells order, direction and axes, and nothing about lengths."""
    turns = [
        box_room.look((0.9, 0.2, 1.4), (np.cos(a) * 3, np.sin(a) * 3, 0.6)) for a in np.linspace(1.0, 4.0, 10)
    ]
    shots = [box_room.shoot(pose) for pose in turns]
    rows = []
    for index, shot in enumerate(shots):
        box_room.save(shot, tmp_path / f"rgb/{index}.png", tmp_path / f"depth/{index}.png", 0.001)
        values = [*shot.pose[:3, 3] * 0, *Rotation.from_matrix(shot.pose[:3, :3]).as_quat()]
        rows.append(" ".join(map(str, values)))
    (tmp_path / "poses.txt").write_text("\n".join(rows))
    (tmp_path / "intrinsics.txt").write_text("70 62 38.5 30.5")
    with pytest.raises(SceneError, match="cannot decide") as caught:
        read(tmp_path)
    assert "--depth-scale" in str(caught.value.fix) and "--quaternion" not in str(caught.value.fix)
    recording = read(tmp_path, depth_scale=0.001)
    assert np.abs(recording.frames[5].camera_to_world[:3, :3] - turns[5][:3, :3]).max() < 1e-6


BROKEN: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no intrinsics": (lambda root: without(root, "intrinsics.txt"), "no intrinsics", "--intrinsics"),
    "no poses": (lambda root: without(root, "poses.txt"), "no text file of poses", "--poses"),
    "no rotation": (
        lambda root: (root / "poses.txt").write_text("1 2 3 4 5 6 7\n" * 8), "no four of them", "7 numbers",
    ),
    "two lists": (
        lambda root: (root / "poses_b.txt").write_text((root / "poses.txt").read_text()), "several files",
        "--poses",
    ),
    "two folders": (
        lambda root: (root / "rgb").rename(root / "left") and write(root, Form(color="right/{}.png")),
        "several folders", "--color-dir",
    ),
    "other poses": (
        lambda root: (root / "poses.txt").write_text(
            "\n".join(row_of(np.roll(POSES, 3, axis=0)[i][[1, 2, 0, 3]], Form()) for i in range(8))
        ),
        "cannot decide", "--direction",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_missing_or_not_clear_is_asked_for(tmp_path: Path, what: str):
    change, reason, fix = BROKEN[what]
    change(write(tmp_path, Form()))
    with pytest.raises(SceneError, match=reason) as caught:
        read(tmp_path)
    assert fix in str(caught.value.fix)


def test_names_of_folders_and_files_can_be_given(tmp_path: Path):
    root = write(tmp_path, Form(color="left/{}.png", depth="sensor/{}.png", poses="a.txt"))
    write(tmp_path, Form(rows="3x4", color="right/{}.png", depth="sensor/{}.png", poses="b.txt"))
    told = {"color": "right", "depth": "sensor", "poses": "b.txt"}
    recording = read(root, generic=told)
    assert_is_the_room(recording)
    assert recording.frames[0].color is not None and "right" in recording.frames[0].color.name
    assert "sensor" in recording.notes[0] and "b.txt" in recording.notes[0]
    assert_is_the_room(read(root, generic={**told, "color": "none"}), colored=False)
    with pytest.raises(SceneError, match="no images"):
        read(root, generic={**told, "depth": "depht"})


def test_intrinsics_of_larger_colour_images_are_known_by_their_middle(tmp_path: Path):
    double = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]]) @ box_room.K
    root = write(tmp_path, Form(intrinsics=None))
    for index, shot in enumerate(SHOTS):
        large = box_room.shoot(shot.pose, double, (2 * box_room.WIDTH, 2 * box_room.HEIGHT))
        Image.fromarray(large.color).save(root / f"rgb/{index:04d}.png")
    np.savetxt(root / "intrinsics.txt", double)
    recording = read(root)
    assert np.allclose(
        recording.frames[0].depth_intrinsics.at_size(box_room.WIDTH, box_room.HEIGHT), box_room.K
    )
    assert any("colour images of 160 x 120" in note for note in recording.notes)
    given = tmp_path / "k.txt"
    np.savetxt(given, double)
    for option in ({}, {"intrinsics": given}):  # the file beside the images, and the same one named
        (job,) = find(RgbdConfig(path=root, layout="generic", up_axis="z", **option)).scenes
        frame = next(iter(job.read().frames))
        assert np.allclose(frame.intrinsics, box_room.K)
        assert frame.color is not None and np.abs(frame.color.astype(int) - SHOTS[0].color).mean() < 6


def test_one_camera_of_the_depth_images_leads_colours_of_another_size_to_their_place(tmp_path: Path):
    double = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]]) @ box_room.K
    root = write(tmp_path, Form())
    for index, shot in enumerate(SHOTS):
        large = box_room.shoot(shot.pose, double, (2 * box_room.WIDTH, 2 * box_room.HEIGHT))
        Image.fromarray(large.color).save(root / f"rgb/{index:04d}.png")
    (job,) = find(RgbdConfig(path=root, layout="generic", up_axis="z")).scenes
    for frame, shot in zip(job.read().frames, SHOTS, strict=True):
        assert np.allclose(frame.intrinsics, box_room.K)
        assert frame.color is not None and np.abs(frame.color.astype(int) - shot.color).mean() < 6


def test_masks_of_the_same_names_hide(tmp_path: Path):
    root = write(tmp_path, Form())
    (root / "masks").mkdir()
    for index in range(5):
        values = np.full((box_room.HEIGHT, box_room.WIDTH), 255, np.uint8)
        values[:, : index + 1] = 0
        Image.fromarray(values).save(root / f"masks/{index:04d}.png")
    recording = read(root, depth_scale=0.001)
    assert_is_the_room(recording)
    hidden = [
        None if one.mask is None else int((~one.mask.visible()).any(axis=0).sum()) for one in recording.frames
    ]
    assert hidden == [1, 2, 3, 4, 5, None, None, None] and any("masks" in note for note in recording.notes)


def test_the_folder_of_record3d_is_read_with_its_own_files(tmp_path: Path):
    root = write(
        tmp_path, Form("q t", axes="opengl", color="rgb/{}.png", depth="depth/{}.npy", depth_unit=1.0)
    )
    rows = [
        [float(word) for word in row.split()] for row in (root / "poses.txt").read_text().strip().split("\n")
    ]
    without(root, "poses.txt", "intrinsics.txt")
    size = {"w": box_room.WIDTH, "h": box_room.HEIGHT}
    (root / "metadata.json").write_text(
        json.dumps({"K": box_room.K.T.ravel().tolist(), "poses": rows, **size})
    )
    recording = read(root, generic={"poses": "metadata.json"}, intrinsics=root / "metadata.json")
    assert_is_the_room(recording)


def test_several_recordings_are_read_each(tmp_path: Path):
    for name, form in (("a", Form()), ("b", Form("3x4", axes="opengl"))):
        write(tmp_path / "all" / name, form)
    jobs = find(RgbdConfig(path=tmp_path / "all", layout="generic", depth_scale=0.001)).scenes
    assert [job.name for job in jobs] == ["a", "b"]
    for job in jobs:
        assert_is_the_room(LAYOUTS["generic"].read(job.path, job.config))


def test_real_frames_of_a_kitchen_tell_how_their_poses_are_written(tmp_path: Path, sample_data: Path):
    source = sample_data / "rgbd_7scenes_redkitchen"
    if not source.is_dir():
        pytest.skip(f"no {source}; choose a folder with --sample-data")
    truth, rows = [], []
    (tmp_path / "depth").mkdir()
    for index in range(0, 48, 4):
        (tmp_path / f"depth/{index}.png").write_bytes((source / f"frame-{index:06d}.depth.png").read_bytes())
        truth.append(np.loadtxt(source / f"frame-{index:06d}.pose.txt"))
        rows.append(row_of(truth[-1], Form("t q w first", direction="world_to_camera", axes="opengl")))
    (tmp_path / "poses.txt").write_text("\n".join(rows))
    (tmp_path / "intrinsics.txt").write_text((source / "camera-intrinsics.txt").read_text())
    recording = read(tmp_path)
    assert recording.depth_scale == 0.001
    assert np.abs(np.stack([one.camera_to_world for one in recording.frames]) - truth).max() < 1e-3


def test_it_is_never_taken_unasked(tmp_path: Path):
    write(tmp_path, Form())
    assert detect_layout(tmp_path) is None
    with pytest.raises(SceneError, match="no RGB-D recording") as caught:
        find(RgbdConfig(path=tmp_path))
    assert "--layout generic" in str(caught.value.fix)


def test_what_is_corrected_is_prepared_anew(tmp_path: Path):
    root = write(tmp_path / "a", Form())
    (job,) = find(RgbdConfig(path=root, layout="generic")).scenes
    before = job.fingerprint()
    (root / "poses.txt").write_text((root / "poses.txt").read_text().replace("0", "1", 1))
    assert job.fingerprint() != before
    other = replace(job, config=RgbdConfig(path=root, layout="generic", generic=GenericConfig(axes="opengl")))
    assert other.fingerprint() != job.fingerprint()
