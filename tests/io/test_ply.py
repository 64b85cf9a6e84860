"""PLY files: round trip, other dialects, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ponderv2.errors import SceneError
from ponderv2.io.ply import encode_ply, read_ply
from ponderv2.scenes.point_cloud_files import read_cloud, read_cloud_with_notes

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


RNG = np.random.default_rng(8)
POINTS = RNG.random((30, 3)).astype(np.float32)
BYTES = RNG.integers(0, 256, (30, 3))
CORNERS = RNG.integers(0, 30, (12, 3))
QUALITY = RNG.random(12).astype(np.float32)


def header(form: str, *elements: str) -> str:
    return "\n".join(["ply", f"format {form} 1.0", *elements, "end_header"]) + "\n"


def vertices(coord: str = "float", color: str = "uchar", names: str = "red green blue") -> list[str]:
    found = ["element vertex 30", *(f"property {coord} {axis}" for axis in "xyz")]
    return found + [f"property {color} {name}" for name in names.split()]


def faces(*before_and_after: str, at: int = 0) -> list[str]:
    found = [f"property {one}" for one in before_and_after]
    found.insert(at, "property list uchar int vertex_indices")
    return ["element face 12", *found]


def vertex_lines(end: str = "") -> str:
    rows = zip(POINTS.tolist(), BYTES.tolist(), strict=True)
    return "".join(" ".join([*map(repr, point), *map(str, color)]) + end + "\n" for point, color in rows)


def vertex_bytes(color: str = "u1", factor: float = 1.0, more: tuple = ()) -> np.ndarray:
    table = np.zeros(30, [("coord", "<f4", 3), ("color", color, 3), *more])
    table["coord"], table["color"] = POINTS, BYTES * factor
    return table


LITTLE = "binary_little_endian"
UVS = "6 .1 .2 .3 .4 .5 .6"
TEXT_FACES = {
    "texture coordinates behind": (faces("list uchar float texcoord", at=0), "{corners} " + UVS),
    "texture coordinates before": (faces("list uchar float texcoord", at=1), UVS + " {corners}"),
    "quality": (faces("float quality"), "{corners} 0.75"),
    "colours and flags": (
        faces("uchar red", "uchar green", "uchar blue", "uchar alpha", "int flags"), "{corners} 9 8 7 255 -3",
    ),
    "a number before": (faces("int material", at=1), "5 {corners}"),
    "texture number": (faces("list uchar float texcoord", "int texnumber"), "{corners} " + UVS + " 0"),
    "lists of two lengths": (faces("list uchar float texcoord"), "{corners} {uvs}"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TEXT_FACES)
def test_faces_are_read_by_their_declared_properties(tmp_path: Path, kind: str):
    declared, form = TEXT_FACES[kind]
    rows = [
        form.format(corners=" ".join(map(str, [3, *face])), uvs=UVS if index % 2 else "0")
        for index, face in enumerate(CORNERS.tolist())
    ]
    body = vertex_lines() + "\n".join(rows) + "\n"
    (tmp_path / "a.ply").write_text(header("ascii", *vertices(), *declared) + body)
    ply = read_ply(tmp_path / "a.ply")
    assert np.array_equal(ply.faces, CORNERS)
    np.testing.assert_array_equal(ply.columns("x", "y", "z"), POINTS)
    np.testing.assert_array_equal(ply.columns("red", "green", "blue"), BYTES)


@pytest.mark.parametrize("first", [False, True])
def test_binary_faces_with_texture_coordinates_agree_with_another_reader(tmp_path: Path, first: bool):
    import trimesh

    lists = [("n", "u1"), ("corner", "<i4", 3), ("m", "u1"), ("uv", "<f4", 6)]
    lists = [*lists[2:], *lists[:2]] if first else lists
    table = np.zeros(12, [*lists, ("quality", "<f4")])
    table["n"], table["corner"], table["m"], table["uv"], table["quality"] = 3, CORNERS, 6, 0.25, QUALITY
    declared = faces("list uchar float texcoord", "float quality", at=int(first))
    data = header(LITTLE, *vertices(), *declared).encode() + vertex_bytes().tobytes() + table.tobytes()
    (tmp_path / "a.ply").write_bytes(data)
    assert np.array_equal(read_ply(tmp_path / "a.ply").faces, CORNERS)
    if not first:
        mesh = trimesh.load(tmp_path / "a.ply", process=False)
        assert np.array_equal(mesh.vertices[mesh.faces], POINTS[CORNERS])  # it drops unused vertices


RAW = vertex_bytes().tobytes()
DIALECTS: dict[str, bytes] = {
    "CR LF": (header("ascii", *vertices()) + vertex_lines()).replace("\n", "\r\n").encode(),
    "CR alone": (header("ascii", *vertices()) + vertex_lines()).replace("\n", "\r").encode(),
    "binary behind CR LF": header(LITTLE, *vertices()).replace("\n", "\r\n").encode() + RAW,
    "binary behind CR": header(LITTLE, *vertices()).replace("\n", "\r").encode() + RAW,
    "byte order mark": b"\xef\xbb\xbf" + (header("ascii", *vertices()) + vertex_lines()).encode(),
    "end_header in a comment": (
        header("ascii", "comment the end_header line is below", *vertices()) + vertex_lines()
    ).encode(),
    "capitals": (
        header(LITTLE, *vertices(names="Red Green Blue")).replace("float x", "float X")
    ).encode() + RAW,
    "keywords in capitals": (
        header("ASCII", *vertices()).replace("property", "PROPERTY") + vertex_lines()
    ).encode(),
    "wrapped lines": (header("ascii", *vertices()) + vertex_lines().replace(" ", "\n")).encode(),
    "one long line": (header("ascii", *vertices()) + vertex_lines().replace("\n", " ")).encode(),
    "more on a line than declared": (header("ascii", *vertices()) + vertex_lines(end=" 255")).encode(),
    "a list among the vertices": (
        header(LITTLE, *vertices(), "property list uchar int views").encode()
        + b"".join(row.tobytes() + b"\2" + np.array([1, 2], "<i4").tobytes() for row in vertex_bytes())
    ),
    "lists of several lengths": (
        header(LITTLE, *vertices(), "property list uchar int views").encode()
        + b"".join(
            row.tobytes() + bytes([i % 3]) + np.arange(i % 3, dtype="<i4").tobytes()
            for i, row in enumerate(vertex_bytes())
        )
    ),
    "a list among vertices of text": (
        header("ascii", *vertices(), "property list uchar int views") + vertex_lines(end=" 2 7 8")
    ).encode(),
    "another element before": (
        header(
            LITTLE, "element camera 1", "property float f", "property list uchar float k", *vertices()
        ).encode()
        + np.float32(1).tobytes() + b"\3" + bytes(12) + RAW
    ),
    "float colours": (
        header(LITTLE, *vertices(color="float")).encode() + vertex_bytes("<f4", 1 / 255).tobytes()
    ),
    "16-bit colours": header(LITTLE, *vertices(color="ushort")).encode() + vertex_bytes("<u2", 257).tobytes(),
    "diffuse colours": (
        header(LITTLE, *vertices(names="diffuse_red diffuse_green diffuse_blue")).encode()
        + RAW
    ),
    "colours 0..1 declared as bytes": (
        header("ascii", *vertices())
        + "\n".join(
            " ".join(map(repr, [*point, *color]))
            for point, color in zip(POINTS.tolist(), (BYTES / 255).tolist(), strict=True)
        )
    ).encode(),
}  # fmt: skip


@pytest.mark.parametrize("kind", DIALECTS)
def test_every_dialect_gives_the_same_points_and_colours(tmp_path: Path, kind: str):
    (tmp_path / "a.ply").write_bytes(DIALECTS[kind])
    cloud = read_cloud(tmp_path / "a.ply")
    np.testing.assert_array_equal(cloud.coord.numpy(), POINTS)
    np.testing.assert_allclose(cloud.color.numpy(), BYTES, atol=1e-3)


def test_big_endian_doubles_and_large_lists(tmp_path: Path):
    table = np.zeros(30, [("coord", ">f8", 3), ("color", "u1", 3)])
    table["coord"], table["color"] = POINTS, BYTES
    rows = np.concatenate([np.full((12, 1), 3), CORNERS], axis=1).astype(">u4")
    head = header(
        "binary_big_endian", *vertices("double"), "element face 12", "property list uint uint vertex_index"
    )
    (tmp_path / "a.ply").write_bytes(head.encode() + table.tobytes() + rows.tobytes())
    ply = read_ply(tmp_path / "a.ply")
    assert np.array_equal(ply.columns("x", "y", "z"), POINTS) and np.array_equal(ply.faces, CORNERS)


def test_strips_become_triangles_of_one_orientation(tmp_path: Path):
    square = b"".join(
        np.array(point, "<f4").tobytes() for point in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0))
    )
    head = ["element vertex 4", *(f"property float {axis}" for axis in "xyz")]
    head += ["element tristrips 1", "property list int int vertex_indices"]
    strip = np.array([8, 0, 1, 2, 3, -1, 0, 1, 3], "<i4").tobytes()
    (tmp_path / "a.ply").write_bytes(header(LITTLE, *head).encode() + square + strip)
    ply = read_ply(tmp_path / "a.ply")
    corner = ply.columns("x", "y", "z")[ply.faces].astype(float)
    up = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])[:, 2]
    assert len(ply.faces) == 3 and (up > 0).all()


def test_splats_have_the_colours_of_their_constant_term(tmp_path: Path):
    names = ["nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(9)), "opacity"]
    table = np.zeros((30, 3 + len(names)), "<f4")
    table[:, :3], table[:, 6:9] = POINTS, (BYTES / 255 - 0.5) * 2 * np.sqrt(np.pi)
    head = ["element vertex 30", *(f"property float {name}" for name in ("x", "y", "z", *names))]
    (tmp_path / "a.ply").write_bytes(header(LITTLE, *head).encode() + table.tobytes())
    read = read_cloud_with_notes(tmp_path / "a.ply")
    np.testing.assert_allclose(read.cloud.color.numpy(), BYTES, atol=1e-3)
    assert "f_dc" in " ".join(read.notes) and not any("no colours" in note for note in read.notes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("property float x", "property blob x", "unknown type 'blob'"),
        ("property float z", "property float zz", "no x, y, z but: x, y, zz"),
        ("element vertex", "element point", "no element 'vertex'"),
        ("format ascii", "format xml", "unknown format"),
        ("property uchar green", "property uchar Red", "several properties called 'red'"),
    ],
)
def test_what_another_copy_would_not_mend_is_not_blamed_on_the_copy(
    tmp_path, old: str, new: str, message: str
):
    (tmp_path / "a.ply").write_text((header("ascii", *vertices()) + vertex_lines()).replace(old, new))
    with pytest.raises(SceneError, match=message) as problem:
        read_ply(tmp_path / "a.ply")
    assert "copy" not in (problem.value.fix or "")


@pytest.mark.parametrize("form", ["ascii", LITTLE])
def test_truncated_lists_are_refused(tmp_path: Path, form: str):
    rows = "".join(" ".join(map(str, [3, *face])) + "\n" for face in CORNERS.tolist())
    table = np.zeros(12, [("n", "u1"), ("corner", "<i4", 3)])
    table["n"], table["corner"] = 3, CORNERS
    body = (vertex_lines() + rows).encode() if form == "ascii" else RAW + table.tobytes()
    data = header(form, *vertices(), *faces()).encode() + body
    for cut in (len(data) - 9, len(data) - len(rows) // 2, len(data) - len(body) // 2):
        (tmp_path / "a.ply").write_bytes(data[:cut])
        with pytest.raises(SceneError, match=r"a\.ply is not a whole PLY file"):
            read_ply(tmp_path / "a.ply")
