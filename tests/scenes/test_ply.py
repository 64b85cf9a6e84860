"""PLY files: round trip, other dialects, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ponderv2.errors import SceneError
from ponderv2.scenes.ply import encode_ply, read_ply

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.5]], np.float32)
FACES = np.array([[0, 1, 2], [1, 3, 2]])
COLORS = np.arange(12, dtype=np.uint8).reshape(4, 3)


def test_what_is_written_is_read(tmp_path: Path):
    (tmp_path / "a.ply").write_bytes(encode_ply(VERTICES, VERTICES, FACES, COLORS))
    ply = read_ply(tmp_path / "a.ply")
    assert np.array_equal(ply.columns("x", "y", "z"), VERTICES)
    assert np.array_equal(ply.columns("nx", "ny", "nz"), VERTICES)
    assert np.array_equal(ply.columns("red", "green", "blue"), COLORS)
    assert np.array_equal(ply.faces, FACES)
    assert ply.columns("label") is None


def test_text_and_polygons_are_read(tmp_path: Path):
    lines = ["ply", "format ascii 1.0", "element vertex 4", *(f"property float {axis}" for axis in "xyz")]
    lines += ["element face 1", "property list uchar int vertex_indices", "end_header"]
    lines += [" ".join(map(str, row)) for row in VERTICES.tolist()] + ["4 0 1 3 2"]
    (tmp_path / "a.ply").write_text("\n".join(lines))
    ply = read_ply(tmp_path / "a.ply")
    assert np.array_equal(ply.faces, [[0, 1, 3], [0, 3, 2]])


def test_another_reader_agrees(tmp_path: Path):
    import trimesh

    (tmp_path / "a.ply").write_bytes(encode_ply(VERTICES, None, FACES, COLORS))
    mesh = trimesh.load(tmp_path / "a.ply", process=False)
    assert np.array_equal(mesh.vertices, VERTICES) and np.array_equal(mesh.faces, FACES)


@pytest.mark.parametrize("kept", [0, 3, 60, -1, -10, -40])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int):
    (tmp_path / "cut.ply").write_bytes(encode_ply(VERTICES, VERTICES, FACES, COLORS)[:kept])
    with pytest.raises(SceneError, match=r"cut\.ply"):
        read_ply(tmp_path / "cut.ply")


@pytest.mark.parametrize(
    ("old", "new"), [(b"vertex 4", b"vertex 1000000000"), (b"face 2", b"face -7"), (b"float x", b"blob x")]
)
def test_a_lying_header_is_refused(tmp_path: Path, old: bytes, new: bytes):
    (tmp_path / "lie.ply").write_bytes(encode_ply(VERTICES, None, FACES).replace(old, new))
    with pytest.raises(SceneError, match=r"lie\.ply"):
        read_ply(tmp_path / "lie.ply")
