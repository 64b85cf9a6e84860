"""Files that are something else than they are called: every reader says what, and no copy is blamed."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from ponderv2.errors import SceneError
from ponderv2.io.images import read_color
from ponderv2.io.text import read_json, read_text
from ponderv2.scenes.point_cloud_files import read_cloud


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.txt", "1 2 3\n")
    return target.getvalue()


MISTAKEN = {
    "a pointer of Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 1\n",
        "git lfs pull",
    ),
    "packed by gzip": (gzip.compress(b"1 2 3\n" * 20), "unpack it"),
    "a zip archive": (zipped(), "unpack it"),
    "a web page": (b"\r\n<!DOCTYPE html>\n<html><body>404</body></html>\n", "download the file again"),
}
READERS = {
    "a.ply": read_cloud,
    "a.pcd": read_cloud,
    "a.xyz": read_cloud,
    "a.png": read_color,
    "a.json": read_json,
    "pose.txt": read_text,
}


@pytest.mark.parametrize("kind", MISTAKEN)
@pytest.mark.parametrize("name", READERS)
def test_what_a_file_really_is_is_said_with_what_to_do(tmp_path: Path, name: str, kind: str):
    data, fix = MISTAKEN[kind]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SceneError, match=kind) as caught:
        READERS[name](tmp_path / name)
    assert name in caught.value.message and fix in str(caught.value.fix)


@pytest.mark.parametrize("name", ["a.ply", "a.pcd", "a.png"])
def test_an_empty_file_is_called_empty(tmp_path: Path, name: str):
    (tmp_path / name).touch()
    with pytest.raises(SceneError, match="it is empty"):
        READERS[name](tmp_path / name)
