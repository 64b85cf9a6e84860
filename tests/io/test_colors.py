"""One rule for colours, against the 8-bit colours that were written in each range."""

from __future__ import annotations

import numpy as np
import pytest
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.io.colors import NO_COLOR, colors_of_harmonics, no_colors, read_colors

SEED = np.random.default_rng(5)
TRUTH = SEED.integers(0, 256, (400, 3))
TRUTH[0], TRUTH[1] = 0, 255

WRITTEN: dict[str, tuple[ndarray, str]] = {
    "uchar": (TRUTH.astype(np.uint8), "0..255"),
    "char that wrapped around": (TRUTH.astype(np.uint8).view(np.int8), "0..255"),
    "int": (TRUTH.astype(np.int32), "0..255"),
    "8 bits in ushort": (TRUTH.astype(np.uint16), "0..255"),
    "float 0..255": (TRUTH.astype(np.float32), "0..255"),
    "half 0..255": (TRUTH.astype(np.float16), "0..255"),
    "ushort": ((TRUTH * 257).astype(np.uint16), "0..65535"),
    "16 bits in float": (TRUTH * 257.0, "0..65535"),
    "16 bits in int": ((TRUTH * 257).astype(np.int64), "0..65535"),
    "8 bits shifted by 8": ((TRUTH * 256).astype(np.uint16), "0..65280"),
    "8 bits shifted by 8, in double": (TRUTH * 256.0, "0..65280"),
    "float 0..1": ((TRUTH / 255).astype(np.float32), "0..1"),
    "float -1..1": (TRUTH / 127.5 - 1, "-1..1"),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_range_gives_back_the_colours_that_were_written(kind: str):
    values, expected = WRITTEN[kind]
    read = read_colors(values, "cloud.ply")
    assert read.range == expected
    np.testing.assert_array_equal(read.as_bytes(), TRUTH)
    assert read.color.dtype == np.float32
    assert bool(read.notes) == (
        kind not in ("uchar", "char that wrapped around", "int", "float 0..255", "half 0..255")
    )


def test_two_digits_of_0_to_1_are_right_to_a_step():
    read = read_colors(np.round(TRUTH / 255, 2), "cloud.xyzrgb")
    assert read.range == "0..1" and np.abs(read.color - TRUTH).max() <= 255 * 0.005 + 1e-3


def test_grey_is_repeated_and_alpha_left_out():
    grey = read_colors(TRUTH[:, :1].astype(np.uint8), "a.png")
    np.testing.assert_array_equal(grey.color, np.repeat(TRUTH[:, :1], 3, axis=1))
    for one in (np.uint8(255), np.float64(1.0)):
        rgba = np.concatenate([TRUTH, np.full((400, 1), one)], axis=1).astype(one.dtype)
        rgba[7, 3] = 0
        read = read_colors(rgba, "a.png")
        np.testing.assert_array_equal(read.color, TRUTH)


def test_opaque_alpha_does_not_decide_the_range_of_the_colours():
    rgba = np.concatenate([TRUTH / 255, np.full((400, 1), 255.0)], axis=1)
    read = read_colors(rgba, "a.ply")
    np.testing.assert_array_equal(read.as_bytes(), TRUTH)


def test_a_declared_range_does_not_look_at_the_numbers():
    dark = np.array([[[0, 3, 200]]], np.uint16)
    read = read_colors(dark, "dark.png", declared="0..65535")
    np.testing.assert_allclose(read.color, dark / 257, atol=1e-5)


def test_missing_colours_are_grey_and_counted():
    values = TRUTH / 255
    values[3] = np.nan
    marked = TRUTH.astype(np.int32)
    marked[3] = -1
    for one in (values, marked):
        read = read_colors(one, "a.ply")
        assert (read.color[3] == NO_COLOR).all() and any("1 points" in note for note in read.notes)
        np.testing.assert_array_equal(np.delete(read.as_bytes(), 3, 0), np.delete(TRUTH, 3, 0))
    assert (no_colors(2).color == NO_COLOR).all() and no_colors(2).notes


def test_one_highlight_or_damaged_number_does_not_decide():
    unit, bytes_ = TRUTH / 255, TRUTH.astype(np.float64)
    unit[5, 0], bytes_[5, 0] = 3.5, 60000.0
    assert read_colors(unit, "a.ply").range == "0..1"
    read = read_colors(bytes_, "a.ply")
    assert read.range == "0..255" and read.color[5, 0] == 255
    assert any("cut off" in note for note in read.notes)


def test_small_overshoots_of_interpolation_are_cut_off():
    assert read_colors(np.array([[-0.01, 0.4, 1.02]]), "a.ply").color[0].tolist() == [0, 102, 255]
    over = np.concatenate([TRUTH.astype(np.float64), [[-3.5, 100.5, 258.25]]])
    assert read_colors(over, "a.ply").color[-1].tolist() == [0, 100.5, 255]
    assert read_colors(np.array([[0, 100, 256]]), "a.ply").color[0].tolist() == [0, 100, 255]


def test_what_two_ranges_explain_is_noted():
    black_or_red = read_colors(np.array([[0.0, 0, 0], [1, 0, 0]]), "cad.xyz")
    assert black_or_red.color[1].tolist() == [255, 0, 0] and "0 and 1" in black_or_red.notes[0]
    dark = read_colors(np.array([[0, 0, 0], [1, 0, 0]], np.uint8), "dark.ply")
    assert dark.color[1].tolist() == [1, 0, 0] and "almost black" in dark.notes[0]
    few_bits = read_colors(TRUTH.astype(np.uint16) * 4, "ten_bits.txt")
    assert few_bits.range == "0..65535" and "too dark" in few_bits.notes[0]


@pytest.mark.parametrize(
    "values",
    [
        [[-2048.0, 3, 2047]],  # intensity
        [[0.5, 1e6, 3]],
        [[-128, 3, 5]],
        [[-20.5, -3.5, 1.25], [4.0, -8.5, 3.5]],
    ],
)
def test_numbers_that_are_no_colours_are_refused(values: list[list[float]]):
    with pytest.raises(SceneError, match=r"cloud\.xyz.*none of 0\.\.255"):
        read_colors(np.array(values), "cloud.xyz")
    with pytest.raises(SceneError, match="expected 1 to 4"):
        read_colors(np.zeros((2, 5)), "cloud.xyz")


def test_colours_of_splats_are_those_of_the_constant_harmonic():
    # Y_0^0 = 1 / (2 sqrt(pi))
    constant = (TRUTH / 255 - 0.5) * 2 * np.sqrt(np.pi)
    read = colors_of_harmonics(constant.astype(np.float32))
    np.testing.assert_array_equal(read.as_bytes(), TRUTH)
    assert colors_of_harmonics(np.array([[9.0, -9, 0]])).color.tolist() == [[255, 0, 127.5]]
    assert "f_dc" in read.notes[0]
