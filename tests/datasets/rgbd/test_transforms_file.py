"""transforms.json as its many writers write it: poses, cameras, units and files against the analytic room."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ponderv2.datasets.rgbd.config import RgbdConfig
from ponderv2.datasets.rgbd.layouts import LAYOUTS
from ponderv2.datasets.rgbd.reader import find
from ponderv2.errors import SceneError
from ponderv2.geometry.poses import clean_poses
from tests.scenes import box_room

OPENGL = np.diag([1.0, -1, -1, 1])
TURN = np.array([[1.0, 0, 0, 0.3], [0, 0, 1, -0.2], [0, -1, 0, 0.1], [0, 0, 0, 1]])
"""An applied_transform with a shift."""
N = 4
SHOTS = box_room.shots(N)
Frame = dict[str, Any]


def write(
    root: Path,
    frame: Callable[[Frame, int], Frame] = lambda one, _: one,
    head: dict[str, Any] | None = None,
    name: str = "transforms.json",
    scale: float = 0.001,
) -> Path:
    """A recording of N frames; `frame` edits an entry, `head` is merged into the top, None removes."""
    root.mkdir(parents=True, exist_ok=True)
    entries = []
    for index, shot in enumerate(SHOTS):
        color, depth = f"images/frame_{index + 1}.png", f"depth/frame_{index + 1}.png"
        box_room.save(shot, root / color, root / depth, scale)
        one = {"file_path": color, "depth_file_path": depth, "transform_matrix": shot.pose @ OPENGL}
        one = frame(one, index)
        entries.append(
            {key: np.asarray(v).tolist() if key.endswith("matrix") else v for key, v in one.items()}
        )
    k = box_room.K
    values = {"fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2] + 0.5, "cy": k[1, 2] + 0.5}
    values |= {"w": box_room.WIDTH, "h": box_room.HEIGHT, "frames": entries} | (head or {})
    (root / name).write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return root


def poses_of(root: Path) -> np.ndarray:
    recording = LAYOUTS["nerfstudio"].read(root)
    return clean_poses(
        np.stack([one.camera_to_world for one in recording.frames]), similarities=True
    ).camera_to_world


def assert_is_the_room(root: Path, error: float = 1e-9) -> None:
    recording = LAYOUTS["nerfstudio"].read(root)
    assert len(recording.frames) == N
    assert np.abs(poses_of(root) - np.stack(box_room.poses(N))).max() < error
    for raw, shot in zip(recording.frames, SHOTS, strict=True):
        assert raw.color is None or np.array_equal(raw.color.color().rgb, shot.color)
        assert np.allclose(
            raw.depth.depth() * recording.depth_scale, shot.depth, atol=0.51 * recording.depth_scale
        )
        assert np.allclose(raw.depth_intrinsics.at_size(box_room.WIDTH, box_room.HEIGHT), box_room.K)


def masks(root: Path, name: str, hidden: int) -> np.ndarray:
    """Left columns of each image are hidden; what is visible."""
    visible = np.ones((box_room.HEIGHT, box_room.WIDTH), bool)
    visible[:, :30] = False
    for index in range(1, N + 1):
        path = root / name.format(index)
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.where(visible, 255 - hidden, hidden).astype(np.uint8)).save(path)
    return visible


@pytest.mark.parametrize(
    ("name", "key", "hidden"),
    [
        ("masks/frame_{}.png", "masks/frame_{}.png", 0),
        ("masks/frame_{}.png", "", 0),
        ("masks/frame_{}.png.png", "", 0),
        ("mask/M_{}.PNG", "mask\\m_{}", 0),
        ("images/dynamic_mask_frame_{}.png", "", 255),
    ],
)
def test_masks_hide_what_their_kind_of_file_says(tmp_path: Path, name: str, key: str, hidden: int):
    root = write(tmp_path, lambda one, i: {**one, "mask_path": key.format(i + 1)} if key else one)
    visible = masks(root, name, hidden)
    recording = LAYOUTS["nerfstudio"].read(root)
    for frame in recording.frames:
        assert frame.mask is not None and np.array_equal(frame.mask.visible(), visible)
    assert any("masks" in note for note in recording.notes)
    (job,) = find(RgbdConfig(path=root, up_axis="z", max_frames=1)).scenes
    depth = next(iter(job.read().frames)).depth
    assert np.array_equal(depth > 0, visible)


def test_masks_that_are_not_there_hide_nothing_and_are_named(tmp_path: Path):
    root = write(tmp_path, lambda one, i: {**one, "mask_path": f"masks/{i}.png"})
    recording = LAYOUTS["nerfstudio"].read(root)
    assert recording.frames[0].mask is None and str(root / "masks/0.png") in recording.repairs[0]


def test_entries_that_name_depth_alone_are_frames_without_colour(tmp_path: Path):
    root = write(tmp_path, lambda one, _: {key: value for key, value in one.items() if key != "file_path"})
    assert_is_the_room(root)
    assert all(frame.color is None for frame in LAYOUTS["nerfstudio"].read(root).frames)


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_floats_of_sdfstudio_are_in_the_units_of_its_poses(tmp_path: Path, factor: float):
    frames = []
    for index, shot in enumerate(SHOTS):
        pose = shot.pose.copy()
        pose[:3, 3] *= factor
        box_room.save(shot, tmp_path / f"{index}.png", tmp_path / "unused.png", 0.001)
        np.save(tmp_path / f"{index}.npy", (shot.depth * factor).astype(np.float32))
        one = {"rgb_path": f"{index}.png", "sensor_depth_path": f"{index}.npy", "camtoworld": pose.tolist()}
        frames.append(one | {"intrinsics": box_room.K.tolist()})
    world = np.diag([1 / factor, 1 / factor, 1 / factor, 1.0]).tolist()
    head = {"width": box_room.WIDTH, "height": box_room.HEIGHT, "worldtogt": world}
    (tmp_path / "meta_data.json").write_text(json.dumps({**head, "frames": frames}))
    (job,) = find(RgbdConfig(path=tmp_path, up_axis="z")).scenes
    for frame, shot in zip(job.read().frames, SHOTS, strict=True):
        assert np.abs(frame.depth * frame.depth_scale - shot.depth).max() < frame.depth_scale
        assert np.abs(frame.camera_to_world - shot.pose).max() < 1e-9


def moved(entry: Frame, transform: np.ndarray, scale: float) -> Frame:
    pose = transform @ entry["transform_matrix"]
    pose[:3, 3] *= scale
    return {**entry, "transform_matrix": pose}


@pytest.mark.parametrize("scale", [0.35, 1.0, 7.5])
@pytest.mark.parametrize("transform", [np.eye(4), TURN], ids=["scale alone", "with applied_transform"])
def test_applied_scale_is_divided_out_of_the_translations(
    tmp_path: Path, scale: float, transform: np.ndarray
):
    head = {"applied_scale": scale, "applied_transform": transform[:3].tolist()}
    assert_is_the_room(write(tmp_path, lambda one, _: moved(one, transform, scale), head))


def test_similarities_lose_their_factor_and_it_is_said(tmp_path: Path):
    scaled = np.diag([2.0, 2, 2, 1])
    write(tmp_path / "room", lambda one, _: {**one, "transform_matrix": one["transform_matrix"] @ scaled})
    assert_is_the_room(tmp_path / "room")
    (job,) = find(RgbdConfig(path=tmp_path / "room", up_axis="z")).scenes
    scene = job.read()
    frames = list(scene.frames)
    assert np.abs(frames[2].camera_to_world - box_room.poses(N)[2]).max() < 1e-9
    assert any("factor of 2 " in note for note in scene.finish().notes)


def test_one_scaled_pose_among_others_is_dropped_and_none_of_the_others_changes():
    exact = np.stack(box_room.poses(4))
    poses = exact.copy()
    poses[1, :3, :3] *= 2.0
    clean = clean_poses(poses, similarities=True)
    assert clean.valid.tolist() == [True, False, True, True] and clean.factor == 1.0
    assert np.allclose(clean.camera_to_world[2:], exact[2:])
    every = clean_poses(exact * np.array([0.5, 0.5, 0.5, 1.0]), similarities=True)
    assert every.valid.all() and every.factor == pytest.approx(0.5)
    assert not clean_poses(exact * np.array([0.5, 0.5, 0.5, 1.0])).valid.any()


def test_a_transposed_pose_is_called_so():
    clean = clean_poses(np.stack([box_room.poses(1)[0].T]))
    assert "transposed" in clean.reasons[0]


@pytest.mark.parametrize("key", ["integer_depth_scale", "depth_unit_scale_factor", "depth_scale"])
def test_the_unit_of_depth_is_read_under_each_name(tmp_path: Path, key: str):
    def ngp(one: Frame, _: int) -> Frame:
        return {**one, "depth_path": one.pop("depth_file_path")}

    assert_is_the_room(write(tmp_path, ngp, {key: 1 / 4000, "enable_depth_loading": True}, scale=1 / 4000))
    assert any(key in note for note in LAYOUTS["nerfstudio"].read(tmp_path).notes)


def test_a_depth_image_of_another_name_beside_the_images_is_found(tmp_path: Path):
    root = write(tmp_path, lambda one, _: {key: v for key, v in one.items() if key != "depth_file_path"})
    assert_is_the_room(root)
    for path in list((root / "depth").iterdir()):
        path.rename(path.with_name(f"{path.stem}.depth.png"))
    assert_is_the_room(root)


NAMES: dict[str, Callable[[str], str]] = {
    "exact": lambda name: name,
    "dot": lambda name: f"./{name}",
    "backslashes": lambda name: name.replace("/", "\\"),
    "dot and backslashes": lambda name: ".\\" + name.replace("/", "\\"),
    "no ending": lambda name: name.removesuffix(".png"),
    "upper-case ending": lambda name: name.replace(".png", ".PNG"),
    "other case": lambda name: name.replace("images/frame", "Images/FRAME").replace("depth/", "Depth/"),
    "other ending": lambda name: name.replace(".png", ".jpg"),
    "path of another machine": lambda name: f"/home/me/capture/{name}",
    "path of Windows": lambda name: "C:\\Users\\me\\" + name.replace("/", "\\"),
    "web address": lambda name: name.replace("_", "%5F"),
    "path from another folder": lambda name: f"../capture/{name}",
}


@pytest.mark.parametrize("kind", NAMES)
def test_files_are_found_however_they_are_named(tmp_path: Path, kind: str):
    def edit(one: Frame, _: int) -> Frame:
        depth = NAMES[kind](one["depth_file_path"]).replace(".jpg", ".tif")
        return {**one, "file_path": NAMES[kind](one["file_path"]), "depth_file_path": depth}

    root = write(tmp_path / "room", edit)
    assert_is_the_room(root)
    if kind in ("backslashes", "other case", "other ending", "path of another machine"):
        assert len(LAYOUTS["nerfstudio"].read(root).notes) > 2  # it is reported


def test_accents_are_found_in_either_form(tmp_path: Path):
    root = write(tmp_path, lambda one, _: {**one, "file_path": one["file_path"].replace("frame", "Küche")})
    for path in list((root / "images").iterdir()):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name.replace("frame", "Küche"))))
    assert_is_the_room(root)


def test_units_of_depth_in_frames_count_and_must_agree(tmp_path: Path):
    def per_frame(one: Frame, index: int) -> Frame:
        return {**one, "integer_depth_scale": 1 / 4000 if index < n_alike else 1 / 1000}

    n_alike = N
    assert_is_the_room(write(tmp_path / "a", per_frame, scale=1 / 4000))
    n_alike = 2
    with pytest.raises(SceneError, match="different units"):
        LAYOUTS["nerfstudio"].read(write(tmp_path / "b", per_frame))


def test_upper_case_endings_on_disk_are_found_without_any(tmp_path: Path):
    root = write(tmp_path, lambda one, _: {**one, "file_path": one["file_path"][:-4]})
    for path in list((root / "images").iterdir()):
        path.rename(path.with_name(path.name.replace("frame", "FRAME").replace(".png", ".PNG")))
    assert_is_the_room(root)


def test_three_causes_have_three_texts_with_the_first_path(tmp_path: Path):
    def refusal(root: Path) -> str:
        with pytest.raises(SceneError) as caught:
            LAYOUTS["nerfstudio"].read(root)
        return caught.value.message

    no_image = write(tmp_path / "a")
    shutil.rmtree(no_image / "images")
    no_depth = write(tmp_path / "b")
    shutil.rmtree(no_depth / "depth")
    never = write(tmp_path / "c", lambda one, _: {k: v for k, v in one.items() if k != "depth_file_path"})
    shutil.rmtree(never / "depth")
    assert f"the first is {no_image / 'images/frame_1.png'}" in refusal(no_image)
    assert f"the first is {no_depth / 'depth/frame_1.png'}" in refusal(no_depth)
    assert "names no depth" in refusal(never) and str(never / "images/frame_1.png") in refusal(never)


def test_what_is_missing_in_part_is_reported_with_its_path(tmp_path: Path):
    root = write(tmp_path)
    (root / "images/frame_2.png").unlink()
    (root / "depth/frame_3.png").unlink()
    recording = LAYOUTS["nerfstudio"].read(root)
    assert [one.color.name for one in recording.frames] == [
        str(root / f"images/frame_{i}.png") for i in (1, 4)
    ]
    assert str(root / "images/frame_2.png") in recording.repairs[0]
    assert str(root / "depth/frame_3.png") in recording.repairs[1]


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path):
    root = write(tmp_path)
    values = json.loads((root / "transforms.json").read_text())
    for old, new in ((3, 10), (4, 100)):
        for folder in ("images", "depth"):
            (root / f"{folder}/frame_{old}.png").rename(root / f"{folder}/frame_{new}.png")
        for key in ("file_path", "depth_file_path"):
            values["frames"][old - 1][key] = values["frames"][old - 1][key].replace(f"_{old}.", f"_{new}.")
    values["frames"].reverse()
    (root / "transforms.json").write_text(json.dumps(values))
    assert_is_the_room(root)


@pytest.mark.parametrize(
    ("head", "per_frame"),
    [
        ({"is_fisheye": True, "k1": 0.01}, {}),
        ({"camera_model": "OPENCV_FISHEYE"}, {}),
        ({"camera_model": "EQUIRECTANGULAR"}, {}),
        ({"camera_model": "THIN_PRISM_FISHEYE"}, {}),
        ({"k1": 0.01, "k4": 0.02}, {}),
        ({"ftheta_p1": 0.001}, {}),
        ({}, {"camera_model": "OPENCV_FISHEYE"}),
        ({}, {"is_fisheye": True}),
    ],
)
def test_a_lens_that_is_no_pinhole_is_refused(tmp_path: Path, head: Frame, per_frame: Frame):
    write(tmp_path, lambda one, _: {**one, **per_frame}, head)
    with pytest.raises(SceneError, match="pinhole") as caught:
        LAYOUTS["nerfstudio"].read(tmp_path)
    assert "undistort" in str(caught.value.fix) or "perspective" in str(caught.value.fix)


@pytest.mark.parametrize("model", ["OPENCV", "PINHOLE", "SIMPLE_RADIAL", "perspective", "FULL_OPENCV"])
def test_distortion_is_taken_and_said(tmp_path: Path, model: str):
    write(tmp_path, head={"camera_model": model, "k1": 0.1, "p2": -0.01, "is_fisheye": False, "k4": 0.0})
    recording = LAYOUTS["nerfstudio"].read(tmp_path)
    assert recording.frames[0].depth_intrinsics.distortion == (0.1, 0.0, 0.0, -0.01, 0.0)
    assert any("distortion" in note for note in recording.notes)


def test_angles_of_view_give_the_focal_lengths(tmp_path: Path):
    k, (width, height) = box_room.K, (box_room.WIDTH, box_room.HEIGHT)
    angles = {"camera_angle_x": 2 * np.arctan(width / 2 / k[0, 0])}
    angles["camera_angle_y"] = 2 * np.arctan(height / 2 / k[1, 1])
    write(tmp_path, head={"fl_x": None, "fl_y": None, "w": None, "h": None, **angles})
    assert_is_the_room(tmp_path)


def test_null_is_not_there_and_numbers_may_be_text(tmp_path: Path):
    write(tmp_path)
    values = json.loads((tmp_path / "transforms.json").read_text())
    nothing = dict.fromkeys(
        ("k1", "k2", "k3", "k4", "p1", "p2", "camera_model", "is_fisheye", "applied_scale",
         "applied_transform", "camera_angle_x", "depth_unit_scale_factor", "mask_path")
    )  # fmt: skip
    values |= {"w": f"{box_room.WIDTH}.0", "h": str(box_room.HEIGHT), "fl_x": str(values["fl_x"])} | nothing
    (tmp_path / "transforms.json").write_text(json.dumps(values))
    assert_is_the_room(tmp_path)
    values["w"] = "wide"
    (tmp_path / "transforms.json").write_text(json.dumps(values))
    with pytest.raises(SceneError, match="wide") as caught:
        LAYOUTS["nerfstudio"].read(tmp_path)
    assert "as numbers" in str(caught.value.fix)


def test_files_of_splits_are_read_together_and_doubles_once(tmp_path: Path):
    root = write(tmp_path, name="transforms_train.json")
    values = json.loads((root / "transforms_train.json").read_text())
    (root / "transforms_test.json").write_text(json.dumps({**values, "frames": values["frames"][2:]}))
    (root / "transforms_train.json").write_text(json.dumps({**values, "frames": values["frames"][:3]}))
    assert_is_the_room(root)
    assert any("there before" in repair for repair in LAYOUTS["nerfstudio"].read(root).repairs)
    assert len(LAYOUTS["nerfstudio"].read(root / "transforms_train.json").frames) == 3


def test_sdfstudio_has_poses_of_opencv_and_a_world_to_undo(tmp_path: Path):
    factor, shift = 0.25, np.array([0.1, -0.3, 0.2])
    frames = []
    for index, shot in enumerate(SHOTS):
        pose = shot.pose.copy()
        pose[:3, 3] = (pose[:3, 3] - shift) * factor
        color, depth = f"{index:06d}_rgb.png", f"{index:06d}_depth.png"
        box_room.save(shot, tmp_path / color, tmp_path / depth, 0.001 / factor)
        one = {"rgb_path": color, "sensor_depth_path": depth, "camtoworld": pose.tolist()}
        frames.append(one | {"intrinsics": box_room.K.tolist()})
    world = np.diag([1 / factor, 1 / factor, 1 / factor, 1.0])
    world[:3, 3] = shift
    head = {"camera_model": "OPENCV", "width": box_room.WIDTH, "height": box_room.HEIGHT}
    values = {**head, "worldtogt": world.tolist(), "frames": frames}
    (tmp_path / "meta_data.json").write_text(json.dumps(values))
    assert find(RgbdConfig(path=tmp_path)).scenes[0].layout == "nerfstudio"
    assert_is_the_room(tmp_path)


def given(path: Path) -> Path:
    (job,) = find(RgbdConfig(path=path)).scenes
    return job.path


def test_a_file_of_a_recording_stands_for_its_folder(tmp_path: Path):
    root = write(tmp_path / "room")
    for name in ("transforms.json", "depth/frame_1.png", "images/frame_2.png"):
        assert given(root / name) == root
        assert "room" in find(RgbdConfig(path=root / name)).notes[0]
    box_room.write_tum(tmp_path / "tum", box_room.shots(2))
    assert given(tmp_path / "tum/groundtruth.txt") == tmp_path / "tum"
    (root / "transforms.json").rename(root / "transforms_train.json")
    assert given(root / "transforms_train.json") == root / "transforms_train.json"
    assert find(RgbdConfig(path=root / "transforms_train.json")).scenes[0].name == "room"


@pytest.mark.parametrize(
    ("name", "word", "fix"),
    [
        ("capture.zip", "an archive", "unpack"),
        ("capture.tar.gz", "an archive", "unpack"),
        ("capture.r3d", "Record3D", "EXR"),
        ("room.bag", "log of a sensor", "generic"),
        ("room.MP4", "video", "depth"),
        ("scan.ply", "no recording", "ponder features"),
        ("notes.txt", "is a file", "give the folder"),
    ],
)
def test_a_file_that_is_no_recording_is_called_what_it_is(tmp_path: Path, name: str, word: str, fix: str):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SceneError, match=word) as caught:
        find(RgbdConfig(path=tmp_path / name))
    assert fix in str(caught.value.fix) and name in caught.value.message


@pytest.mark.parametrize(
    ("files", "fix"),
    [
        (("keyframes/corrected_cameras/1.json", "keyframes/depth/1.png"), "ns-process-data polycam"),
        (("EXR_RGBD/metadata.json", "EXR_RGBD/rgb/0.jpg"), "Record3D"),
        (("odometry.csv", "depth/000000.png", "rgb.mp4"), "Stray Scanner"),
        (("sparse/0/images.bin", "images/0.jpg"), "COLMAP"),
        (("capture.zip",), "unpack capture.zip"),
    ],
)
def test_exports_of_apps_say_which_way_leads_on(tmp_path: Path, files: tuple[str, ...], fix: str):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SceneError, match="no RGB-D recording") as caught:
        find(RgbdConfig(path=tmp_path if "sparse" not in files[0] else tmp_path / "sparse"))
    assert fix in str(caught.value.fix)


def test_a_folder_inside_a_recording_names_the_whole(tmp_path: Path):
    root = write(tmp_path / "room")
    with pytest.raises(SceneError) as caught:
        find(RgbdConfig(path=root / "images"))
    assert str(caught.value.fix).startswith(f"give {root}")


def test_a_name_of_thousands_of_digits_is_a_missing_image(tmp_path: Path):
    write(tmp_path, lambda one, index: {**one, "file_path": "9" * 5000} if index == 1 else one)
    recording = LAYOUTS["nerfstudio"].read(tmp_path)
    assert len(recording.frames) == N - 1 and "image is not there" in recording.repairs[0]
