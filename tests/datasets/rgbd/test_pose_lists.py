"""Lists of poses in every usual form, read back against the poses that were written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ponderv2.datasets.camera_text import read_intrinsics
from ponderv2.datasets.rgbd.pose_lists import read_poses
from ponderv2.errors import SceneError
from tests.scenes import box_room

POSES = np.stack(box_room.poses(6))
T, Q = POSES[:, :3, 3], Rotation.from_matrix(POSES[:, :3, :3]).as_quat()
WXYZ = np.roll(Q, 1, axis=1)
TIMES = [f"{1305031102.1753 + index / 30:.6f}" for index in range(6)]


def lines(*columns: np.ndarray, keys: list[str] | None = None, sep: str = " ", digits: int = 9) -> str:
    """A text of one line a pose."""
    rows = np.concatenate([one.reshape(6, -1) for one in columns], axis=1)
    words = [[f"{x:.{digits}f}" for x in row] for row in rows]
    words = [[key, *row] for key, row in zip(keys, words, strict=True)] if keys else words
    return "\n".join(sep.join(row) for row in words) + "\n"


def blocks(matrices: np.ndarray, heads: list[str] | None = None, between: str = "\n") -> str:
    parts = ["\n".join(" ".join(f"{x:.9f}" for x in row) for row in one) for one in matrices]
    parts = [f"{head}\n{part}" for head, part in zip(heads, parts, strict=True)] if heads else parts
    return between.join(parts) + "\n"


EUROC = (
    "#timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], "
    "q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], v_x\n"
)
SEVENS = [str(7 * i) for i in range(6)]
SPEED = np.ones((6, 1))
FILES = [f"rgb/{index:04d}.png" for index in range(6)]
STEMS = tuple(f"{index:04d}" for index in range(6))
ROWS34, R9 = POSES[:, :3], POSES[:, :3, :3].reshape(6, 9)
FORMS: dict[str, tuple[str, str, tuple[str, ...] | None]] = {
    # text, order of the quaternion as written, names
    "t q": (lines(T, Q), "xyzw", None),
    "t q, w first": (lines(T, WXYZ), "wxyz", None),
    "q t": (lines(Q, T), "xyzw", None),
    "TUM": ("# ground truth\n" + lines(T, Q, keys=TIMES), "xyzw", tuple(TIMES)),
    "TUM with names": ("# timestamp tx ty tz qx qy qz qw\n" + lines(T, Q, keys=TIMES), "xyzw", tuple(TIMES)),
    "named, w first": (
        "timestamp,tx,ty,tz,qw,qx,qy,qz\n" + lines(T, WXYZ, keys=TIMES, sep=","), "named", tuple(TIMES)
    ),
    "named, q first": ("# qw qx qy qz x y z\n" + lines(WXYZ, T), "named", None),
    "EuRoC": (EUROC + lines(T, WXYZ, SPEED, keys=[f"{i}00000" for i in range(6)], sep=","), "named",
              tuple(f"{i}00000" for i in range(6))),
    "Stray Scanner": (
        "timestamp, frame, x, y, z, qx, qy, qz, qw\n"
        + "\n".join(f"{t}, {i:06d}, " + row for i, (t, row) in enumerate(
            zip(TIMES, lines(T, Q, sep=", ").strip().split("\n"), strict=True))),
        "named", tuple(f"{i:06d}" for i in range(6)),
    ),
    "image names": (lines(T, Q, keys=FILES), "xyzw", STEMS),
    "names last": ("\n".join(f"{row} {name}" for row, name in zip(
        lines(ROWS34).strip().split("\n"), FILES, strict=True)), "", STEMS),
    "KITTI": (lines(ROWS34), "", None),
    "3x4 with commas": (lines(ROWS34, sep=", "), "", None),
    "3x4 with decimal commas": (lines(ROWS34).replace(".", ","), "", None),
    "number and 3x4": (lines(ROWS34, keys=SEVENS), "", tuple(SEVENS)),
    "R then t": (lines(R9, T), "", None),
    "t then R": (lines(T, R9), "", None),
    "4x4 a line": (lines(POSES), "", None),
    "4x4 by columns": (lines(POSES.transpose(0, 2, 1)), "", None),
    "time and 4x4": (lines(POSES, keys=TIMES), "", tuple(TIMES)),
    "with their count": ("6\n" + lines(POSES), "", None),
    "4x4 over lines": (blocks(POSES), "", None),
    "4x4 over lines, apart": (blocks(POSES, between="\n\n"), "", None),
    "3x4 over lines": (blocks(ROWS34), "", None),
    "by columns over lines": (blocks(POSES.transpose(0, 2, 1)), "", None),
    "log": (blocks(POSES, [f"{i} {i} {i + 1}" for i in range(6)]), "", tuple(map(str, range(6)))),
    "numpy": ("\n".join(str(one) for one in POSES), "", None),
    "python lists": ("\n".join(str(one.tolist()) for one in POSES), "", None),
    "windows": ("\ufeff" + lines(T, Q).replace("\n", "\r\n"), "xyzw", None),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_poses_back(tmp_path: Path, form: str):
    text, order, names = FORMS[form]
    (tmp_path / "poses.txt").write_bytes(text.encode())
    found = read_poses(tmp_path / "poses.txt")
    assert found.names == names
    assert found.order == ("xyzw" if order == "named" or form == "TUM with names" else None)
    order = "xyzw" if order == "named" else order
    assert np.abs(found.matrices(order or "xyzw") - POSES).max() < 2e-8
    if order:
        other = found.matrices("wxyz" if order == "xyzw" else "xyzw")
        assert np.abs(other - POSES).max() > 0.1


def test_numbers_of_few_digits_and_lost_poses_are_still_poses(tmp_path: Path):
    rows = lines(T, Q, keys=TIMES, digits=3).strip().split("\n")
    rows[2] = f"{TIMES[2]} nan nan nan nan nan nan nan"
    rows[4] = f"{TIMES[4]} 0 0 0 0 0 0 0"
    (tmp_path / "poses.txt").write_text("\n".join(rows))
    found = read_poses(tmp_path / "poses.txt").matrices("xyzw")
    assert np.isnan(found[[2, 4]]).all()
    assert np.abs(found[[0, 1, 3, 5]] - POSES[[0, 1, 3, 5]]).max() < 3e-3


def test_a_line_that_was_cut_off_loses_its_pose_alone(tmp_path: Path):
    text = lines(T, Q, keys=TIMES)
    (tmp_path / "poses.txt").write_text(text[: text.rindex(" ")])
    found = read_poses(tmp_path / "poses.txt")
    assert found.names == tuple(TIMES) and "1 damaged" in found.form
    assert np.isnan(found.matrices("xyzw")[5]).all()
    assert np.abs(found.matrices("xyzw")[:5] - POSES[:5]).max() < 1e-8


def test_a_number_that_does_not_vary_is_no_name(tmp_path: Path):
    (tmp_path / "poses.txt").write_text(lines(T, Q, keys=["0"] * 6))
    assert read_poses(tmp_path / "poses.txt").names is None


FOLDERS: dict[str, Callable[[np.ndarray], str]] = {
    "4x4": lambda pose: str(pose),
    "3x4": lambda pose: " ".join(map(str, pose[:3].ravel())),
    "t q": lambda pose: " ".join(map(str, [*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()])),
}


@pytest.mark.parametrize("form", FOLDERS)
def test_a_folder_of_pose_files_is_one_list(tmp_path: Path, form: str):
    for index in (0, 1, 2, 10, 11, 12):
        pose = POSES[[0, 1, 2, 10, 11, 12].index(index)]
        (tmp_path / f"frame_{index}.txt").write_text(FOLDERS[form](pose))
    (tmp_path / "frame_2.txt").write_text("")
    found = read_poses(tmp_path)
    assert found.names == tuple(f"frame_{index}" for index in (0, 1, 2, 10, 11, 12))
    kept = [0, 1, 3, 4, 5]
    assert np.abs(found.matrices("xyzw")[kept] - POSES[kept]).max() < 1e-7
    assert np.isnan(found.matrices("xyzw")[2]).all()


JSON_POSES = {
    "Polycam": lambda pose: {
        f"t_{row}{column}": pose[row, column] for row in range(3) for column in range(4)
    },
    "a matrix": lambda pose: {"transform_matrix": pose.tolist(), "blur": 3},
    "a list": lambda pose: pose.tolist(),
}


@pytest.mark.parametrize("form", JSON_POSES)
def test_a_folder_of_json_files_with_one_pose_each(tmp_path: Path, form: str):
    for index, pose in enumerate(POSES):
        values = JSON_POSES[form](pose)
        camera = {"fx": 70.0, "fy": 62.0, "cx": 38.5, "cy": 30.5, "width": 80, "height": 60}
        values = values | camera if isinstance(values, dict) else values
        (tmp_path / f"{1680000000 + index}.json").write_text(json.dumps(values))
    found = read_poses(tmp_path)
    assert found.names == tuple(str(1680000000 + index) for index in range(len(POSES)))
    assert np.abs(found.matrices("xyzw") - POSES).max() < 1e-12


def test_the_poses_of_record3d_are_read_from_its_metadata(tmp_path: Path):
    values = {"K": [70.0, 0, 0, 0, 62.0, 0, 38.5, 30.5, 1], "w": 80, "h": 60, "fps": 60}
    values["poses"] = np.concatenate([Q, T], axis=1).tolist()
    (tmp_path / "metadata.json").write_text(json.dumps(values))
    assert np.abs(read_poses(tmp_path / "metadata.json").matrices("xyzw") - POSES).max() < 1e-9
    intrinsics = read_intrinsics(tmp_path / "metadata.json")
    assert np.array_equal(intrinsics.matrix, box_room.K) and intrinsics.size == (80, 60)


def test_decimal_commas_are_known_beside_points_of_comments_and_of_names(tmp_path: Path):
    rows = [f"{n:04d}.png " + " ".join(f"{x:.9f}" for x in row) for n, row in enumerate(np.hstack([T, Q]))]
    text = "\n".join(row[:8] + row[8:].replace(".", ",") for row in rows)
    (tmp_path / "poses.txt").write_text(f"# written by version 1.2 of a tracker\n{text}\n")
    found = read_poses(tmp_path / "poses.txt")
    assert found.names == tuple(f"{n:04d}" for n in range(len(T)))
    assert np.abs(found.matrices("xyzw") - POSES).max() < 1e-8


@pytest.mark.parametrize("shape", [(6, 4, 4), (6, 3, 4), (6, 16)])
def test_an_array_of_poses_is_read(tmp_path: Path, shape: tuple[int, ...]):
    values = POSES if shape[-1] != 4 or shape[1] == 4 else POSES[:, :3]
    np.save(tmp_path / "poses.npy", values.reshape(shape))
    assert np.abs(read_poses(tmp_path / "poses.npy").matrices("xyzw") - POSES).max() < 1e-12


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no poses"),
        ("1 2 3\n4 5 6\n", "different length"),
        ("0.28\ufffd0.\n", "no poses"),
        (blocks(POSES).replace(" 1.000000000", " ."), "not a pose"),
        ("# timestamp tx ty tz qx qy qz qw\n1 2 3 4 5 6 7 8\n" + "1 2 3 4 5 6 7\n" * 20, "no four of them"),
        (lines(T, Q * 3), "no four of them"),
        (lines(T, T, T[:, :1]), "no four of them"),
        (lines(R9 * 2 + 1, T), "no rotation"),
        ("1 2 3 4 5 6\n" * 4, "6 numbers a line"),
        ("a b c d e f g\n" * 3, "not a pose"),
        (blocks(POSES).rsplit("\n", 2)[0] + "\n", "no whole matrices"),
        (lines(T, Q) + lines(POSES), "different length"),
    ],
)
def test_what_is_no_list_of_poses_says_why(tmp_path: Path, text: str, reason: str):
    (tmp_path / "poses.txt").write_text(text)
    with pytest.raises(SceneError, match=reason) as caught:
        read_poses(tmp_path / "poses.txt")
    assert "poses.txt" in caught.value.message and "7 numbers" in str(caught.value.fix)
