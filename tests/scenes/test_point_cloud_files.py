"""Files of other programs, written byte by byte, against the points that they hold."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.errors import SceneError
from ponderv2.io.pcd import lzf_unpacked, read_pcd
from ponderv2.reconstruction.fusion import load_open3d
from ponderv2.scenes.point_cloud_files import UP_AXES, read_cloud, read_cloud_with_notes, unit_vertex_normals

POINTS = [(0.5, 1.0, -2.0), (1.5, 0.25, 3.0), (4.0, 4.0, 4.0), (-1.0, 2.0, 0.0)]
COLORS = [(255, 0, 10), (1, 2, 3), (0, 255, 0), (7, 8, 9)]
NORMALS = [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.6, 0.8, 0.0)]


def pcd_header(form: str, fields: str = "x y z rgb", sizes: str = "4 4 4 4", kinds: str = "F F F F") -> bytes:
    n = len(POINTS)
    counts = " ".join("1" for _ in fields.split())
    lines = ["# .PCD v0.7", "VERSION 0.7", f"FIELDS {fields}", f"SIZE {sizes}", f"TYPE {kinds}"]
    lines += [f"COUNT {counts}", f"WIDTH {n}", "HEIGHT 1", "VIEWPOINT 0 0 0 1 0 0 0", f"POINTS {n}"]
    return ("\n".join([*lines, f"DATA {form}"]) + "\n").encode()


def packed(color: tuple[int, int, int]) -> bytes:
    red, green, blue = color
    return struct.pack("<I", red << 16 | green << 8 | blue)


def literal_lzf(data: bytes) -> bytes:
    """A valid LZF stream of nothing but literals."""
    return b"".join(bytes([len(data[i : i + 32]) - 1]) + data[i : i + 32] for i in range(0, len(data), 32))


def pcd_bytes(form: str) -> bytes:
    rows = [struct.pack("<3f", *p) + packed(c) for p, c in zip(POINTS, COLORS, strict=True)]
    if form == "ascii":
        floats = [struct.unpack("<f", packed(c))[0] for c in COLORS]
        text = [f"{x} {y} {z} {value!r}" for (x, y, z), value in zip(POINTS, floats, strict=True)]
        return pcd_header(form) + ("\n".join(text) + "\n").encode()
    if form == "binary":
        return pcd_header(form) + b"".join(rows)
    columns = [b"".join(struct.pack("<f", p[axis]) for p in POINTS) for axis in range(3)]
    body = b"".join(columns) + b"".join(packed(c) for c in COLORS)
    squeezed = literal_lzf(body)
    return pcd_header(form) + struct.pack("<II", len(squeezed), len(body)) + squeezed


@pytest.mark.parametrize("form", ["ascii", "binary", "binary_compressed"])
def test_every_kind_of_pcd_holds_the_points_and_packed_colours(tmp_path: Path, form: str):
    path = tmp_path / "cloud.pcd"
    path.write_bytes(pcd_bytes(form))
    cloud = read_cloud(path)
    assert torch.equal(cloud.coord, torch.tensor(POINTS))
    assert torch.equal(cloud.color, torch.tensor(COLORS, dtype=torch.float32))


def test_padding_and_whole_number_fields_of_a_pcd_are_passed_over(tmp_path: Path):
    header = pcd_header("binary", "x y z _ ring", "4 4 4 1 2", "F F F U U").replace(
        b"COUNT 1 1 1 1 1", b"COUNT 1 1 1 5 1"
    )
    rows = [struct.pack("<3f5BH", *p, *b"abcde", i) for i, p in enumerate(POINTS)]
    path = tmp_path / "cloud.pcd"
    path.write_bytes(header + b"".join(rows))
    fields = read_pcd(path)
    assert set(fields) == {"x", "y", "z", "ring"}
    assert fields["ring"].tolist() == [0, 1, 2, 3] and fields["y"].tolist() == [p[1] for p in POINTS]


def test_lzf_copies_may_overlap_what_they_write():
    # Three literal bytes, then 9 bytes from 3 back: abc three times more.
    assert lzf_unpacked(bytes([2]) + b"abc" + bytes([(7 << 5) | 0, 0, 2]), 12) == b"abc" * 4


def test_pcd_agrees_with_open3d(tmp_path: Path, rng: torch.Generator):
    open3d = load_open3d()
    coord = torch.rand(500, 3, generator=rng).double().numpy()
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(coord))
    cloud.colors = open3d.utility.Vector3dVector(np.round(coord * 255) / 255)
    path = tmp_path / "cloud.pcd"
    open3d.io.write_point_cloud(str(path), cloud, compressed=True)
    assert b"binary_compressed" in path.read_bytes()[:400]
    read = read_cloud(path)
    np.testing.assert_allclose(read.coord.numpy(), coord, atol=1e-6)
    np.testing.assert_allclose(read.color.numpy(), np.round(coord * 255), atol=1.0)


NUMBERS = [red << 16 | green << 8 | blue for red, green, blue in COLORS]
PACKED_TEXT: dict[str, tuple[str, list[str]]] = {
    "bits of a float": ("F", [repr(struct.unpack("<f", packed(c))[0]) for c in COLORS]),
    "a float of that value": ("F", [str(number) for number in NUMBERS]),
    "a float with decimals": ("F", [f"{number}.0" for number in NUMBERS]),
    "unsigned": ("U", [str(number) for number in NUMBERS]),
    "unsigned with alpha": ("U", [str(number + (255 << 24)) for number in NUMBERS]),
    "signed": ("I", [str(number) for number in NUMBERS]),
    "signed with alpha": ("I", [str(number + (255 << 24) - 2**32) for number in NUMBERS]),
    "hexadecimal": ("U", [hex(number) for number in NUMBERS]),
}


@pytest.mark.parametrize("kind", PACKED_TEXT)
@pytest.mark.parametrize("field", ["rgb", "rgba"])
def test_packed_colours_of_a_text_pcd_are_read_in_every_notation(tmp_path: Path, kind: str, field: str):
    letter, words = PACKED_TEXT[kind]
    rows = [f"{x} {y} {z} {word}" for (x, y, z), word in zip(POINTS, words, strict=True)]
    path = tmp_path / "cloud.pcd"
    header = pcd_header("ascii", f"x y z {field}", kinds=f"F F F {letter}")
    path.write_bytes(header + ("\n".join(rows) + "\n").encode())
    read = read_cloud_with_notes(path)
    assert torch.equal(read.cloud.coord, torch.tensor(POINTS))
    assert torch.equal(read.cloud.color, torch.tensor(COLORS, dtype=torch.float32))
    assert any("written as numbers" in note for note in read.notes) == (kind.startswith("a float"))


@pytest.mark.parametrize(("kind", "form"), [("F", "<d"), ("F", "<f"), ("U", "<I"), ("I", "<i")])
def test_packed_numbers_of_a_binary_pcd(tmp_path: Path, kind: str, form: str):
    size = struct.calcsize(form)
    header = pcd_header("binary", sizes=f"8 8 8 {size}", kinds=f"F F F {kind}")
    rows = [struct.pack("<3d", *p) + struct.pack(form, n) for p, n in zip(POINTS, NUMBERS, strict=True)]
    (tmp_path / "cloud.pcd").write_bytes(header + b"".join(rows))
    cloud = read_cloud(tmp_path / "cloud.pcd")
    assert torch.equal(cloud.coord, torch.tensor(POINTS))
    assert torch.equal(cloud.color, torch.tensor(COLORS, dtype=torch.float32))


def test_a_pcd_of_version_5_has_columns(tmp_path: Path):
    rows = "\n".join(" ".join(map(repr, point)) for point in POINTS)
    header = "# .PCD v.5\nVERSION .5\nCOLUMNS X Y Z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 4\nHEIGHT 1\nDATA ascii\n"
    (tmp_path / "cloud.pcd").write_text(header + rows)
    assert torch.equal(read_cloud(tmp_path / "cloud.pcd").coord, torch.tensor(POINTS))


def test_separate_channels_and_labels_of_a_pcd(tmp_path: Path):
    header = pcd_header("ascii", "x y z r g b label", "4 4 4 1 1 1 4", "F F F U U U U")
    rows = [" ".join(map(str, (*p, *c, i))) for i, (p, c) in enumerate(zip(POINTS, COLORS, strict=True))]
    (tmp_path / "cloud.pcd").write_bytes(header + "\n".join(rows).encode())
    cloud = read_cloud(tmp_path / "cloud.pcd")
    assert torch.equal(cloud.color, torch.tensor(COLORS, dtype=torch.float32))
    assert cloud.labels["segment"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("damage", ["short", "no header", "size"])
def test_a_damaged_pcd_is_named(tmp_path: Path, damage: str):
    good = pcd_bytes("binary_compressed")
    bad = {"short": good[:-9], "no header": b"xyz", "size": good.replace(b"POINTS 4", b"POINTS 9")}
    path = tmp_path / "cloud.pcd"
    path.write_bytes(bad[damage])
    with pytest.raises(SceneError, match=r"cloud\.pcd is not a whole PCD file"):
        read_cloud(path)


@pytest.mark.parametrize("n_columns", [3, 6, 9])
@pytest.mark.parametrize("ending", [".npy", ".xyz", ".csv", ".pts"])
def test_columns_of_arrays_and_text_are_position_colour_normal(tmp_path: Path, n_columns: int, ending: str):
    table = np.array([(*p, *c, *n) for p, c, n in zip(POINTS, COLORS, NORMALS, strict=True)])[:, :n_columns]
    path = tmp_path / f"cloud{ending}"
    if ending == ".npy":
        np.save(path, table.astype(np.float32))
    else:
        separator = "," if ending == ".csv" else " "
        head = {".csv": "x,y,z\n", ".pts": f"{len(table)}\n", ".xyz": "# a comment\n"}[ending]
        rows = [separator.join(f"{value:.9g}" for value in row) for row in table]
        path.write_text(head + "\n".join(rows) + "\n")
    cloud = read_cloud(path)
    assert torch.equal(cloud.coord, torch.tensor(POINTS))
    color = torch.tensor(COLORS, dtype=torch.float32) if n_columns > 3 else torch.full((4, 3), 127.5)
    assert torch.equal(cloud.color, color)
    if n_columns == 9:
        torch.testing.assert_close(cloud.normal, torch.tensor(NORMALS))
    torch.testing.assert_close(cloud.normal.norm(dim=1), torch.ones(4))


def test_what_is_missing_is_said(tmp_path: Path):
    path = tmp_path / "cloud.npy"
    np.save(path, np.array(POINTS))
    notes = " ".join(read_cloud_with_notes(path).notes)
    assert "no colours" in notes and "127.5" in notes and "no normals" in notes


def test_colours_from_0_to_1_are_told_from_0_to_255(tmp_path: Path):
    table = np.concatenate([np.array(POINTS), np.array(COLORS) / 255.0], axis=1)
    np.save(tmp_path / "cloud.npy", table)
    read = read_cloud_with_notes(tmp_path / "cloud.npy")
    torch.testing.assert_close(read.cloud.color, torch.tensor(COLORS, dtype=torch.float32))
    assert any("255" in note for note in read.notes)


@pytest.mark.parametrize("up", UP_AXES)
def test_the_up_axis_becomes_z_without_mirroring(tmp_path: Path, up: str):
    sign, axis = (-1.0 if up[0] == "-" else 1.0), "xyz".index(up[-1])
    basis = np.eye(3) * 1000.0
    table = np.concatenate([basis, np.full((3, 3), 9.0), np.eye(3)], axis=1)
    np.save(tmp_path / "cloud.npy", table)
    cloud = read_cloud(tmp_path / "cloud.npy", scale=0.001, up_axis=up)
    assert cloud.coord[axis].tolist() == [0.0, 0.0, sign]
    assert float(torch.linalg.det(cloud.coord)) == pytest.approx(1.0)
    assert torch.equal(cloud.normal, cloud.coord)


def test_points_without_a_position_are_left_out_and_counted(tmp_path: Path):
    table = np.array([*POINTS, (np.nan, 0.0, 0.0)])
    np.save(tmp_path / "cloud.npy", table)
    read = read_cloud_with_notes(tmp_path / "cloud.npy")
    assert read.finite.tolist() == [True] * 4 + [False] and len(read.cloud) == 4
    with pytest.raises(SceneError, match="1 of 5 points"):
        read_cloud(tmp_path / "cloud.npy")


def test_normals_of_faces_are_those_of_a_tilted_plane():
    coord = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1], [5, 5, 5]])
    normal = unit_vertex_normals(coord, np.array([[0, 1, 2], [1, 3, 2]]))
    expected = np.array([0.0, -1.0, 1.0]) / np.sqrt(2.0)
    np.testing.assert_allclose(normal[:4], np.tile(expected, (4, 1)), atol=1e-12)
    assert not normal[4].any()


@pytest.mark.parametrize("name", ["cloud.las", "cloud.npy", "cloud.xyz"])
def test_files_that_are_no_clouds_are_refused_in_one_sentence(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b"certainly not points\n1 2\n")
    with pytest.raises(SceneError, match=name.replace(".", r"\.")):
        read_cloud(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_packed_colours_of_a_structured_array_in_either_order_of_bytes(tmp_path: Path, order: str):
    packed = np.array([(r << 16) | (g << 8) | b for r, g, b in COLORS], np.uint32).view(np.float32)
    values = np.zeros(len(POINTS), [(name, f"{order}f4") for name in ("x", "y", "z", "rgb")])
    for axis, column in zip("xyz", np.array(POINTS).T, strict=True):
        values[axis] = column
    values["rgb"] = packed
    np.save(tmp_path / "cloud.npy", values)
    assert read_cloud(tmp_path / "cloud.npy").color.tolist() == [list(map(float, one)) for one in COLORS]


PLY_HEAD = "ply\nformat ascii 1.0\nelement vertex 4\n" + "".join(
    f"property {kind} {name}\n"
    for kind, names in (("float", "xyz"), ("uchar", ("red", "green", "blue")))
    for name in names
)
PCD_HEAD = "FIELDS x y z r g b\nSIZE 4 4 4 1 1 1\nTYPE F F F U U U\nWIDTH 4\nHEIGHT 1\nPOINTS 4\n"
PLACES = np.array([[0.5, -1.25, 2.0], [1.5, 2.25, 0.125], [3.0, -0.5, 1.0], [0.25, 0.75, -2.5]])
SHADES = np.array([[1, 2, 3], [40, 50, 60], [255, 0, 7], [8, 9, 10]])
NOTATIONS = {
    "decimal comma": (lambda text: text.replace(".", ","), 0),
    "a minus of typography": (lambda text: text.replace("-", "\u2212"), 0),
    "exponents of Fortran": (lambda text: text.replace("2.25", "0.225D+01"), 0),
    "nan of Windows": (lambda text: text.replace("0.5 ", "-nan(ind) ", 1), 1),
    "older nan of Windows": (lambda text: text.replace("0.5 ", "1.#QNAN ", 1), 1),
    "nan and decimal comma": (lambda text: text.replace("0.5 ", "1.#IND ", 1).replace(".", ","), 1),
    "the end of a DOS file": (lambda text: text + "\x1a", 0),
    "zeros of a crash behind the end": (lambda text: text + "\0" * 40, 0),
}


@pytest.mark.parametrize("kind", NOTATIONS)
@pytest.mark.parametrize("ending", ["ply", "pcd", "xyz"])
def test_every_notation_of_numbers_is_read_in_every_kind_of_text(tmp_path: Path, ending: str, kind: str):
    rows = [
        " ".join(map(str, [*place, *shade]))
        for place, shade in zip(PLACES.tolist(), SHADES.tolist(), strict=True)
    ]
    change, n_lost = NOTATIONS[kind]
    heads = {"ply": PLY_HEAD + "end_header\n", "pcd": PCD_HEAD + "DATA ascii\n", "xyz": ""}
    (tmp_path / f"a.{ending}").write_text(heads[ending] + change("\n".join(rows) + "\n"), encoding="utf-8")
    cloud = read_cloud_with_notes(tmp_path / f"a.{ending}").cloud
    np.testing.assert_array_equal(cloud.coord.numpy(), PLACES[n_lost:])
    np.testing.assert_array_equal(cloud.color.numpy(), SHADES[n_lost:])
