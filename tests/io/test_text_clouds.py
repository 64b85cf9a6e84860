"""Text and arrays of points as other programs write them, against the points that were written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.io.colors import NO_COLOR
from ponderv2.scenes.point_cloud_files import read_cloud, read_cloud_with_notes

RNG = np.random.default_rng(3)
N = 60
P = RNG.normal(size=(N, 3)).round(4) * 3
C = RNG.integers(0, 256, (N, 3))
V = RNG.normal(size=(N, 3))
V /= np.linalg.norm(V, axis=1, keepdims=True)
LABEL = RNG.integers(0, 13, N)
INTENSITY = RNG.integers(-2048, 2048, N)


def lines(*columns: ndarray, form: str = "%.6f", separator: str = " ") -> str:
    """Whole numbers without, others with decimals."""
    table = [np.atleast_2d(column.T).T for column in columns]
    rows = []
    for row in range(N):
        words = [
            str(int(value)) if column.dtype.kind in "iu" else form % value
            for column in table
            for value in column[row]
        ]
        rows.append(separator.join(words))
    return "\n".join(rows) + "\n"


def with_comma(text: str) -> str:
    return text.replace(".", ",")


FULL, XYZRGB = (P, V, C), (P, C)
UTM = np.array([555813.25, 5385888.5, 1185.75])
THOUSANDS = "".join(
    " ".join([*(f"{one:,.6f}" for one in point), *map(str, color)]) + "\n"
    for point, color in zip((P + UTM).tolist(), C.tolist(), strict=True)
)
WRITTEN: dict[str, tuple[str, str, str]] = {
    # file name, text, what is in it
    "CloudCompare, names after //": ("a.txt", "//X Y Z Nx Ny Nz R G B\n" + lines(*FULL), "cn"),
    "CloudCompare, names and a count": ("a.asc", f"//X Y Z R G B\n{N}\n" + lines(*XYZRGB), "c"),
    "CloudCompare, float colours": ("a.txt", "//X Y Z Rf Gf Bf\n" + lines(P, C / 255), "c"),
    "CloudCompare, scalar fields": (
        "a.txt", "//X Y Z R G B scalar_Intensity Classification\n" + lines(*XYZRGB, INTENSITY, LABEL), "cl",
    ),
    "MeshLab, normals": ("a.xyz", lines(P, V), "n"),
    "Open3D xyzn": ("a.xyzn", lines(P, V, form="%.10f"), "n"),
    "Open3D xyzrgb": ("a.xyzrgb", lines(P, C / 255, form="%.10f"), "c"),
    "unnamed, colours and normals": ("a.xyz", lines(P, C, V), "cn"),
    "unnamed, normals and colours": ("a.xyz", lines(P, V, C), "cn"),
    "Metashape": ("a.txt", lines(P, C, V, separator="\t"), "cn"),
    "RealityCapture": ("a.csv", "#x;y;z;r;g;b\n" + lines(*XYZRGB, separator=";"), "c"),
    "names in any order": ("a.csv", "R,G,B,Z,Y,X\n" + lines(C, P[:, ::-1], separator=","), "c"),
    "names in quotes": ("a.csv", '"X","Y","Z","Red","Green","Blue"\n' + lines(*XYZRGB, separator=","), "c"),
    "names with units": ("a.csv", "X [m], Y [m], Z [m], R, G, B\n" + lines(*XYZRGB, separator=", "), "c"),
    "an index before": (
        "a.csv", "Point ID,X,Y,Z,Red,Green,Blue\n" + lines(np.arange(N), P, C, separator=","), "c",
    ),
    "ParaView": (
        "a.csv",
        '"RGB:0","RGB:1","RGB:2","Points:0","Points:1","Points:2"\n' + lines(C, P, separator=","),
        "c",
    ),
    "pandas with labels": ("a.csv", "x,y,z,red,green,blue,label\n" + lines(P, C, LABEL, separator=","), "cl"),
    "Leica, intensity before colours": ("a.pts", f"{N}\n" + lines(P, INTENSITY, C), "c"),
    "Leica, intensity as positive as colours": (
        "a.pts", f"{N}\n" + lines(P, np.abs(INTENSITY) % 256, C), "c",
    ),
    "Leica, intensity alone": ("a.pts", f"{N}\n" + lines(P, INTENSITY), ""),
    "Leica, two scans": (
        "a.pts",
        f"{N // 2}\n" + "\n".join(lines(P, INTENSITY, C).split("\n")[: N // 2]) + f"\n{N - N // 2}\n"
        + "\n".join(lines(P, INTENSITY, C).split("\n")[N // 2 :]),
        "c",
    ),
    "FARO, intensity between": ("a.xyz", lines(P, INTENSITY, C), "c"),
    "reflectance 0..1 between": ("a.txt", lines(P, (INTENSITY + 2048) / 4096, C), "c"),
    "S3DIS-like with labels": ("a.txt", lines(P, C, LABEL), "cl"),
    "decimal comma, semicolons": ("a.csv", "X;Y;Z;R;G;B\n" + with_comma(lines(*XYZRGB, separator=";")), "c"),
    "decimal comma, blanks": ("a.xyz", with_comma(lines(*XYZRGB)), "c"),
    "decimal comma, blanks, a comment": (
        "a.xyz", with_comma(lines(*XYZRGB)).replace("\n", " # station 1.2\n", 1), "c",
    ),
    "decimal comma, tabs": ("a.txt", with_comma(lines(*XYZRGB, separator="\t")), "c"),
    "decimal comma in quotes": (
        "a.csv",
        "X,Y,Z,R,G,B\n" + "".join(
            '"' + with_comma(line).replace(" ", '","') + '"\n' for line in lines(*XYZRGB).splitlines()
        ),
        "c",
    ),
    "thousands with commas": ("a.txt", THOUSANDS, "c"),
    "thousands with commas, tabs": ("a.txt", THOUSANDS.replace(" ", "\t"), "c"),
    "thousands with points, decimal commas": (
        "a.csv", THOUSANDS.replace(" ", ";").translate(str.maketrans(",.", ".,")), "c",
    ),
    "byte order mark": ("a.csv", "\ufeff" + lines(*XYZRGB, separator=","), "c"),
    "mark before names": ("a.csv", "\ufeffX,Y,Z,R,G,B\n" + lines(*XYZRGB, separator=","), "c"),
    "CR LF": ("a.xyz", lines(*XYZRGB).replace("\n", "\r\n"), "c"),
    "CR alone": ("a.xyz", lines(*XYZRGB).replace("\n", "\r"), "c"),
    "comments of three kinds": (
        "a.xyz", "# one\n// two\n% three\n" + lines(*XYZRGB).replace("\n", "  # more\n"), "c",
    ),
    "names in a comment": ("a.xyz", "# x y z nx ny nz\n" + lines(P, V), "n"),
    "a title": ("a.xyz", "exported by a scanner\n\n" + lines(*XYZRGB), "c"),
    "separators at the ends": ("a.csv", lines(*XYZRGB, separator=";").replace("\n", ";\n"), "c"),
    "blanks of all lengths": ("a.xyz", lines(*XYZRGB).replace(" ", "    ").replace("\n", "   \n\n"), "c"),
    "16 bits": ("a.txt", lines(P, C * 257), "c"),
    "words in a column": (
        "a.csv", "x,y,z,r,g,b,kind\n" + lines(*XYZRGB, separator=",").replace("\n", ",wall\n"), "c",
    ),
    "notations of Fortran": ("a.xyz", lines(P, form="%.6E").replace("E", "D"), ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_form_gives_back_the_points_that_were_written(tmp_path: Path, kind: str):
    name, text, contents = WRITTEN[kind]
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8"))
    read = read_cloud_with_notes(path)
    coord = read.cloud.coord.double().numpy() + read.origin - (UTM if "thousands" in kind else 0)
    np.testing.assert_allclose(coord, P, atol=2e-6)
    expected = C if "c" in contents else np.full((N, 3), NO_COLOR)
    np.testing.assert_allclose(read.cloud.color.numpy(), expected, atol=2e-4)
    assert ("no colours" in " ".join(read.notes)) == ("c" not in contents)
    assert ("no normals" in " ".join(read.notes)) == ("n" not in contents)
    if "n" in contents:
        np.testing.assert_allclose(read.cloud.normal.numpy(), V, atol=2e-6)
    if "l" in contents:
        assert np.array_equal(read.cloud.labels["segment"].numpy(), LABEL)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig"])
def test_encodings_of_spreadsheets_are_read(tmp_path: Path, encoding: str):
    (tmp_path / "a.csv").write_bytes(("X;Y;Z\n" + lines(P, separator=";")).encode(encoding))
    np.testing.assert_allclose(read_cloud(tmp_path / "a.csv").coord.numpy(), P, atol=2e-6)


@pytest.mark.parametrize("broken_after", [3, 1])
def test_points_over_several_lines_are_joined(tmp_path: Path, broken_after: int):
    rows = [line.split() for line in lines(*XYZRGB).splitlines()]
    pieces = [[" ".join(row[:broken_after]), " ".join(row[broken_after:])] for row in rows]
    body = "\n".join(piece for pair in pieces for piece in pair)
    for head in ("x y z r g b\n", f"{N}\n"):
        (tmp_path / "a.txt").write_text(head + body)
        if broken_after == 1:  # the first line of a point is no longer known by its three numbers
            with pytest.raises(SceneError, match=r"a\.txt"):
                read_cloud(tmp_path / "a.txt")
            continue
        cloud = read_cloud(tmp_path / "a.txt")
        np.testing.assert_allclose(cloud.coord.numpy(), P, atol=2e-6)
        np.testing.assert_array_equal(cloud.color.numpy(), C)


def test_empty_fields_are_colours_that_are_missing(tmp_path: Path):
    rows = lines(*XYZRGB, separator=",").splitlines()
    rows[4] = ",".join(rows[4].split(",")[:3]) + ",,,"
    (tmp_path / "a.csv").write_text("x,y,z,r,g,b\n" + "\n".join(rows))
    read = read_cloud_with_notes(tmp_path / "a.csv")
    np.testing.assert_allclose(read.cloud.coord.numpy(), P, atol=2e-6)
    assert (read.cloud.color[4] == NO_COLOR).all() and any(
        "1 points have no colour" in one for one in read.notes
    )


REFUSED: dict[str, tuple[str, str]] = {
    "commas and points": (with_comma(lines(P)) + lines(P), "decimal commas and others decimal points"),
    "a line is cut off": (lines(*XYZRGB)[:-12], rf"line {N}: [345] numbers, other lines have 6"),
    "a word": (lines(*XYZRGB).replace(" ", " x", 2), r"line 1: 'x.*is no number"),
    "two commas for one": (with_comma(lines(P, separator=",", form="%.2f")), "commas separate the numbers"),
    "more names than columns": ("x y z r g b nx ny nz\n" + lines(*XYZRGB)[:-1], "names 9 columns"),
    "degrees": ("lat,lon,alt\n" + lines(P, separator=","), "degrees"),
    "a raster": ("ncols 60\nnrows 3\n" + lines(P), "raster"),
    "six columns that are nothing": (lines(P, P * 1e4), "can be colours or normals"),
    "no numbers": ("not a cloud\n1 2\n", "no line of three numbers"),
    "a binary file": ("\0\1\2\3" * 40, "binary"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_understood_is_refused_with_the_place(tmp_path: Path, kind: str):
    text, message = REFUSED[kind]
    (tmp_path / "a.txt").write_bytes(text.encode())
    with pytest.raises(SceneError, match=message) as problem:
        read_cloud(tmp_path / "a.txt")
    assert "a.txt" in problem.value.message and problem.value.fix and "copy" not in problem.value.fix


def test_what_two_readings_explain_is_noted(tmp_path: Path):
    def notes(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return " ".join(read_cloud_with_notes(tmp_path / name).notes)

    assert "unit length: read as normals" in notes("a.xyz", lines(P, V))
    assert "columns 5 to 7 were read as colours" in notes("a.pts", lines(P, INTENSITY, C))
    assert "columns 4 to 6 were read as colours" in notes("a.txt", lines(P, C, LABEL))
    assert "promises 61 points and holds 60" in notes("b.pts", "61\n" + lines(P))
    assert "names no x, y, z" in notes("c.txt", "alpha beta gamma\n" + lines(P))
    flat = np.tile([0.0, 0.0, 1.0], (N, 1))
    assert "if they are colours" in notes("d.xyz", lines(P, flat))


ARRAYS: dict[str, Callable[[], ndarray]] = {
    "half": lambda: np.c_[P.astype(np.float16), C],
    "columns first": lambda: np.asfortranarray(np.c_[P, C]),
    "labels": lambda: np.c_[P, C, LABEL],
    "whole numbers": lambda: np.c_[(P * 1000).round().astype(np.int64), C],
    "named": lambda: np.rec.fromarrays([*C.astype(np.uint8).T, *P.T], names="red,green,blue,x,y,z"),
    "three numbers a field": lambda: np.rec.fromarrays(
        [P, C.astype(np.uint8)], dtype=[("xyz", "f8", 3), ("rgb", "u1", 3)]
    ),
    "other names": lambda: np.rec.fromarrays(
        [P, C / 255, V], dtype=[("position", "f8", 3), ("color", "f8", 3), ("normal", "f4", 3)]
    ),
    "a batch of one": lambda: np.c_[P, C][None],
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_are_read_by_columns_or_by_names(tmp_path: Path, kind: str):
    values = ARRAYS[kind]()
    np.save(tmp_path / "a.npy", values)
    cloud = read_cloud(tmp_path / "a.npy", scale=0.001 if kind == "whole numbers" else 1.0)
    tolerance = {"half": 2e-2, "whole numbers": 1e-3}.get(kind, 1e-6)
    np.testing.assert_allclose(cloud.coord.numpy(), P, atol=tolerance)
    np.testing.assert_allclose(cloud.color.numpy(), C, atol=1e-4)
    assert ("segment" in cloud.labels) == (kind == "labels")


SMOOTH = np.clip(60 + 40 * P @ [[1, 0.8, 1.1], [0.2, 0.3, 0.1], [0.1, 0.1, 0.2]], 0, 255).astype(np.int64)
"""Colours whose channels rise and fall alike, as those of lit surfaces do."""
RASTER = np.stack(np.divmod(np.arange(N) * 7, 40), axis=1)


@pytest.mark.parametrize(
    ("before", "note"),
    [
        ((np.arange(N),), "column 1 numbers the points"),
        ((np.arange(1, N + 1),), "column 1 numbers the points"),
        ((np.arange(1000, 1000 + N),), "column 1 numbers the points"),
        ((RASTER,), "row and column of a scan"),
    ],
    ids=["from 0", "from 1", "from 1000", "row and column"],
)
@pytest.mark.parametrize("contents", ["", "c"])
def test_numbers_before_the_points_are_no_coordinates(
    tmp_path: Path, before: tuple, note: str, contents: str
):
    (tmp_path / "a.txt").write_text(lines(*before, *(XYZRGB if contents else (P,)), separator=","))
    read = read_cloud_with_notes(tmp_path / "a.txt")
    np.testing.assert_allclose(read.cloud.coord.double().numpy() + read.origin, P, atol=2e-6)
    np.testing.assert_allclose(read.cloud.color.numpy(), C if contents else NO_COLOR)
    assert any(note in one for one in read.notes)


@pytest.mark.parametrize("columns", [(RASTER, P[:, 2]), (RASTER, P[:, 2], C), (RASTER, P[:, 2], C / 255)])
def test_a_raster_of_heights_keeps_its_coordinates(tmp_path: Path, columns: tuple):
    (tmp_path / "a.xyz").write_text(lines(*columns))
    read = read_cloud_with_notes(tmp_path / "a.xyz")
    truth = np.column_stack([RASTER, P[:, 2]])
    np.testing.assert_allclose(read.cloud.coord.double().numpy() + read.origin, truth, atol=2e-5)


@pytest.mark.parametrize(("low", "high"), [(0, 13), (0, 256)], ids=["class", "intensity"])
@pytest.mark.parametrize("name", ["a.txt", "a.pts"])
def test_channels_of_one_colour_go_together(tmp_path: Path, low: int, high: int, name: str):
    """Four columns that all could be channels: the three are taken that rise and fall alike."""
    extra = np.random.default_rng(8).integers(low, high, N)
    for columns in ((P, extra, SMOOTH), (P, SMOOTH, extra)):
        (tmp_path / name).write_text(lines(*columns))
        np.testing.assert_array_equal(read_cloud(tmp_path / name).color.numpy(), SMOOTH)


def test_channels_that_do_not_tell_are_noted_with_the_other_reading(tmp_path: Path):
    (tmp_path / "a.txt").write_text(lines(P, C, LABEL))
    notes = " ".join(read_cloud_with_notes(tmp_path / "a.txt").notes)
    assert "columns 4 to 6 were read as colours" in notes and "columns 5 to 7 could be the colours" in notes


def test_columns_of_unknown_names_are_named(tmp_path: Path):
    head = "X coordinate, Y coordinate, Z coordinate, Red value, Green value, Blue value\n"
    (tmp_path / "a.csv").write_text(head + lines(*XYZRGB, separator=", "))
    read = read_cloud_with_notes(tmp_path / "a.csv")
    assert (read.cloud.color == NO_COLOR).all()
    assert any("red_value, green_value, blue_value" in one for one in read.notes)


def test_a_transposed_array_is_named(tmp_path: Path):
    np.save(tmp_path / "a.npy", P.T)
    with pytest.raises(SceneError, match="expected points of 3 to 12 columns") as problem:
        read_cloud(tmp_path / "a.npy")
    assert problem.value.fix == "store its transpose"
