"""Files of torch and pickle: arrays come back equal; whatever else is in a file is refused and never runs."""

from __future__ import annotations

import collections
import functools
import io
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ponderv2.errors import SceneError
from ponderv2.io.safe_pickle import PickledFile, read_pickled


def contents() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "coord": rng.normal(size=(120, 3)),
        "color": rng.integers(0, 256, (120, 3), dtype=np.uint8),
        "normal": np.asfortranarray(rng.normal(size=(120, 3)).astype(np.float32)),
        "semantic_gt": rng.integers(-1, 13, (120, 1)).astype(np.int16),
        "mask": rng.integers(0, 2, (20, 30)).astype(bool),
        "swapped": np.arange(5, dtype=">i4"),
        "half": np.arange(5).astype(np.float16),
        "none": np.zeros((0, 3)),
        "names": np.array(["wall", "fußboden"]),
        "number": np.float64(2.5),
        "whole": np.int64(-7),
        "scene_id": "scene0000_00",
        "long": "ä" * 500,
        "center": [1.0, 2, True, None, (3, "x")],
        "more": {"deep": np.eye(2), "order": collections.OrderedDict(a=1)},
        "big": 2**70,
        "bytes": b"\x00\xff" * 300,
    }


def torch_file(path: Path, values: Any, legacy: bool = False) -> Path:
    torch.save(values, path, _use_new_zipfile_serialization=not legacy)
    return path


def write(path: Path, values: Any, how: str) -> Path:
    if how.startswith("pickle"):
        path.write_bytes(pickle.dumps(values, int(how[-1])))
        return path
    return torch_file(path, values, how == "legacy")


WAYS = ["torch", "legacy", *(f"pickle{protocol}" for protocol in range(6))]


def same(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.shape == second.shape and np.array_equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


@pytest.mark.parametrize("how", WAYS)
def test_arrays_come_back_as_they_were_saved(tmp_path: Path, how: str):
    path = write(tmp_path / "a.pth", contents(), how)
    assert same(contents(), read_pickled(path))
    assert list(read_pickled(path, ("color", "absent"))) == ["color"]


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_come_back_as_arrays(tmp_path: Path, legacy: bool):
    base = torch.arange(24.0).reshape(4, 6)
    kinds = (
        torch.float64,
        torch.float16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
    values = {"view": base[1:, ::2].T, "same": base, "scalar": torch.tensor(3), "empty": torch.zeros(0, 3)}
    values |= {str(kind): torch.tensor([0, 1, 1]).to(kind) for kind in kinds}
    read = read_pickled(torch_file(tmp_path / "a.pth", values, legacy))
    for name, value in values.items():
        assert same(value.numpy(), read[name]), name


def test_both_names_of_numpys_core_are_known(tmp_path: Path):
    path = tmp_path / "a.pkl"
    old = pickle.dumps({"a": np.arange(3)}, 2)
    assert b"numpy._core" in old or b"numpy.core" in old
    for spelling in (b"numpy.core", b"numpy._core"):
        path.write_bytes(old.replace(b"numpy._core", spelling).replace(b"numpy.core", spelling))
        assert same(np.arange(3), read_pickled(path)["a"])


def test_a_shape_is_known_without_reading_the_array(tmp_path: Path):
    path = torch_file(tmp_path / "a.pth", {"rgb": np.zeros((600, 800, 3), np.uint8), "K": np.eye(3)})
    tracemalloc.start()
    with PickledFile.open(path) as file:
        assert file.shape("rgb") == (600, 800, 3) and file.shape("absent") is None
        assert same(np.eye(3), file.read("K"))
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


class Runs:
    """Would call a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def hostile(target: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that would create `target`, or do other harm, with the name that must be refused."""
    command = f"touch {target}"

    def raw(text: str) -> bytes:
        return text.encode()

    def listed(function: Any, *arguments: Any) -> bytes:
        return pickle.dumps({"coord": Runs(function, *arguments)}, 2)

    touch = f"__import__('pathlib').Path({str(target)!r}).touch()"
    memoised = (
        b"\x80\x04}\x8c\x05coord\x8c\x05posix\x94\x8c\x06system\x94\x93\x940h\x02"
        + b"\x8c"
        + bytes([len(command)])
        + command.encode()
        + b"\x85Rs."
    )
    return {
        "system": (listed(os.system, command), "posix.system"),
        "eval": (listed(eval, touch), "eval"),
        "exec": (listed(exec, touch), "exec"),
        "getattr": (listed(getattr, "x", "upper"), "getattr"),
        "import": (raw("c__builtin__\n__import__\n(S'os'\ntR."), "__import__"),
        "instance": (raw(f"(V{command}\nios\nsystem\n."), "os.system"),
        "load": (listed(np.load, str(target)), "numpy.load"),
        "f2py": (raw("cnumpy.f2py\ncompile\n(X\x01\x00\x00\x00atR."), "numpy.f2py.compile"),
        "fromfile": (raw("cnumpy.core.multiarray\nfromfile\n(X\x01\x00\x00\x00atR."), "multiarray.fromfile"),
        "testing": (raw("cnumpy.testing._private.utils\nrunstring\n(X\x01\x00\x00\x00a}tR."), "runstring"),
        "dotted": (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "numpy.ndarray.tofile"),
        "ndarray called": (raw("cnumpy\nndarray\n(I1000000000000\ntR."), "numpy.ndarray"),
        "memoised": (memoised, "posix.system"),
        "torch": (listed(torch.load, str(target)), "torch"),
        "codecs": (raw("c_codecs\nlookup\n(X\x01\x00\x00\x00atR."), "_codecs.lookup"),
        "partial": (raw("cfunctools\npartial\n(tR."), "functools.partial"),
        "copyreg": (b"\x80\x02\x82\x01.", "EXT1"),
        "class": (pickle.dumps({"a": Path("x")}, 4), "pathlib"),
    }


NAMES = list(hostile(Path("x")))


@pytest.mark.parametrize("container", ["plain", "zip", "legacy"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_data_is_named_and_never_run(tmp_path: Path, name: str, container: str):
    target = tmp_path / "harm"
    content, expected = hostile(target)[name]
    path = tmp_path / "scene.pth"
    path.write_bytes({"plain": content, "zip": in_zip(content), "legacy": in_legacy(content)}[container])
    with pytest.raises(SceneError) as caught:
        read_pickled(path)
    assert expected in caught.value.message and str(path) in caught.value.message
    assert not target.exists()


def in_zip(content: bytes) -> bytes:
    import zipfile

    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", b"3\n")
    return target.getvalue()


def in_legacy(content: bytes) -> bytes:
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return b"".join(pickle.dumps(one, 2) for one in head) + content + pickle.dumps([], 2)


def test_the_examples_do_harm_when_they_are_unpickled(tmp_path: Path):
    """Otherwise their refusal would show nothing."""
    for name in ("system", "eval", "exec", "instance", "memoised"):
        target = tmp_path / name
        pickle.loads(hostile(target)[name][0])
        assert target.exists()


@pytest.mark.parametrize("how", WAYS)
def test_arrays_of_objects_are_refused(tmp_path: Path, how: str):
    path = write(tmp_path / "a.pth", {"coord": np.array([Runs(print, "harm"), None], object)}, how)
    with pytest.raises(SceneError):
        read_pickled(path)
    path = write(tmp_path / "b.pth", {"coord": np.array([[1], [2, 3]], dtype=object)}, how)
    with pytest.raises(SceneError, match="objects"):
        read_pickled(path)
    path = write(tmp_path / "c.pth", {"coord": np.zeros(3, [("x", "f4")])}, how)
    with pytest.raises(SceneError):
        read_pickled(path)


def array_of(shape: tuple[int, ...], data: bytes = b"1234") -> bytes:
    """A pickled uint8 array that claims a shape."""
    return pickle.dumps({"a": Claim(shape, data)}, 4)


class Claim:
    """Pickles as NumPy's array would."""

    def __init__(self, shape: tuple[int, ...], data: bytes) -> None:
        self.state = (1, shape, np.dtype("u1"), False, data)

    def __reduce__(self) -> Any:
        reconstruct = np.array(0).__reduce__()[0]
        return reconstruct, (np.ndarray, (0,), b"b"), self.state


def strided(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> dict[str, Any]:
    tensor = torch.zeros(4)
    return {"a": torch.as_strided(tensor, size, stride, offset)}


LIES = {
    "huge array": array_of((2**40,)),
    "overflowing shape": array_of((2**33, 2**33)),
    "negative shape": array_of((-4, -1)),
    "short bytes": array_of((3,)),
    "long text": b"\x80\x04}\x8c\x01a\x8d" + struct.pack("<Q", 2**62) + b"abc",
    "long bytes": b"\x80\x04}\x8c\x01a\x8e" + struct.pack("<Q", 2**40) + b"abc",
    "negative text": b"\x80\x02}U\x01aT" + struct.pack("<i", -5) + b"abcs.",
    "far memo": b"\x80\x02}r\xff\xff\xff\xffj\xfe\xff\xff\xff.",
    "long number": b"\x80\x02}U\x01a\x8b" + struct.pack("<i", 2**30) + b"\x01s.",
    "long line": b"}U\x01aI" + b"9" * 100_000 + b"\ns.",
    "stack": b"(" * 20_000,
    "nothing": b"",
    "text": b"hello",
    "empty stack": b".",
    "self": b"\x80\x02}q\x00U\x01ah\x00s.",
    "list in itself": b"\x80\x02}U\x01a]q\x00h\x00as.",
    "laughs": b"\x80\x02}U\x01a]q\x00(NNNNNNNNNNe"
    + b"".join(
        b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1]) for i in range(18)
    )
    + b"s.",
}


@pytest.mark.parametrize("name", LIES)
def test_lies_are_refused_without_taking_memory(tmp_path: Path, name: str):
    path = tmp_path / "a.pkl"
    path.write_bytes(LIES[name])
    tracemalloc.start()
    with pytest.raises(SceneError):
        read_pickled(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * len(LIES[name]) + 64e6


def test_views_cannot_grow_far_beyond_their_file(tmp_path: Path):
    path = torch_file(tmp_path / "a.pth", {"a": torch.zeros(1).expand(1 << 30)})
    with pytest.raises(SceneError, match="larger than the file"):
        read_pickled(path)


def test_a_cut_storage_is_refused(tmp_path: Path):
    path = torch_file(tmp_path / "a.pth", {"a": torch.zeros(100)}, legacy=True)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(SceneError, match="cut off"):
        read_pickled(path)


def test_a_dict_is_expected(tmp_path: Path):
    with pytest.raises(SceneError, match="no named arrays but a list"):
        read_pickled(write(tmp_path / "a.pth", [1, 2], "torch"))
    with pytest.raises(SceneError, match="cannot read"):
        read_pickled(tmp_path / "absent.pth")


@functools.lru_cache
def originals() -> list[bytes]:
    found = []
    for how in ("torch", "legacy", "pickle2", "pickle5"):
        target = io.BytesIO()
        values = {"a": np.arange(60).reshape(20, 3), "t": torch.arange(9), "s": "x", "n": np.float32(1)}
        if how.startswith("pickle"):
            values.pop("t")
            target.write(pickle.dumps(values, int(how[-1])))
        else:
            torch.save(values, target, _use_new_zipfile_serialization=how == "torch")
        found.append(target.getvalue())
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.integers(0, 3),
    cut=st.none() | st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=8),
)
def test_damaged_files_raise_only_our_error(
    tmp_path: Path, which: int, cut: float | None, flips: list[tuple[float, int]]
):
    data = bytearray(originals()[which])
    for place, bit in flips:
        data[int(place * len(data))] ^= 1 << bit
    if cut is not None:
        del data[int(cut * len(data)) :]
    path = tmp_path / "a.pth"
    path.write_bytes(data)
    try:
        read = read_pickled(path)
    except SceneError:
        return
    assert isinstance(read, dict)
