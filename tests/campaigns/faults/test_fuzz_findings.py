"""Inputs that the campaign of `fuzz` found, and those that are like them: read or refused, no more.

Each was an exception, a hang or a huge allocation once. The readers are those of the fuzzer.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ponderv2.errors import PonderError
from tests.campaigns.fuzz import seeds
from tests.campaigns.fuzz.mutation import damaged
from tests.campaigns.fuzz.targets import TARGETS
from tests.campaigns.fuzz.watch import Watch


def npy(header: str, body: bytes = bytes(60)) -> bytes:
    """An array whose header is any text."""
    padded = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + body


def transforms(**changes: object) -> bytes:
    """transforms.json with other values."""
    return json.dumps({**json.loads(seeds.transforms()[0]), **changes}).encode()


def nested(depth: int) -> bytes:
    """Lists in lists."""
    return b"[" * depth + b"1" + b"]" * depth


def frame(**changes: object) -> list[dict[str, object]]:
    """The frames of transforms.json, one of them changed."""
    return [{**json.loads(seeds.transforms()[0])["frames"][0], **changes}]


def nameless_member() -> bytes:
    """An archive with a member that has no name."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(zipfile.ZipInfo("x"), b"1")
    return target.getvalue().replace(b"x", b"\0")


def letters_that_are_none() -> bytes:
    """cameras.npz whose first frame is named by a number that no letter has."""
    with np.load(io.BytesIO(seeds.cameras()[0])) as stored:
        arrays = dict(stored)
    arrays["ids"] = np.frombuffer(np.full((2, 6), 0x7F000030, np.uint32).tobytes(), "<U6")
    return seeds.npz(**arrays)


HEADER = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}"
FAR = np.full((5, 3), 1e300)
POSE34 = seeds.numbers(seeds.POSE[:3])
STORE = seeds.dataset_yaml()[0].split(seeds.SEPARATOR)
SEVERAL_DISKS = b"PK\x06\x07" + b"\x01\0\0\0" + bytes(8) + b"\x02\0\0\0" + b"PK\x05\x06" + bytes(18)
SCANS = b"1.2\x0034\x01 5.1\x02 2.2\x03 1\x10 2 3\x04\x05\n"

FOUND: dict[str, tuple[str, bytes]] = {
    "bracket in an array's header": ("npy", npy("{'descr': '<f4', 'shape': (5, 6), (")),
    "array of 2^64 columns": ("npy", npy(HEADER.format("<f4", f"(5, {2**64 - 1})"))),
    "points beyond single precision": ("npy", seeds.npy(FAR)),
    "text beyond single precision": ("points text", b"1e300 0 0\n0 1e300 0\n0 0 1e300\n1 1 1e308\n"),
    "image named with a zero byte": (
        "tum", seeds.together(b"1.0 rgb/\x000.png\n", b"1.0 depth/0.png\n", b"1.0 0 0 0 0 0 0 1\n"),
    ),
    "focal length of zero": (
        "replica",
        seeds.together(
            seeds.numbers(seeds.POSE.reshape(1, 16)),
            b'{"camera": {"w": 8, "h": 6, "fx": 9.0, "fy": 0, "cx": 3.5, "cy": 2.5, "scale": 6553.5}}',
        ),
    ),
    "pose of 400 digits": ("transforms.json", transforms(frames=frame(transform_matrix=[[10**400] * 4] * 4))),
    "scale of 400 digits": ("transforms.json", transforms(applied_scale=10**400)),
    "file name of 400 characters": ("transforms.json", transforms(frames=frame(file_path="i" * 400))),
    "transform that cannot be undone": ("transforms.json", transforms(applied_transform=[[0.0] * 4] * 3)),
    "damaged lines without end": ("s3dis text", SCANS * 300 + b"\x00\x01\x02 \x03 4\n" * 1500),
    "number of 50000 digits": ("s3dis text", b"0.1 0.8 0.9 10 200 30\n" + b"1" * 50000 + b"x 0 0 1 1 1\n"),
    "faces across the world": ("obj", b"v 0 0 0\nv 1 0 4294967296\nv 0 1 0.5\n" + b"f -1 -2 -3\n" * 99),
    "empty surface": ("obj", b""),
    "surface without corners": ("obj", b"# mesh\nf \nv 1 "),
    "corner of 20 digits": ("obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 18446744073709551615\n"),
    "vertex beyond single precision": ("obj", b"v 0 0 0\nv 1 -1e308 0\nv 0 1 0.5\nf 1 2 3\n"),
    "vertex of one number": ("obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n\nv 1\n"),
    "pose of three rows": ("2d-3d-s view", seeds.together(b"8 6 9 9 3.5 2.5 0.1 -0.1 0 0 0\n", POSE34)),
    "camera of nan pixels": ("2d-3d-s view", seeds.together(b"nan 6 9 9 3.5 2.5 0 0 0 0 0\n", POSE34)),
    "camera of infinite pixels": ("2d-3d-s view", seeds.together(b"8 inf 9 9 3.5 2.5 0 0 0 0 0\n", POSE34)),
    "scene of 400 characters": (
        "scannet++", seeds.scannetpp()[0].replace(b"aa00\n", "ä".encode() * 200 + b"a" * 200 + b"\n"),
    ),
    "member without a name": ("structured3d zip", nameless_member()),
    "frame of 5000 digits": ("ponderv2 lists", seeds.together(b"scene " + b"1" * 5000, b"[]")),
    "frame at infinity": ("ponderv2 lists", seeds.together(b"", b'[{"scene": "a", "frame": Infinity}]')),
    "classes in 3000 lists": ("scene store", seeds.together(nested(3000))),
    "record in 90000 lists": ("scene store", seeds.together(STORE[0], nested(30000), b"")),
    "report in 90000 lists": ("scene store", seeds.together(STORE[0], b"{}", nested(30000))),
    "scene that is one byte": ("scene arrays", b"\x81"),
    "labels without a column": ("scene arrays", npy(HEADER.format("<i4", "(5, 0)"), b"")),
    "points that are nowhere": ("scene arrays", seeds.npy(np.full((5, 3), np.nan))),
    "names of frames that are no text": ("cameras.npz", letters_that_are_none()),
    "embeddings of 2^32 rows": (
        "embeddings", npy(HEADER.format(">f4", "(4294967296, 3)")),
    ),
    "archive of several disks": ("checkpoint", SEVERAL_DISKS),
    "item of 5000 digits": ("set option", b"data.augment." + b"1" * 5000 + b"=3"),
    "list in place of settings": ("set option", b"[].x=1\ndata.augment.[].kind=flip"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(FOUND))
def test_what_was_found_stays_mended(tmp_path: Path, case: str):
    name, data = FOUND[case]
    read_or_refused(tmp_path, name, data)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_few_damaged_files_of_every_kind_are_read_or_refused(tmp_path: Path, name: str):
    """The long campaign is `python -m tests.campaigns.fuzz`."""
    import random

    target, rng = TARGETS[name], random.Random(name)
    read = target.prepare(tmp_path)
    sound = target.seeds()
    for data in sound:
        read_sound(read, data)
    for _ in range(20):
        read_sound(read, damaged(rng.choice(sound), target.kind, rng))


def read_sound(read, data: bytes) -> None:
    """Anything but the clean error would end the test."""
    try:
        read(data)
    except PonderError as error:
        assert error.message


def read_or_refused(folder: Path, name: str, data: bytes) -> None:
    """By the reader of a target."""
    read_sound(TARGETS[name].prepare(folder), data)


def test_the_watch_sees_what_it_looks_for(tmp_path: Path):
    """A reader that raises, one that hangs, one that writes elsewhere, one that starts a process."""
    import subprocess

    (tmp_path / "inside").mkdir()
    watch = Watch(tmp_path / "inside", PonderError)

    def hangs(_: bytes) -> None:
        while True:
            pass

    def raises(_: bytes) -> None:
        raise IndexError("x")

    def refuses(_: bytes) -> None:
        raise PonderError("no")

    def starts(_: bytes) -> None:
        subprocess.run(["true"], check=True)

    kinds = [watch.run(read, b"") for read in (hangs, raises, (tmp_path / "outside").write_bytes, starts)]
    assert [fault and fault.kind for fault in kinds] == ["hung", "raised", "called", "called"]
    assert watch.run(refuses, b"") is None
    assert watch.run((tmp_path / "inside/file").write_bytes, b"") is None
