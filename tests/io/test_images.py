"""Colour and depth images in the files that people have: what a pixel is, what is hidden, what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ponderv2.errors import SceneError
from ponderv2.io.depth_images import read_depth
from ponderv2.io.images import decode_integers, encode_mask, read_image, read_visible, transposed

RNG = np.random.default_rng(0)
MM = RNG.integers(400, 7000, (24, 32)).astype(np.uint16)
"""Depth in millimetres."""
RGB = RNG.integers(0, 256, (24, 32, 3)).astype(np.uint8)


def save(path: Path, values: np.ndarray, **options) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


def pgm(path: Path, values: np.ndarray, maximum: int, kind: str = "P5", comment: str = "") -> Path:
    head = f"{kind}\n{comment}{values.shape[1]} {values.shape[0]}\n{maximum}\n".encode()
    if kind == "P5":
        body = values.astype(">u2" if maximum > 255 else "u1").tobytes()
    else:
        body = "\n".join(" ".join(map(str, row)) for row in values).encode()
    path.write_bytes(head + body)
    return path


# Depth -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maximum", [65535, 40000, 8000, 4095, 256])
@pytest.mark.parametrize("kind", ["P5", "P2"])
def test_pgm_numbers_are_read_whatever_maximum_the_header_names(tmp_path, kind, maximum):
    path = pgm(tmp_path / "d.pgm", MM, maximum, kind, comment="# made by hand\n")
    assert np.array_equal(read_depth(path), MM)
    assert np.array_equal(decode_integers(path.read_bytes(), "labels"), MM)


def test_a_pgm_of_labels_is_not_scaled_to_grey_values(tmp_path):
    labels = (MM % 41).astype(np.uint8)
    assert np.array_equal(decode_integers(pgm(tmp_path / "l.pgm", labels, 40).read_bytes(), "l"), labels)


@pytest.mark.parametrize(
    "data",
    [
        *(b"P5", b"P5\n4 4\n70000\n" + bytes(64), b"P5\n0 4\n65535\n", b"P5\n4 4\n65535\n" + bytes(31)),
        *(b"P2\n2 1\n65535\n1 x", b"P2\n2 1\n65535\n1 -2", b"P5\n99999999 9\n65535\n"),
    ],
)
def test_a_damaged_pgm_is_named(tmp_path, data):
    (tmp_path / "bad.pgm").write_bytes(data)
    with pytest.raises(SceneError, match=r"bad\.pgm"):
        read_depth(tmp_path / "bad.pgm")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_metres_come_back_and_what_is_not_finite_is_no_measurement(tmp_path, dtype):
    metres = (MM / 1000.0).astype(dtype)
    metres[0, :3] = np.nan, np.inf, -np.inf
    expected = np.nan_to_num(metres.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    np.save(tmp_path / "d.npy", metres)
    np.savez(tmp_path / "d.npz", depth=metres, confidence=metres)
    np.savez_compressed(tmp_path / "one.npz", metres[None])
    for name in ("d.npy", "d.npz", "one.npz"):
        assert np.array_equal(read_depth(tmp_path / name), expected)


def test_floats_of_tiff_and_pfm_come_back(tmp_path):
    metres = (MM / 1000.0).astype(np.float32)
    save(tmp_path / "d.tiff", metres)
    (tmp_path / "d.pfm").write_bytes(b"Pf\n32 24\n-1.0\n" + metres[::-1].astype("<f4").tobytes())
    for name in ("d.tiff", "d.pfm"):
        assert np.array_equal(read_depth(tmp_path / name), metres)


def test_exr_is_read_where_the_library_is_there(tmp_path):
    exr = pytest.importorskip("OpenEXR", reason="the package OpenEXR is not installed")
    metres = (MM / 1000.0).astype(np.float32)
    for name in ("Z", "Y", "anything"):
        path = tmp_path / f"{name}.exr"
        exr.File({"type": exr.scanlineimage}, {name: metres}).write(str(path))
        assert np.array_equal(read_depth(path), metres)
    (tmp_path / "bad.exr").write_bytes(b"v/1\x01\x02\x00\x00\x00" + bytes(80))
    with pytest.raises(SceneError, match=r"bad\.exr is not a readable OpenEXR file"):
        read_depth(tmp_path / "bad.exr")


def test_exr_without_the_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    (tmp_path / "d.exr").write_bytes(b"v/1\x01")
    with pytest.raises(SceneError, match="OpenEXR") as caught:
        read_depth(tmp_path / "d.exr")
    assert "ponder[exr]" in str(caught.value.fix)


@pytest.mark.parametrize("ending", ["png", "tiff", "npy"])
def test_sixteen_bits_stay_as_they_are(tmp_path, ending):
    path = tmp_path / f"d.{ending}"
    np.save(path, MM) if ending == "npy" else save(path, MM)
    found = read_depth(path)
    assert found.dtype == np.uint16 and np.array_equal(found, MM)


def test_signed_sixteen_bits_are_unsigned_ones_and_wide_integers_stay_wide(tmp_path):
    far = MM.astype(np.int64) * 9  # up to 63000
    np.save(tmp_path / "signed.npy", far.astype(np.uint16).view(np.int16))
    assert np.array_equal(read_depth(tmp_path / "signed.npy"), far)
    marked = MM.astype(np.int16)
    marked[0, 0] = -1  # one number that marks no measurement
    np.save(tmp_path / "marked.npy", marked)
    assert np.array_equal(read_depth(tmp_path / "marked.npy"), marked)
    np.save(tmp_path / "wide.npy", far * 10)
    assert np.array_equal(read_depth(tmp_path / "wide.npy"), far * 10)
    save(tmp_path / "wide.tiff", (far * 10).astype(np.int32))
    assert np.array_equal(read_depth(tmp_path / "wide.tiff"), far * 10)


def test_floats_that_are_stored_as_rgba_are_read(tmp_path):
    metres = (MM / 1000.0).astype("<f4")
    packed = metres.view(np.uint8).reshape(24, 32, 4)
    assert np.array_equal(read_depth(save(tmp_path / "d.png", packed)), metres)


GREY = (MM // 28).astype(np.uint8)
NO_DEPTH: dict[str, Callable[[Path], object]] = {
    "grey": lambda path: save(path, GREY),
    "grey with alpha": lambda path: save(path, np.dstack([GREY, np.full_like(GREY, 255)])),
    "false colours": lambda path: save(path, RGB),
    "false colours with alpha": lambda path: save(path, np.dstack([RGB, np.full((24, 32), 255, np.uint8)])),
    "palette": lambda path: Image.fromarray(RGB).quantize(64).save(path),
    "one bit": lambda path: save(path, GREY > 99),
    "jpeg": lambda path: save(path, GREY, format="JPEG"),
    "8 bits times 257": lambda path: save(path, GREY.astype(np.uint16) * 257),
    "8 bits times 256": lambda path: save(path, GREY.astype(np.uint16) * 256),
    "pgm of bytes": lambda path: pgm(path, GREY, 255),
}


@pytest.mark.parametrize("kind", NO_DEPTH)
def test_what_cannot_be_depth_is_refused_with_the_reason(tmp_path, kind):
    path = tmp_path / "depth.png"
    NO_DEPTH[kind](path)
    with pytest.raises(SceneError, match=r"depth\.png") as caught:
        read_depth(path)
    assert "8 bits" in caught.value.message or "false colours" in caught.value.message
    assert "16-bit PNG" in str(caught.value.fix)


def test_a_format_that_is_not_read_is_named_without_an_address_in_memory(tmp_path):
    (tmp_path / "d.png").write_bytes(b"no image at all")
    with pytest.raises(SceneError, match=r"d\.png") as caught:
        read_depth(tmp_path / "d.png")
    assert "0x" not in caught.value.message and "BytesIO" not in caught.value.message


def test_arrays_are_not_unpickled_and_odd_shapes_are_refused(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "s.npy", np.zeros((4, 5, 6), np.uint16))
    np.savez(tmp_path / "two.npz", a=MM, b=MM)
    for name in ("o.npy", "s.npy", "two.npz"):
        with pytest.raises(SceneError, match=name.replace(".", r"\.")):
            read_depth(tmp_path / name)


# Colour ----------------------------------------------------------------------------------------------------


def test_alpha_hides_pixels_and_says_so(tmp_path):
    alpha = np.full((24, 32), 255, np.uint8)
    alpha[:5], alpha[5] = 0, 200
    found = read_image(save(tmp_path / "c.png", np.dstack([RGB, alpha])))
    assert found.visible is not None and np.array_equal(found.visible, alpha > 127)
    assert np.array_equal(found.rgb, RGB) and "alpha hides pixels" in found.notes
    whole = read_image(save(tmp_path / "w.png", np.dstack([RGB, np.full_like(alpha, 255)])))
    assert whole.visible is None and "alpha hides pixels" not in whole.notes


def test_a_transparent_colour_and_a_transparent_palette_hide_pixels(tmp_path):
    image = Image.fromarray(np.where(GREY[..., None] < 90, 0, RGB | 1).astype(np.uint8))
    image.save(tmp_path / "key.png", transparency=(0, 0, 0))
    found = read_image(tmp_path / "key.png")
    assert found.visible is not None and np.array_equal(found.visible, GREY >= 90)
    palette = Image.fromarray(np.where(GREY < 90, 0, 1).astype(np.uint8), "P")
    palette.putpalette([9, 9, 9, 250, 120, 10])
    palette.save(tmp_path / "palette.png", transparency=0)
    found = read_image(tmp_path / "palette.png")
    assert found.visible is not None and np.array_equal(found.visible, GREY >= 90)
    assert found.rgb[found.visible].tolist() == [[250, 120, 10]] * int(found.visible.sum())


def test_sixteen_bit_grey_is_divided_by_257(tmp_path):
    wide = GREY.astype(np.uint16) * 257
    found = read_image(save(tmp_path / "g.png", wide))
    assert np.array_equal(found.rgb, np.repeat(GREY[..., None], 3, axis=2))
    assert "grey, numbers of 0..65535" in found.notes
    dim = read_image(save(tmp_path / "dim.png", wide // 16))  # a dark image stays dark
    assert np.abs(dim.rgb[..., 0].astype(int) - GREY // 16).max() <= 1
    few = read_image(save(tmp_path / "few.png", GREY.astype(np.uint16)))  # bytes in 16 bits
    assert np.array_equal(few.rgb[..., 1], GREY)


def test_float_grey_of_0_to_1_is_stretched(tmp_path):
    found = read_image(save(tmp_path / "f.tiff", (GREY / 255.0).astype(np.float32)))
    assert np.array_equal(found.rgb[..., 2], GREY)


def test_grey_palette_and_cmyk_become_rgb(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "g.png", GREY)).rgb[..., 0], GREY)
    image = Image.fromarray(RGB).quantize(16)
    image.save(tmp_path / "p.png")
    assert np.array_equal(read_image(tmp_path / "p.png").rgb, np.asarray(image.convert("RGB")))
    flat = np.full((24, 32, 3), (200, 30, 90), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "c.jpg", quality=100)
    found = read_image(tmp_path / "c.jpg")
    assert np.abs(found.rgb.astype(int) - flat).max() <= 4
    assert not found.is_plain_jpeg  # such a file is not stored as it is


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_told_and_applied_when_asked_for(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "c.png", RGB, exif=exif)
    found = read_image(tmp_path / "c.png")
    assert np.array_equal(found.rgb, RGB) and found.orientation == orientation
    from PIL import ImageOps

    with Image.open(tmp_path / "c.png") as image:
        assert np.array_equal(transposed(found).rgb, np.asarray(ImageOps.exif_transpose(image)))


# Masks -----------------------------------------------------------------------------------------------------


MASK = GREY > 120
MASKS: dict[str, Callable[[Path], object]] = {
    "0 and 255": lambda path: path.write_bytes(encode_mask(MASK)),
    "0 and 1": lambda path: save(path, MASK.astype(np.uint8)),
    "one bit": lambda path: save(path, MASK),
    "16 bits": lambda path: save(path, MASK.astype(np.uint16) * 65535),
    "rgb": lambda path: save(path, np.repeat(MASK[..., None], 3, axis=2).astype(np.uint8) * 255),
    "one channel of rgb": lambda path: save(path, MASK[..., None] * np.array([0, 0, 9], np.uint8)),
    "alpha": lambda path: save(path, np.dstack([RGB, MASK.astype(np.uint8) * 255])),
    "opaque alpha": lambda path: save(
        path, np.dstack([MASK.astype(np.uint8) * 255, np.full(MASK.shape, 255, np.uint8)])
    ),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_all_kinds_are_visible_where_they_are_not_black(tmp_path, kind):
    MASKS[kind](tmp_path / "m.png")
    assert np.array_equal(read_visible(tmp_path / "m.png"), MASK)


def test_a_jpeg_mask_has_no_halo_of_nearly_black_pixels(tmp_path):
    blocks = np.kron(MASK[:3, :4], np.ones((8, 8), bool))
    save(tmp_path / "m.jpg", blocks.astype(np.uint8) * 255, quality=60)
    assert np.array_equal(read_visible(tmp_path / "m.jpg"), blocks)
