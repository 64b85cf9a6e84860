"""Text of other programs: marks, line ends, comments, notations of numbers, against the values written."""

from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np
import pytest

from ponderv2.datasets.camera_text import read_intrinsics, read_matrix, read_pose
from ponderv2.errors import SceneError
from ponderv2.io.text import content_lines, decode_text, numbers, parse_json, read_json
from tests.scenes import box_room

POSE = box_room.poses(3)[2]
ROWS = "\n".join(" ".join(f"{x:.9f}" for x in row) for row in POSE) + "\n"
ENCODINGS = {
    "utf-8 mark": codecs.BOM_UTF8 + ROWS.encode(),
    "utf-16 little": codecs.BOM_UTF16_LE + ROWS.encode("utf-16-le"),
    "utf-16 big": codecs.BOM_UTF16_BE + ROWS.encode("utf-16-be"),
    "utf-16 without mark": ROWS.encode("utf-16-le"),
    "utf-32": codecs.BOM_UTF32_LE + ROWS.encode("utf-32-le"),
    "windows": ROWS.replace("\n", "\r\n").encode(),
    "old mac": ROWS.replace("\n", "\r").encode(),
    "blank lines": ("\n\n" + ROWS + "\n \n").encode(),
    "hash header": ("# camera to world\n" + ROWS).encode(),
    "matlab": ("% pose\n[" + ROWS.strip().replace("\n", ";\n") + "];\n").encode(),
    "slashes": ("// pose\n" + ROWS.replace("\n", " // row\n")).encode(),
    "commas": ROWS.replace(" ", ",").encode(),
    "tabs": ROWS.replace(" ", "\t").encode(),
    "decimal comma": ROWS.replace(".", ",").encode(),
    "decimal comma, semicolons": ROWS.replace(".", ",").replace(" ", ";").encode(),
    "numpy str": str(POSE).encode(),
    "numpy repr": repr(POSE.astype(np.float32)).encode(),
    "torch": f"tensor({POSE.tolist()}, dtype=torch.float64)".encode(),
    "python list": str(POSE.tolist()).encode(),
    "fortran": ROWS.replace("\n", "D+00\n").encode(),
    "unicode minus": ROWS.replace("-", "\u2212").encode(),
    "one line": ROWS.replace("\n", " ").encode(),
    "3x4": "\n".join(ROWS.split("\n")[:3]).encode(),
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_a_pose_is_read_as_written(tmp_path: Path, kind: str):
    (tmp_path / "pose.txt").write_bytes(ENCODINGS[kind])
    assert np.abs(read_pose(tmp_path / "pose.txt") - POSE).max() < 1e-7
    (tmp_path / "matrix.txt").write_bytes(ENCODINGS[kind])
    assert np.abs(read_matrix(tmp_path / "matrix.txt", (4, 4), (3, 4))[:3] - POSE[:3]).max() < 1e-7


def test_numbers_that_are_none_are_not_lost():
    found = numbers("1 nan -inf -1.#INF 1.#QNAN000 -1.#IND 2")
    assert found[[0, -1]].tolist() == [1.0, 2.0] and not np.isfinite(found[1:-1]).any() and len(found) == 7


def test_a_word_among_numbers_is_named():
    with pytest.raises(ValueError, match="north"):
        numbers("1 2 north")
    with pytest.raises(ValueError, match=r"\.\.\."):  # a printed array that was shortened
        numbers("[[1. 2. ... 3.]]")


def test_comments_end_lines_but_names_keep_their_signs():
    text = "1 rgb//a#1.png # first\n#2\n  % 3\n// 4\n100% sure\nhttp://host/x\n"
    assert content_lines(text) == ["1 rgb//a#1.png", "100% sure", "http://host/x"]


def test_marks_inside_joined_files_are_ignored():
    assert decode_text(b"\xef\xbb\xbf1\r\n\xef\xbb\xbf2\r", "x") == "1\n2\n"


@pytest.mark.parametrize("data", [b"\x00" * 20, b"\x00", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"])
def test_a_binary_file_is_called_so(data: bytes):
    with pytest.raises(SceneError, match=r"pose\.txt is a binary file"):
        decode_text(data, "pose.txt")


@pytest.mark.parametrize("kind", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_json_of_any_encoding_is_read(tmp_path: Path, kind: str):
    (tmp_path / "a.json").write_bytes('// made by hand\r\n{"name": "Küche",\r\n# one\r\n"w": 3}'.encode(kind))
    assert read_json(tmp_path / "a.json") == {"name": "Küche", "w": 3}


def test_wrong_json_is_located():
    with pytest.raises(SceneError, match=r"a\.json .*line 2 column 6"):
        parse_json('{"a": 1,\n "b" 2}', "a.json")


def test_whole_numbers_between_commas_are_no_decimal_fractions(tmp_path: Path):
    (tmp_path / "pose.txt").write_text("1,0,0,2\n0,1,0,3\n0,0,1,4\n0,0,0,1\n")
    assert read_pose(tmp_path / "pose.txt")[:3, 3].tolist() == [2.0, 3.0, 4.0]


def test_a_quaternion_in_a_pose_file_says_which_layout_reads_it(tmp_path: Path):
    (tmp_path / "0.txt").write_text("1 2 3 0 0 0.6 0.8\n")
    with pytest.raises(SceneError, match=r"0\.txt holds 7 numbers, a translation and a quaternion") as caught:
        read_pose(tmp_path / "0.txt")
    assert "--layout generic" in str(caught.value.fix)


MATRIX = np.array([[525.0, 0, 319.5], [0, 520.0, 239.5], [0, 0, 1]])


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff525 520 319.5 239.5\n",
        "# fx fy cx cy\n525, 520, 319.5, 239.5",
        "525,0 520,0 319,5 239,5",
        "525 0 319.5\n0 520 239.5\n0 0 1\n",
        "[[525.   0.  319.5]\n [  0.  520. 239.5]\n [  0.    0.    1. ]]",
        "525 0 319.5 0 0 520 239.5 0 0 0 1 0",
        "fx = 525\nfy = 520\ncx = 319.5\ncy = 239.5\n",
        "%YAML:1.0\n# Camera\nCamera.fx: 525.0\nCamera.fy: 520.0\nCamera.cx: 319.5\nCamera.cy: 239.5\n",
        '{"fx": 525, "fy": 520, "cx": 319.5, "cy": 239.5}',
        '{"fl_x": 525, "fl_y": 520, "cx": 320, "cy": 240, "w": 640, "h": 480}',
        '{"intrinsic_matrix": [525, 0, 0, 0, 520, 0, 319.5, 239.5, 1], "width": 640, "height": 480}',
        "525 520 319.5 239.5 0 0 0 0",
    ],
)
def test_a_camera_is_read_in_any_form(tmp_path: Path, text: str):
    (tmp_path / "k.txt").write_text(text)
    intrinsics = read_intrinsics(tmp_path / "k.txt")
    assert np.allclose(intrinsics.matrix, MATRIX) and not any(intrinsics.distortion)
    assert intrinsics.size == ((640, 480) if "640" in text else None)


def test_distortion_beside_the_focal_lengths_is_read(tmp_path: Path):
    (tmp_path / "k.txt").write_text("525 520 319.5 239.5 0.1 -0.2 0.001 0.002 0.3")
    assert read_intrinsics(tmp_path / "k.txt").distortion == (0.1, -0.2, 0.001, 0.002, 0.3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-481.2 480.0 319.5 239.5", "focal lengths -481.2 and 480"),
        ("525 0 0 0 525 0 319.5 239.5 1", "transposed"),
        ("0.82 1.09 0.5 0.5", "relative to the size"),
        ("525 525", "2 numbers"),
        ("fx: 525, fy: 520", "does not hold numbers"),
    ],
)
def test_a_camera_that_cannot_be_is_explained(tmp_path: Path, text: str, reason: str):
    (tmp_path / "k.txt").write_text(text)
    with pytest.raises(SceneError, match=reason):
        read_intrinsics(tmp_path / "k.txt")


@pytest.mark.parametrize("before", ["7\n", "7 7 8\n"], ids=["its number", "as in a trajectory.log"])
def test_whole_numbers_before_a_pose_are_left_out(tmp_path: Path, before: str):
    rows = "\n".join(" ".join(map(repr, map(float, row))) for row in POSE)
    (tmp_path / "pose.txt").write_text(before + rows)
    assert np.array_equal(read_pose(tmp_path / "pose.txt"), POSE)


CAMERAS = {
    "names and blanks": "fx 70\nfy 62\ncx 38.5\ncy 30.5\n",
    "a table": "fx,fy,cx,cy\n70,62,38.5,30.5\n",
    "a table with the size": "# width height fx fy cx cy\nwidth height fx fy cx cy\n80 60 70 62 38.5 30.5\n",
    "the size first": "80 60 70 62 38.5 30.5\n",
    "the size last": "70 62 38.5 30.5 80 60\n",
    "cameras.txt of COLMAP": "# Camera list\n#   CAMERA_ID, MODEL, WIDTH\n1 PINHOLE 80 60 70 62 39 31\n",
}


@pytest.mark.parametrize("form", CAMERAS)
def test_a_camera_in_every_usual_form_of_text(tmp_path: Path, form: str):
    (tmp_path / "camera.txt").write_text(CAMERAS[form])
    intrinsics = read_intrinsics(tmp_path / "camera.txt")
    assert np.allclose(intrinsics.matrix, [[70, 0, 38.5], [0, 62, 30.5], [0, 0, 1]])
    assert intrinsics.size == (None if form in ("names and blanks", "a table") else (80, 60))


def test_a_camera_of_colmap_with_one_focal_length(tmp_path: Path):
    (tmp_path / "cameras.txt").write_text("1 SIMPLE_PINHOLE 80 60 70 39 31\n")
    intrinsics = read_intrinsics(tmp_path / "cameras.txt")
    assert np.allclose(intrinsics.matrix, [[70, 0, 38.5], [0, 70, 30.5], [0, 0, 1]]) and intrinsics.size == (
        80,
        60,
    )


@pytest.mark.parametrize(
    "text", ["1 2 3 4 5 6", "1 PINHOLE 80 60 70 --", "1 PINHOLE 80 60 70", "80 60 70 62 0 0"]
)
def test_numbers_that_are_no_camera_are_refused_with_the_forms(tmp_path: Path, text: str):
    (tmp_path / "camera.txt").write_text(text)
    with pytest.raises(SceneError, match=r"camera\.txt"):
        read_intrinsics(tmp_path / "camera.txt")
