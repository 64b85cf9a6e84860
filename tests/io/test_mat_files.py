"""MATLAB's files against SciPy's reader and writer, and damaged ones."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from ponderv2.errors import SceneError
from ponderv2.io.mat_files import cells, numbers_of, read_mat, records, text_of


def written(path: Path, packed: bool, **values: Any) -> Path:
    scipy.io.savemat(path, values, do_compression=packed)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "u2", "i4", "i8", "u8"])
def test_numbers_are_those_that_scipy_wrote(tmp_path: Path, packed: bool, dtype: str) -> None:
    values = (np.random.default_rng(0).random((3, 4, 2)) * 100).astype(dtype)
    found = read_mat(written(tmp_path / "a.mat", packed, a=values, b=np.eye(2)), ("a",))
    assert found.keys() == {"a"} and found["a"].dtype == values.dtype
    np.testing.assert_array_equal(found["a"], values)


@pytest.mark.parametrize("packed", [False, True])
def test_text_cells_and_records_are_those_that_scipy_wrote(tmp_path: Path, packed: bool) -> None:
    inner = np.empty((1, 2), dtype=[("name", object), ("size", object), ("other", object)])
    inner[0, 0], inner[0, 1] = ("a chair", np.eye(3), "x"), ("Stühle", np.arange(3.0), "y")
    outer = np.empty((2, 1), dtype=[("objects", object), ("path", object)])
    outer[0, 0], outer[1, 0] = (inner, "SUNRGBD/a"), (np.zeros((0, 0)), "")
    names = np.array([["one", "two"], ["three", "four"]], object)
    path = written(tmp_path / "a.mat", packed, table=outer, names=names, text="plain")
    found = read_mat(path, ("table", "names", "text"))
    assert text_of(found["text"]) == "plain"
    assert cells(found["names"]) == ["one", "three", "two", "four"]  # column by column
    first, second = records(found["table"], "objects", "path")
    assert [text_of(one["path"]) for one in (first, second)] == ["SUNRGBD/a", ""]
    assert records(second["objects"], "name") == []
    chair, chairs = records(first["objects"], "name", "size")
    assert text_of(chair["name"]) == "a chair" and text_of(chairs["name"]) == "Stühle"
    np.testing.assert_array_equal(numbers_of(chair["size"], 3, 3), np.eye(3))
    np.testing.assert_array_equal(numbers_of(chairs["size"], 3), np.arange(3.0))
    few = read_mat(path, ("table",), ("objects", "name"))["table"]
    assert few[0]["path"] is None and few[0]["objects"][0] == {"name": "a chair", "size": None, "other": None}


def test_a_real_file_is_read_as_scipy_reads_it(sample_data: Path) -> None:
    path = sample_data / "sunrgbd" / "sunrgbd_trainval" / "depth" / "000001.mat"
    expected = scipy.io.loadmat(path)["instance"]
    np.testing.assert_array_equal(read_mat(path, ("instance",))["instance"], expected)


def test_files_of_the_other_byte_order_are_read(tmp_path: Path) -> None:
    element = struct.pack(">II", 6, 8) + struct.pack(">II", 6, 0)
    element += struct.pack(">II", 5, 8) + struct.pack(">ii", 1, 2)
    element += struct.pack(">HH", 1, 1) + b"a\0\0\0"
    element += struct.pack(">II", 9, 16) + struct.pack(">dd", 1.5, -2.5)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    (tmp_path / "a.mat").write_bytes(head + struct.pack(">II", 14, len(element)) + element)
    assert read_mat(tmp_path / "a.mat", ("a",))["a"].tolist() == [[1.5, -2.5]]
    np.testing.assert_array_equal(scipy.io.loadmat(tmp_path / "a.mat")["a"], [[1.5, -2.5]])


@pytest.mark.parametrize("packed", [False, True])
def test_every_cut_is_refused_by_name(tmp_path: Path, packed: bool) -> None:
    whole = written(tmp_path / "a.mat", packed, a={"b": np.eye(2), "c": "text"}, z=np.eye(2)).read_bytes()
    assert len(whole) < 1200
    for length in range(len(whole)):
        (tmp_path / "cut.mat").write_bytes(whole[:length])
        with pytest.raises(SceneError, match=r"cut\.mat"):
            read_mat(tmp_path / "cut.mat", ("a", "z"))


def test_what_holds_no_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h.mat").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    with pytest.raises(SceneError, match=r"7\.3"):
        read_mat(tmp_path / "h.mat", ("a",))
    with pytest.raises(SceneError, match="no variable 'b', only: a"):
        read_mat(written(tmp_path / "a.mat", True, a=1), ("b",))
    with pytest.raises(SceneError, match="real numbers"):
        read_mat(written(tmp_path / "c.mat", True, a=np.array([1j, 2])), ("a",))
    with pytest.raises(SceneError, match="cannot read"):
        read_mat(tmp_path / "nothing.mat", ("a",))


def test_a_variable_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    target = io.BytesIO()
    scipy.io.savemat(target, {"a": np.zeros(20_000_000)}, do_compression=True)
    (tmp_path / "bomb.mat").write_bytes(target.getvalue())
    assert len(target.getvalue()) < 400_000
    with pytest.raises(SceneError, match="unpacks to much more"):
        read_mat(tmp_path / "bomb.mat", ("a",))
