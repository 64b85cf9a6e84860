"""Text of S3DIS: numbers against Python's own, damaged lines against what was meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponderv2.datasets.s3dis.room import BLOCK, parse_points, read_angles, read_points
from ponderv2.errors import SceneError
from ponderv2.io.text import parse_rows

SOUND = b"1.000 2.000 3.000 10 20 30\n"
FILE = Path("/data/Area_5/hallway_6/Annotations/ceiling_1.txt")
FORMS = ("%.3f %.3f %.3f %d %d %d", "%f %f %f %f %f %f", "%g %g %g %d %d %d", "%.1f %.7f %.0f %d %.2f %d")


@pytest.mark.parametrize("form", FORMS)
@given(
    st.lists(
        st.tuples(*[st.integers(-99_999, 99_999)] * 3, *[st.integers(0, 255)] * 3), min_size=1, max_size=30
    )
)
@settings(max_examples=25, deadline=None)
def test_numbers_are_those_that_python_reads(form: str, rows: list[tuple[int, ...]]):
    lines = [form % (*(one / 1000 for one in row[:3]), *row[3:]) for row in rows]
    expected = np.array([[float(word) for word in line.split()] for line in lines])
    found = parse_rows("".join(f"{line}\n" for line in lines).encode(), 6)
    if found is not None:  # it may decline, and the careful way is taken
        assert np.array_equal(found.T, expected)
    points = parse_points("\n".join(lines).encode(), FILE)
    assert np.array_equal(points.coord, expected[:, :3])
    assert np.array_equal(points.color, expected[:, 3:].astype(np.uint8))
    assert points.repairs == ()


def test_the_usual_forms_are_read_the_quick_way():
    rng = np.random.default_rng(0)
    for form in FORMS[:3]:
        rows = [(*rng.integers(-99_000, 99_000, 3) / 1000, *rng.integers(0, 256, 3)) for _ in range(200)]
        assert parse_rows("".join(form % row + "\n" for row in rows).encode(), 6) is not None


@given(st.text(alphabet="0123456789.-+e \n\t\x00\x16", max_size=60))
@settings(max_examples=150, deadline=None)
def test_the_quick_way_never_reads_what_python_does_not(text: str):
    found = parse_rows(text.encode() + b"\n", 6)
    if found is not None:
        lines = text.split("\n")
        lines = lines[:-1] if lines[-1] == "" and len(lines) > found.shape[1] else lines
        expected = [[float(word) for word in line.split(" ")] for line in lines]
        assert np.array_equal(found.T, np.array(expected))


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (b"19.302 -9.1\x160 1.785 146 137 106", (19.302, -9.10, 1.785, 146, 137, 106)),
        (b"22.359 6.692 3.048 155 185\x00187", (22.359, 6.692, 3.048, 155, 185, 187)),
        (b"22.1 3.2 3.3 180.000000 103.0\x100000 12.000000", (22.1, 3.2, 3.3, 180, 103, 12)),
        (b"22.1 3.2 3.3 167.\x1000000 103.000000 12.000000", (22.1, 3.2, 3.3, 167, 103, 12)),
        (b"1 2 3 103.0 0000 5 6", (1, 2, 3, 103, 5, 6)),
        (b"\xef\xbb\xbf1 2 3 4 5 6", (1, 2, 3, 4, 5, 6)),
        (b"1 2 3 4 5", None),
        (b"1 2 3 85 1 87 6", None),
        (b"1 2 3 4 5 256", None),
        (b"1 2 3 4 nan 5", None),
        (b"1 2 3 \x00\x00\x00\x00\x00\x00\x00\x00", None),
    ],
)
def test_a_damaged_line_is_what_was_meant_or_is_dropped(line: bytes, meant: tuple[float, ...] | None):
    points = parse_points(SOUND * 3 + line + b"\n" + SOUND * 2, FILE)
    rows = np.concatenate([points.coord, points.color], axis=1)
    around = [(1, 2, 3, 10, 20, 30)]
    assert rows.tolist() == [
        list(map(float, row)) for row in [*around * 3, *([meant] if meant else []), *around * 2]
    ]
    (told,) = points.repairs
    assert told.startswith("Area_5/hallway_6/Annotations/ceiling_1.txt line 4: '")
    assert ("read as" in told) == (meant is not None) and ("dropped" in told) == (meant is None)


def test_what_was_there_and_what_was_read_are_told():
    (told,) = parse_points(SOUND * 2 + b"22.359 6.692 3.048 155 185\x00187\n", FILE).repairs
    assert told.endswith(
        "line 3: '22.359 6.692 3.048 155 185\\x00187' read as '22.359 6.692 3.048 155 185 187'"
    )


def test_the_number_of_a_damaged_line_counts_all_lines_before_it():
    n_before = 3 * BLOCK // len(SOUND) + 11
    points = parse_points(SOUND * n_before + b"1 2\x07 3 4 5 6\n" + SOUND * n_before, FILE)
    assert len(points.coord) == 2 * n_before + 1
    assert f" line {n_before + 1}: " in points.repairs[0] and len(points.repairs) == 1


def test_other_line_ends_tabs_and_blank_lines_are_no_damage():
    points = parse_points(b"\n1\t2 3 4 5 6\r\n 1.5  2 3 4 5 6 \r\n\n\n7 8 9 1 2 3", FILE)
    assert points.coord.tolist() == [[1, 2, 3], [1.5, 2, 3], [7, 8, 9]] and points.repairs == ()


def test_many_damaged_lines_are_counted():
    told = parse_points((SOUND + b"1 2 3\n") * 30 + SOUND * 10, FILE).repairs
    assert len(told) == 21 and told[-1] == "ceiling_1.txt: 10 more damaged lines"


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    path = tmp_path / "wall_1.txt"
    path.write_bytes(b"<html>not found</html>\n" * 4)
    with pytest.raises(SceneError, match="is not a list of points: 4 of 4 lines"):
        read_points(path)
    with pytest.raises(SceneError, match="cannot read"):
        read_points(tmp_path / "wall_2.txt")


def test_angles_are_read_past_their_header(tmp_path: Path):
    path = tmp_path / "Area_1_alignmentAngle.txt"
    path.write_text("## Global angle\n##Disjoint Space\noffice_1 90\n\nhallway_2 0\n")
    assert read_angles(path) == {"office_1": 90.0, "hallway_2": 0.0}
    path.write_text("office_1 ninety\n")
    with pytest.raises(SceneError, match="line 1: 'office_1 ninety' is not"):
        read_angles(path)
