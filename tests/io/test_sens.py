""".sens files: versions, compressions, random access, and headers that lie."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ponderv2.errors import SceneError
from ponderv2.io.sens import open_sens
from tests.scenes import box_room

TAKEN = box_room.shots(3)
HEAD = 4 + 8 + 4
"""Bytes before the matrices: version, length of the name, name."""
SIZES = HEAD + 64 * 4 + 8
N_FRAMES = SIZES + 16 + 4


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize(("color", "depth"), [(0, 0), (1, 1), (2, 1)])
def test_every_compression_gives_the_pictures_back(tmp_path: Path, version: int, color: int, depth: int):
    sens = open_sens(box_room.write_sens(tmp_path, TAKEN, version, color, depth))
    assert len(sens) == 3 and sens.header.version == version and sens.header.sensor == "room"
    for index in (2, 0, 1):
        exact = TAKEN[index]
        assert np.array_equal(sens.depth(index), np.rint(exact.depth * 1000))
        assert np.allclose(sens.camera_to_world[index], exact.pose, atol=1e-6)
        difference = np.abs(sens.color(index).astype(int) - exact.color)
        assert difference.max() == 0 if color < 2 else difference.mean() < 6


@pytest.mark.parametrize("kept", [3, 40, 300, 0.5, -20])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: float):
    path = box_room.write_sens(tmp_path, TAKEN, version=3)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else int(kept)])
    with pytest.raises(SceneError, match=r"room\.sens.*cut off|room\.sens.*claims"):
        open_sens(path)


@pytest.mark.parametrize(
    ("at", "lie"),
    [
        (0, struct.pack("<I", 7)),
        (4, struct.pack("<Q", 2**62)),
        (SIZES, struct.pack("<I", 2**31)),
        (SIZES - 8, struct.pack("<i", 99)),
        (N_FRAMES, struct.pack("<Q", 2**63)),
        (N_FRAMES + 8 + 64 + 16, struct.pack("<Q", 2**60)),
    ],
)
def test_a_lying_header_is_refused_without_taking_memory(tmp_path: Path, at: int, lie: bytes):
    path = box_room.write_sens(tmp_path, TAKEN)
    data = bytearray(path.read_bytes())
    data[at : at + len(lie)] = lie
    path.write_bytes(bytes(data))
    tracemalloc.start()
    with pytest.raises(SceneError, match=r"room\.sens"):
        open_sens(path)
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


def test_a_damaged_depth_stream_is_named(tmp_path: Path):
    path = box_room.write_sens(tmp_path, TAKEN)
    sens = open_sens(path)
    data = bytearray(path.read_bytes())
    start = int(sens.offset[1] + sens.n_bytes[1, 0])
    data[start : start + 30] = bytes(30)
    path.write_bytes(bytes(data))
    assert sens.depth(0).any()
    with pytest.raises(SceneError, match="frame 1"):
        sens.depth(1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 400), value=st.binary(min_size=1, max_size=8))
def test_any_change_of_the_header_is_read_or_refused(tmp_path: Path, at: int, value: bytes):
    data = bytearray(box_room.sens_bytes(TAKEN[:1]))
    data[at : at + len(value)] = value
    path = tmp_path / "fuzzed.sens"
    path.write_bytes(bytes(data))
    try:
        sens = open_sens(path)
        for index in range(len(sens)):
            sens.depth(index)
            sens.color(index)
    except SceneError:
        pass


def test_the_real_recording_is_read(sample_data: Path):
    sens = open_sens(sample_data / "sens" / "redkitchen_12frames.sens")
    assert len(sens) == 12 and sens.header.version == 4
    assert sens.header.depth_kind == "zlib" and sens.header.color_kind == "jpeg"
    assert sens.depth(11).shape == (480, 640) and sens.color(5).shape == (480, 640, 3)
