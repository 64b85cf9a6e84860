"""Files of recordings as people have them: a frame has pose, depth and colour of one shot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from ponderv2.datasets.recordings import Recording
from ponderv2.datasets.rgbd.config import PairingConfig, RgbdConfig
from ponderv2.datasets.rgbd.layouts import LAYOUTS, detect_layout
from ponderv2.datasets.rgbd.reader import find
from ponderv2.errors import SceneError
from ponderv2.workflows.prepare_surface import with_surface
from tests.scenes import box_room
from tests.scenes.box_room import K, Shot, shots

START = 1305031102.1753


def read(root: Path, layout: str, config: RgbdConfig = RgbdConfig()) -> Recording:
    """Recognised and read."""
    assert detect_layout(root) == layout
    return LAYOUTS[layout].read(root, config)


def which(recording: Recording, taken: list[Shot]) -> list[int]:
    """For every frame the image that pose, depth and colour are from: one and the same."""
    found = []
    for frame in recording.frames:
        by_pose = [np.abs(frame.camera_to_world - shot.pose).max() for shot in taken]
        depth = frame.depth.depth() * recording.depth_scale
        by_depth = [np.abs(depth - shot.depth).mean() for shot in taken]
        assert min(by_pose) < 1e-5 and min(by_depth) < 1e-3
        index = int(np.argmin(by_pose))
        assert int(np.argmin(by_depth)) == index
        if frame.color is not None:
            color = np.asarray(Image.open(frame.color.name).convert("RGB").resize((80, 60))).astype(float)
            by_color = [np.abs(color - shot.color).mean() for shot in taken]
            assert int(np.argmin(by_color)) == index
        found.append(index)
    return found


def log(poses: list[np.ndarray], numbers: list[int]) -> str:
    """trajectory.log."""
    rows = [f"{n} {n} {n + 1}\n" + "\n".join(" ".join(map(repr, map(float, row))) for row in pose)
            for n, pose in zip(numbers, poses, strict=True)]  # fmt: skip
    return "\n".join(rows) + "\n"


def write_open3d(
    root: Path, taken: list[Shot], colors: list[str], depths: list[str], numbers: list[int]
) -> None:
    for shot, color, depth in zip(taken, colors, depths, strict=True):
        box_room.save(shot, root / f"image/{color}.png", root / f"depth/{depth}.png", 0.001)
    (root / "trajectory.log").write_text(log([shot.pose for shot in taken], numbers))
    camera = {"width": 80, "height": 60, "intrinsic_matrix": K.T.ravel().tolist()}
    (root / "intrinsic.json").write_text(json.dumps(camera))


@pytest.mark.parametrize(("first", "step"), [(0, 1), (1, 1), (6, 1), (0, 10), (7, 3)])
@pytest.mark.parametrize("counted", ["alike", "from 0"])
def test_a_trajectory_counts_as_the_images_do_or_from_0(tmp_path: Path, first: int, step: int, counted: str):
    taken = shots(5)
    numbers = [first + step * n for n in range(5)]
    names = [f"image{n}" for n in numbers], [f"depth{n:05d}" for n in numbers]
    write_open3d(tmp_path, taken, *names, numbers if counted == "alike" else list(range(5)))
    assert which(read(tmp_path, "redwood"), taken) == list(range(5))


def test_images_named_by_seconds_go_by_time_and_their_log_by_order(tmp_path: Path):
    taken = shots(6)
    times = [START + n / 30 for n in range(6)]
    names = [f"{t:.6f}" for t in times], [f"{t + 0.004:.6f}" for t in times]
    write_open3d(tmp_path, taken, *names, list(range(6)))
    recording = read(tmp_path, "redwood")
    assert which(recording, taken) == list(range(6))
    assert len({frame.id for frame in recording.frames}) == 6
    assert any("by time (s" in note for note in recording.notes) and any(
        "by order" in note for note in recording.notes
    )


@pytest.mark.parametrize("damage", ["-1.#INF -1.#INF -1.#INF -1.#INF", "1.#QNAN 0 0 0", "nan nan nan nan"])
def test_one_damaged_pose_of_a_log_is_dropped_and_named(tmp_path: Path, damage: str):
    taken = shots(5)
    names = [f"{n:05d}" for n in range(5)]
    write_open3d(tmp_path, taken, names, names, list(range(5)))
    lines = (tmp_path / "trajectory.log").read_text().split("\n")
    lines[11] = damage
    (tmp_path / "trajectory.log").write_text("\n".join(lines))
    scene = find(RgbdConfig(path=tmp_path, up_axis="z")).scenes[0].read()
    assert [frame.id for frame in scene.frames] == ["00000", "00001", "00003", "00004"]
    assert any("00002" in repair for repair in scene.finish().repairs)


def write_timed_scannet(root: Path, taken: list[Shot]) -> None:
    box_room.write_scannet(root, taken)
    for index in range(len(taken)):
        for old in root.glob(f"*/{index}.*"):
            old.rename(old.with_name(f"{START + index / 30:.6f}{old.suffix}"))


def test_a_scannet_export_named_by_seconds_keeps_every_frame(tmp_path: Path):
    taken = shots(6)
    write_timed_scannet(tmp_path / "room", taken)
    assert which(read(tmp_path / "room", "scannet"), taken) == list(range(6))


def test_names_of_several_kinds_in_one_export(tmp_path: Path):
    taken = shots(12)
    box_room.write_scannet(tmp_path / "room", taken)
    for index in range(12):
        color, depth = (tmp_path / "room" / f"{kind}/{index}" for kind in ("color", "depth"))
        Path(f"{color}.jpg").rename(f"{color.parent}/frame_{index}.JPG")
        Path(f"{depth}.png").rename(f"{depth.parent}/frame_{index:06d}.PNG")
        shutil.copy(f"{depth.parent}/frame_{index:06d}.PNG", f"{depth.parent}/mask_{index}.png")
    (tmp_path / "room/color/.hidden.jpg").write_bytes(b"x")
    (tmp_path / "room/color/notes.txt").write_text("x")
    (tmp_path / "room/pose/5.txt").unlink()
    recording = read(tmp_path / "room", "scannet")
    assert which(recording, taken) == [n for n in range(12) if n != 5]
    assert any("12 files of depth are masks" in note for note in recording.notes)
    assert any("notes.txt" in note for note in recording.notes)
    assert any("1 frames without pose were left out (frame_000005)" in repair for repair in recording.repairs)


def test_two_kinds_of_files_for_one_frame_are_refused(tmp_path: Path):
    box_room.write_scannet(tmp_path, shots(2))
    for index in range(2):
        shutil.copy(tmp_path / f"depth/{index}.png", tmp_path / f"depth/{index}.tiff")
    with pytest.raises(SceneError, match=r"0\.png, 0\.tiff"):
        LAYOUTS["scannet"].read(tmp_path)


def test_poses_of_every_second_frame_leave_the_others_out_and_say_so(tmp_path: Path):
    taken = shots(6)
    box_room.write_7scenes(tmp_path, taken)
    for index in (1, 3, 5):
        (tmp_path / f"frame-{index:06d}.pose.txt").unlink()
    recording = read(tmp_path, "7scenes")
    assert which(recording, taken) == [0, 2, 4]
    assert any("3 frames without pose" in repair for repair in recording.repairs)


# Timestamps


def quaternion(pose: np.ndarray) -> str:
    return " ".join(f"{x:.9f}" for x in (*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()))


def write_lists(root: Path, taken: list[Shot], stamp, pose_stamp=None, apart: float = 0.004) -> None:
    """rgb.txt, depth.txt and groundtruth.txt; `stamp` writes seconds."""
    pose_stamp = pose_stamp or stamp
    lists: dict[str, list[str]] = {
        "rgb": [],
        "depth": [],
        "groundtruth": ["# timestamp tx ty tz qx qy qz qw"],
    }
    for index, shot in enumerate(taken):
        t = START + index / 30
        depth, color = stamp(t), stamp(t + apart)
        box_room.save(shot, root / f"rgb/{color}.png", root / f"depth/{depth}.png", 1 / 5000)
        lists["rgb"].append(f"{color} rgb/{color}.png")
        lists["depth"].append(f"{depth} depth/{depth}.png")
        lists["groundtruth"].append(f"{pose_stamp(t)} {quaternion(shot.pose)}")
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


def seconds(t: float) -> str:
    return f"{t:.6f}"


def nanoseconds(t: float) -> str:
    return str(round(t * 1e9))


@pytest.mark.parametrize("images", [seconds, nanoseconds, lambda t: str(round(t * 1e6))])
@pytest.mark.parametrize("tracker", [seconds, lambda t: str(round(t * 1e6))])
def test_lists_in_other_units_are_read(tmp_path: Path, images, tracker):
    taken = shots(6)
    write_lists(tmp_path, taken, images, tracker)
    recording = read(tmp_path, "tum")
    assert which_near(recording, taken) == list(range(6))


def which_near(recording: Recording, taken: list[Shot]) -> list[int]:
    """As `which`, with poses that were rounded to microseconds."""
    return [int(np.argmin([np.abs(frame.camera_to_world - shot.pose).max() for shot in taken]))
            for frame in recording.frames
            if min(np.abs(frame.camera_to_world - shot.pose).max() for shot in taken) < 1e-3]  # fmt: skip


@pytest.mark.parametrize(
    "header",
    [
        "#timestamp tx ty tz qw qx qy qz",
        "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []",
    ],
    ids=["TUM", "EuRoC"],
)
def test_a_header_decides_the_order_of_a_quaternion(tmp_path: Path, header: str):
    taken = shots(5)
    write_lists(tmp_path, taken, seconds)
    comma = ", " if "," in header else " "
    rows = []
    for line in (tmp_path / "groundtruth.txt").read_text().splitlines()[1:]:
        words = line.split()
        rows.append(comma.join([*words[:4], words[7], *words[4:7]]))
    (tmp_path / "groundtruth.txt").write_text("\n".join([header, *rows]) + "\n")
    recording = read(tmp_path, "tum")
    assert which(recording, taken) == list(range(5))
    assert any("by the names of its columns" in note for note in recording.notes)


def test_frame_numbers_in_place_of_times(tmp_path: Path):
    taken = shots(6)
    write_lists(tmp_path, taken, lambda t: f"{(t - START) * 30 + 1:.0f}", apart=0.0)
    recording = read(tmp_path, "tum")
    assert which(recording, taken) == list(range(6))
    assert [frame.id for frame in recording.frames] == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("order", ["color first", "depth first"])
def test_one_list_of_associations_is_enough(tmp_path: Path, order: str):
    taken = shots(5)
    write_lists(tmp_path, taken, seconds)
    both = [(tmp_path / name).read_text().split("\n") for name in ("rgb.txt", "depth.txt")]
    pairs = zip(*(both if order == "color first" else both[::-1]), strict=True)
    (tmp_path / "associations.txt").write_text("\n".join(" ".join(pair) for pair in pairs))
    for name in ("rgb.txt", "depth.txt"):
        (tmp_path / name).unlink()
    recording = read(tmp_path, "tum")
    assert which(recording, taken) == list(range(5))
    assert any("associations.txt" in note for note in recording.notes)


def test_lists_that_are_doubled_and_out_of_order(tmp_path: Path):
    taken = shots(5)
    write_lists(tmp_path, taken, seconds)
    lines = (tmp_path / "depth.txt").read_text().split()
    pairs = [" ".join(lines[n : n + 2]) for n in range(0, len(lines), 2)]
    (tmp_path / "depth.txt").write_text("\n".join([*pairs[::-1], *pairs]))
    truth = (tmp_path / "groundtruth.txt").read_text().splitlines()
    (tmp_path / "groundtruth.txt").write_text("\n".join(truth[::-1]))
    recording = read(tmp_path, "tum")
    assert which(recording, taken) == list(range(5))
    assert any("5 repeated lines of depth images" in repair for repair in recording.repairs)
    assert any("order of time" in note for note in recording.notes)


def test_folders_named_by_time_beside_poses_need_no_list(tmp_path: Path):
    taken = shots(5)
    write_lists(tmp_path, taken, seconds)
    for name in ("rgb.txt", "depth.txt"):
        (tmp_path / name).unlink()
    assert which(read(tmp_path, "tum"), taken) == list(range(5))


def test_frames_without_a_pose_near_are_left_out_and_the_gap_is_a_setting(tmp_path: Path):
    taken = shots(8)
    write_lists(tmp_path, taken, seconds)
    lines = (tmp_path / "groundtruth.txt").read_text().splitlines()
    (tmp_path / "groundtruth.txt").write_text("\n".join(lines[:3] + lines[7:]))  # poses 2, 3, 4, 5 are lost
    recording = read(tmp_path, "tum")
    assert which(recording, taken) == [0, 1, 6, 7]
    assert any("4 frames without pose" in repair and "0.15 s" in repair for repair in recording.repairs)
    longer = RgbdConfig(pairing=PairingConfig(pose_gap=0.2))
    recording = read(tmp_path, "tum", longer)
    assert len(recording.frames) == 8
    middle = (recording.frames[3].camera_to_world[:3, 3] - taken[1].pose[:3, 3]) @ np.linalg.pinv(
        (taken[6].pose[:3, 3] - taken[1].pose[:3, 3])[None]
    )
    assert float(middle[0]) == pytest.approx(0.4, abs=1e-5)  # two of five steps along the line
    assert any("4 interpolated" in note for note in recording.notes)


def test_replica_numbered_from_1_and_thinned_out(tmp_path: Path):
    taken = shots(6)
    for name, numbers in (("from1", range(1, 7)), ("thinned", range(0, 12, 2))):
        root = tmp_path / name / "room0"
        box_room.write_replica(root, taken)
        for index, number in reversed(list(enumerate(numbers))):
            for kind, ending in (("frame", "jpg"), ("depth", "png")):
                (root / f"results/{kind}{index:06d}.{ending}").rename(
                    root / f"results/{kind}{number:06d}.{ending}"
                )
        recording = read(root, "replica")
        assert which(recording, taken) == list(range(6))
        assert [frame.id for frame in recording.frames] == [f"{number:06d}" for number in numbers]


# Cameras beside the data


def test_the_info_of_the_cpp_reader_is_read(tmp_path: Path):
    taken = shots(3)
    box_room.write_bundlefusion(tmp_path, taken)
    (tmp_path / "info.txt").rename(tmp_path / "_info.txt")
    recording = read(tmp_path, "bundlefusion")
    assert which(recording, taken) == [0, 1, 2]
    assert np.allclose(recording.frames[0].depth_intrinsics.matrix, K)
    assert any("_info.txt" in note for note in recording.notes)
    text = (tmp_path / "_info.txt").read_text()
    (tmp_path / "info.txt").write_text(text.replace("70.0", "71.0"))
    other = read(tmp_path, "bundlefusion")
    assert any("contradict" in repair for repair in other.repairs)


@pytest.mark.parametrize("name", ["intrinsics_depth.txt", "depth_intrinsics.txt", "camera-intrinsics.txt"])
def test_cameras_of_an_export_under_other_names(tmp_path: Path, name: str):
    taken = shots(3)
    box_room.write_scannet(tmp_path, taken)
    shutil.rmtree(tmp_path / "intrinsic")
    wide = np.eye(4)
    wide[:3, :3] = K
    np.savetxt(tmp_path / name, wide)
    recording = read(tmp_path, "scannet")
    assert which(recording, taken) == [0, 1, 2]
    assert np.allclose(recording.frames[0].depth_intrinsics.matrix, K)
    assert any(name in note for note in recording.notes)


SIZED = {"width": 80, "height": 60}
NAMED = {"fx": 70, "fy": 62, "cx": 38.5, "cy": 30.5}
DATA = "rows: 3\n  cols: 3\n  data: [70., 0., 38.5, 0., 62., 30.5, 0., 0., 1.]\n"
CAMERA_FILES = {
    "calibration.txt": "70 62 38.5 30.5\n",
    "calib.yaml": "".join(f"Camera.{name}: {value}\n" for name, value in NAMED.items())
    + "DepthMapFactor: 5000.0",
    "camera.yaml": f"image_width: 80\nimage_height: 60\ncamera_matrix:\n  {DATA}",
    "camera.yml": f"%YAML:1.0\nK: !!opencv-matrix\n  dt: d\n  {DATA}",
    "calibration.yaml": "cam0:\n  intrinsics: [70.0, 62.0, 38.5, 30.5]\n  resolution: [80, 60]\n",
    "camera_intrinsics.json": json.dumps({**SIZED, "intrinsic_matrix": K.T.ravel().tolist()}),
    "camera.json": json.dumps({"depth": {**NAMED, **SIZED}}),
    "cam_params.json": json.dumps({"camera": {**NAMED, "w": 80, "h": 60, "scale": 5000}}),
}


@pytest.mark.parametrize(
    ("place", "name"),
    [(place, name) for place in ("", "calibration/") for name in sorted(CAMERA_FILES)]
    + [("../", name) for name in sorted(CAMERA_FILES) if Path(name).stem != "camera"],
)
def test_a_camera_beside_lists_is_used(tmp_path: Path, place: str, name: str):
    root = tmp_path / "room"
    taken = shots(2)
    write_lists(root, taken, seconds)
    (root / place).mkdir(exist_ok=True)
    (root / place / name).write_text(CAMERA_FILES[name])
    recording = read(root, "tum")
    assert which(recording, taken) == [0, 1]
    for frame in recording.frames:
        assert (
            np.allclose(frame.depth_intrinsics.at_size(80, 60), K)
            and frame.color_intrinsics is frame.depth_intrinsics
        )
    assert any(name in note for note in recording.notes)
    assert not recording.repairs


def test_a_depth_scale_beside_the_images_is_used(tmp_path: Path):
    taken = shots(2)
    for index, shot in enumerate(taken):
        box_room.save(shot, tmp_path / f"color/{index}.png", tmp_path / f"depth/{index}.png", 1 / 4000)
    (tmp_path / "trajectory.log").write_text(log([shot.pose for shot in taken], [0, 1]))
    (tmp_path / "camera.yaml").write_text(
        "Camera.fx: 70\nCamera.fy: 62\nCamera.cx: 38.5\nCamera.cy: 30.5\ndepth_map_factor: 4000\n"
    )
    recording = read(tmp_path, "redwood")
    assert recording.depth_scale == pytest.approx(1 / 4000) and recording.unit_declared
    assert which(recording, taken) == [0, 1]


def test_contradicting_cameras_are_named_with_the_one_that_was_used(tmp_path: Path):
    write_lists(tmp_path, shots(2), seconds)
    (tmp_path / "calibration.txt").write_text("70 62 38.5 30.5\n")
    (tmp_path / "camera.txt").write_text("90 90 38.5 30.5\n")
    (tmp_path / "intrinsics.txt").write_text("this is no camera")
    recording = read(tmp_path, "tum")
    assert recording.frames[0].depth_intrinsics.matrix[0, 0] == 70
    (said,) = recording.repairs
    assert (
        "calibration.txt and camera.txt contradict each other" in said and "calibration.txt was used" in said
    )
    assert any("intrinsics.txt holds no camera" in note for note in recording.notes)


def test_a_camera_with_y_upwards_gives_the_room_and_no_mirror_image(tmp_path: Path):
    """ICL-NUIM: fy is negative, in cameras and in a world whose y points up."""
    taken = shots(4)
    mirror = np.diag([1.0, -1, 1, 1])
    turned = [Shot(mirror @ shot.pose @ mirror, shot.color, shot.depth) for shot in taken]
    write_lists(
        tmp_path / "living_room_traj2_frei_png", turned, lambda t: f"{(t - START) * 30 + 1:.0f}", apart=0.0
    )
    (tmp_path / "k.txt").write_text("70 -62 38.5 30.5\n")
    config = RgbdConfig(
        path=tmp_path / "living_room_traj2_frei_png", intrinsics=tmp_path / "k.txt", up_axis="z"
    )
    scene = with_surface(find(config).scenes[0].read())
    frames = list(scene.frames)
    for frame, shot in zip(frames, taken, strict=True):
        assert np.allclose(frame.intrinsics, K)
        assert np.allclose(frame.camera_to_world, shot.pose, atol=1e-6)
    surface = scene.finish()
    assert any("y of the cameras points up" in note for note in surface.notes)
    assert np.median(box_room.distance_to_room(surface.cloud.coord)) < 0.01
    recording = LAYOUTS["tum"].read(config.path)
    assert np.allclose(np.diag(recording.frames[0].depth_intrinsics.matrix), (481.2, -480, 1))


@pytest.mark.parametrize("layout", ["7scenes", "bundlefusion", "redwood", "replica", "scannet", "tum"])
def test_recordings_of_depth_alone_are_read(tmp_path: Path, layout: str):
    taken = shots(4)
    box_room.WRITERS[layout](tmp_path / "room", taken)
    for path in sorted((tmp_path / "room").rglob("*")):
        if ".color." in path.name or path.name.startswith("frame00") or path.name == "rgb.txt":
            path.unlink()
    for name in ("color", "rgb"):
        shutil.rmtree(tmp_path / "room" / name, ignore_errors=True)
    recording = read(tmp_path / "room", layout)
    assert [frame.color for frame in recording.frames] == [None] * 4
    assert which(recording, taken) == [0, 1, 2, 3]


def test_stride_and_holdout_follow_the_numbers_of_frames(tmp_path: Path):
    taken = shots(12)
    names = [f"frame_{n + 1}" for n in range(12)]
    write_open3d(tmp_path, taken, names, names, list(range(1, 13)))
    scene = find(RgbdConfig(path=tmp_path, up_axis="z", stride=2, holdout=3)).scenes[0].read()
    frames = list(scene.frames)
    assert [frame.id for frame in frames] == [f"frame_{n}" for n in (1, 3, 5, 7, 9, 11)]
    assert [frame.id for frame in frames if frame.held_out] == ["frame_5", "frame_11"]


@pytest.mark.parametrize("whose", ["depth", "colour"])
@pytest.mark.parametrize("given", ["beside", "option"])
def test_one_camera_for_images_of_two_sizes_belongs_to_those_that_its_centre_fits(
    tmp_path: Path, whose: str, given: str
):
    taken = shots(3)
    root = tmp_path / "room"
    write_lists(root, taken, seconds)
    double = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]]) @ K
    for path, shot in zip(sorted((root / "rgb").iterdir()), taken, strict=True):
        large = box_room.shoot(shot.pose, double, (160, 120))
        Image.fromarray(large.color).save(path)
    matrix = K if whose == "depth" else double
    file = (root if given == "beside" else tmp_path) / "calibration.txt"
    file.write_text(f"{matrix[0, 0]} {matrix[1, 1]} {matrix[0, 2]} {matrix[1, 2]}")
    option = {} if given == "beside" else {"intrinsics": file}
    scene = find(RgbdConfig(path=root, up_axis="z", **option)).scenes[0].read()
    for frame, shot in zip(scene.frames, taken, strict=True):
        assert np.allclose(frame.intrinsics, K)
        assert np.abs(frame.color.astype(float) - shot.color).mean() < 3
    assert any(f"belong to the {whose} images" in note for note in scene.finish().notes)


@pytest.mark.parametrize("factor", [2.0, 7.5, 0.5])
@pytest.mark.parametrize("color", [True, False], ids=["with colour", "depth alone"])
def test_a_camera_of_images_before_they_were_resized_is_scaled_and_said(
    tmp_path: Path, factor: float, color: bool
):
    taken = shots(3)
    root = tmp_path / "room"
    write_lists(root, taken, seconds)
    if not color:
        shutil.rmtree(root / "rgb")
        (root / "rgb.txt").unlink()
    large = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1]]) @ K
    (root / "calibration.txt").write_text(" ".join(map(str, large[[0, 1, 0, 1], [0, 1, 2, 2]])))
    scene = find(RgbdConfig(path=root, up_axis="z")).scenes[0].read()
    assert all(np.allclose(frame.intrinsics, K) for frame in scene.frames)
    assert any(f"divided by {factor:g}" in note for note in scene.finish().notes)


def test_a_camera_file_that_cannot_be_read_is_not_called_missing(tmp_path: Path):
    box_room.write_scannet(tmp_path / "room", shots(3))
    (file,) = (tmp_path / "room").rglob("intrinsic_depth.txt")
    file.write_text("1 2 3 4 5\n")
    with pytest.raises(SceneError, match=r"intrinsic_depth\.txt holds 5 numbers"):
        read(tmp_path / "room", "scannet")


@pytest.mark.parametrize("odd", ["half the size", "turned"])
def test_images_of_another_size_among_those_of_one_camera(tmp_path: Path, odd: str):
    """Of the same aspect ratio they get the camera of their size; others cannot be of this camera."""
    taken = shots(5)
    root = tmp_path / "room"
    box_room.write_scannet(root, taken)
    path = root / "depth/2.png"
    if odd == "turned":
        Image.fromarray(np.rot90(np.asarray(Image.open(path))).copy()).save(path)
    else:
        half = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]]) @ K
        small = box_room.shoot(taken[2].pose, half, (40, 30))
        Image.fromarray(np.rint(small.depth * 1000).astype(np.uint16)).save(path)
    scene = find(RgbdConfig(path=root)).scenes[0].read()
    frames = {frame.id: frame for frame in scene.frames}
    notes = " ".join((*scene.finish().notes, *scene.finish().repairs))
    if odd == "turned":
        assert set(frames) == {"0", "1", "3", "4"} and "aspect ratio" in notes
    else:
        assert np.allclose(frames["2"].intrinsics, half, atol=1e-3)
    assert np.allclose(frames["1"].intrinsics, K, atol=1e-3)


def test_a_principal_point_near_the_middle_is_left_alone(tmp_path: Path):
    taken = shots(3)
    write_lists(tmp_path / "room", taken, seconds)
    off = K + np.array([[0, 0, 9.0], [0, 0, -6.0], [0, 0, 0]])  # as of a camera that was cropped a little
    (tmp_path / "room/calibration.txt").write_text(" ".join(map(str, off[[0, 1, 0, 1], [0, 1, 2, 2]])))
    scene = find(RgbdConfig(path=tmp_path / "room", up_axis="z")).scenes[0].read()
    assert all(np.allclose(frame.intrinsics, off) for frame in scene.frames)


@pytest.mark.parametrize(
    "layout", ["redwood", "replica", "scannet", "tum", "sun3d", "7scenes", "bundlefusion"]
)
def test_names_in_capitals_are_the_same_names(tmp_path: Path, layout: str):
    taken = shots(3)
    root = tmp_path / "room"
    box_room.WRITERS[layout](root, taken)
    for path in sorted(root.rglob("*"), key=lambda one: -len(one.parts)):
        if path.suffix != ".json" and path.parent.name != "intrinsic":
            path.rename(path.with_name(path.name.upper()))
    for path in root.glob("INTRINSIC"):
        path.rename(root / "intrinsic")
    recording = read(root, layout)
    assert which(recording, taken) == [0, 1, 2]


@pytest.mark.parametrize("layout", ["replica", "redwood"])
@pytest.mark.parametrize("truth", ["counted from 1", "first image lost"])
def test_depth_tells_whether_poses_count_from_0_or_from_1(tmp_path: Path, layout: str, truth: str):
    """Images 1 to 9 and poses of more frames: the last images are lost, or the first one is."""
    taken = shots(12)
    kept = taken[:9] if truth == "counted from 1" else taken[1:10]
    for index, shot in enumerate(kept):
        number = index + 1
        if layout == "replica":
            names = f"results/frame{number:06d}.jpg", f"results/depth{number:06d}.png"
        else:
            names = f"color/{number}.jpg", f"depth/{number}.png"
        box_room.save(shot, tmp_path / names[0], tmp_path / names[1], 0.001)
    every = [shot.pose for shot in taken]
    rows = "\n".join(" ".join(map(repr, map(float, pose.ravel()))) for pose in every)
    (tmp_path / "traj.txt").write_text(rows if layout == "replica" else "")
    if layout == "redwood":
        (tmp_path / "trajectory.log").write_text(log(every, list(range(12))))
    (tmp_path / "calibration.yaml").write_text("fx: 70\nfy: 62\ncx: 38.5\ncy: 30.5\ndepth_scale: 1000\n")
    recording = read(tmp_path, layout)
    first = 0 if truth == "counted from 1" else 1
    assert which(recording, taken) == list(range(first, first + 9))
    number = 1 if truth == "counted from 1" else 0
    assert any(f"first pose is that of image {number}: so depth" in note for note in recording.notes)
